"""An image transformer becomes a video transformer: the blocks stay as they are, and the 3D branch is added at zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, overload

from torch import Tensor

from videodit import backbone
from videodit.backbone import DiT, DualTransformer, SingleTransformer, Transformer
from videodit.shapes import UserError

Layout = Literal["global", "beside"]


@overload
def inflate(image: DualTransformer, layout: Layout = "global") -> DualTransformer: ...
@overload
def inflate(image: SingleTransformer, layout: Layout = "global") -> SingleTransformer: ...
def inflate(image: DualTransformer | SingleTransformer, layout: Layout = "global") -> DualTransformer | SingleTransformer:
    """The video backbone that, on one frame and untrained, is the image model.

    `global`: the blocks attend over the whole clip. `beside`: they are frozen over each frame, each with a copy of itself over the
    clip behind a zero projection.
    """
    device = next(image.parameters()).device
    video = backbone.build(inflated(image.settings, layout)).to(device)
    weights = image.state_dict() if layout == "global" else dict(_beside(image.state_dict()))
    unlike = video.load_state_dict(weights, strict=False)
    new = ("video.",) if layout == "global" else ("video.", *(f"blocks.{i}.to_" for i in range(image.settings.depth)))
    assert not unlike.unexpected_keys and all(name.startswith(new) for name in unlike.missing_keys)
    return video


def image_half(video: DualTransformer | SingleTransformer) -> dict[str, Tensor]:
    """The weights of the image model that is left in a video model."""
    new = tuple(f"blocks.{i}.{part}." for i in range(video.settings.depth) for part in ("joint", "to_words", "to_video"))
    kept = {name: value for name, value in video.state_dict().items() if not name.startswith(("video.", *new))}
    return {name.replace(".spatial.", "."): value for name, value in kept.items()}


def inflated(image: Transformer | DiT, layout: Layout = "global") -> Transformer | DiT:
    """The settings of the video model: attention over space and time alike, and the 3D branch."""
    if isinstance(image, Transformer):
        return replace(image, video=True, layout=layout)
    if layout != "global":
        raise UserError("Blocks stand beside each other in transformers of two streams alone: leave the layout as it is.")
    return replace(image, video=True, layout="global", time="none")


def _beside(weights: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Every block twice."""
    for name, value in weights.items():
        at, _, rest = name.removeprefix("blocks.").partition(".")
        if name.startswith("blocks."):
            yield from ((f"blocks.{at}.{part}.{rest}", value) for part in ("spatial", "joint"))
        else:
            yield name, value
