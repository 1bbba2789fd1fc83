"""An image transformer becomes a video transformer: the blocks stay as they are, and the 3D branch is added at zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, overload

import torch
from torch import Tensor, nn

from videodit import backbone
from videodit.backbone import Cropped, DiT, DualTransformer, SingleTransformer, Transformer
from videodit.backbone.variants import BRANCHES, NEW
from videodit.shapes import UserError

Layout = Literal["global", "beside", "late", "interleaved", "factorised", "split"]
LAVITA = ("late", "interleaved", "factorised", "split")


@overload
def inflate(image: DualTransformer, layout: Layout = "global", *, side: int = 0, branch: bool = True) -> DualTransformer: ...
@overload
def inflate(image: SingleTransformer, layout: Layout = "global", *, side: int = 0, branch: bool = True) -> SingleTransformer: ...
def inflate(
    image: DualTransformer | SingleTransformer, layout: Layout = "global", *, side: int = 0, branch: bool = True
) -> DualTransformer | SingleTransformer:
    """The video backbone of an image model.

    `global`: the blocks attend over the whole clip; on one frame and untrained it is the image model. `beside`: they are frozen over
    each frame, each with a copy of itself over the clip behind a zero projection. LAVITA's four: every block keeps its weights
    and attends in space, in time or both, and the label's embedding is dropped; `factorised` adds an attention through time to each
    block, which puts out zero. `side`: places are interpolated for so many tokens a side instead of the image model's.
    Without the `branch` no frame knows its place in time (the paper's 2D patchify).
    """
    device = next(image.parameters()).device
    video = backbone.build(inflated(image.settings, layout, side=side, branch=branch)).to(device)
    weights, depth = image.state_dict(), range(image.settings.depth)
    new: tuple[str, ...] = ("video.",)
    if layout == "beside":
        weights, new = dict(_beside(weights)), (*new, *(f"blocks.{i}.to_" for i in depth))
    elif layout in LAVITA:
        weights, new = dict(_unlabelled(weights)), tuple(f"blocks.{i}.own.1." for i in depth)
        _silence(video)
    unlike = video.load_state_dict(weights, strict=False)
    assert not unlike.unexpected_keys and all(name.startswith(new) for name in unlike.missing_keys)
    return video


def stilled(video: SingleTransformer, image: DiT) -> SingleTransformer:
    """The image model, without labels, that has the weights of one of LAVITA's: every block attends in space."""
    still = backbone.build(replace(image, labels=0)).eval()
    still.load_state_dict({name: value for name, value in video.state_dict().items() if ".own.1." not in name})
    return still


def image_half(video: DualTransformer | SingleTransformer) -> dict[str, Tensor]:
    """The weights of the image model that is left in a video model."""
    new = tuple(f"blocks.{i}.{part}." for i in range(video.settings.depth) for part in NEW)
    kept = {name: value for name, value in video.state_dict().items() if not name.startswith((*BRANCHES, *new))}
    return {name.replace(".spatial.", "."): value for name, value in kept.items()}


def inflated(image: Transformer | DiT, layout: Layout = "global", *, side: int = 0, branch: bool = True) -> Transformer | DiT:
    """The settings of the video model: attention over space and time alike with the 3D branch, or LAVITA's, with their table of time."""
    if side < 0 or (side and layout not in LAVITA):
        raise UserError(f"Places are interpolated for the layouts {', '.join(LAVITA)}, and for 1 token a side or more: leave the side out.")
    if side and isinstance(image.places, Cropped):
        image = replace(image, places=replace(image.places, side=side))
    if isinstance(image, Transformer):
        if layout in LAVITA:
            raise UserError(f"The layout {layout} leaves an image model of two streams no block as it is: use global or beside.")
        return replace(image, video=branch, layout=layout)
    if layout in LAVITA:
        return replace(image, layout=layout, labels=0, time="table")
    return replace(image, video=branch, layout=layout, time="none")


def _unlabelled(weights: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """All but the label's embedding, which LAVITA drops, as if it were zero."""
    return ((name, value) for name, value in weights.items() if not name.startswith("signal.label."))


def _silence(video: nn.Module) -> None:
    """What attends through time beside attention in space begins by saying nothing."""
    with torch.no_grad():
        for name, parameter in video.named_parameters():
            if ".own.1.out." in name:
                parameter.zero_()


def _beside(weights: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Every block twice."""
    for name, value in weights.items():
        at, _, rest = name.removeprefix("blocks.").partition(".")
        if name.startswith("blocks."):
            yield from ((f"blocks.{at}.{part}.{rest}", value) for part in ("spatial", "joint"))
        else:
            yield name, value
