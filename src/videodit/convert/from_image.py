"""An image transformer becomes a video transformer: the blocks stay as they are, and the 3D branch is added at zero."""

from __future__ import annotations

from dataclasses import replace
from typing import overload

from videodit import backbone
from videodit.backbone import DiT, DualTransformer, SingleTransformer, Transformer


@overload
def inflate(image: DualTransformer) -> DualTransformer: ...
@overload
def inflate(image: SingleTransformer) -> SingleTransformer: ...
def inflate(image: DualTransformer | SingleTransformer) -> DualTransformer | SingleTransformer:
    """The video backbone that, on one frame and untrained, is the image model."""
    device = next(image.parameters()).device
    video = backbone.build(inflated(image.settings)).to(device)
    unlike = video.load_state_dict(image.state_dict(), strict=False)
    assert not unlike.unexpected_keys and all(name.startswith("video.") for name in unlike.missing_keys)
    return video


def inflated(image: Transformer | DiT) -> Transformer | DiT:
    """The settings of the video model: attention over space and time alike, and the 3D branch."""
    return replace(image, video=True, layout="global", time="none") if isinstance(image, DiT) else replace(image, video=True)
