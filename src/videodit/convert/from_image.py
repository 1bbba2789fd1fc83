"""An image transformer becomes a video transformer: the blocks stay as they are, and the 3D branch is added at zero."""

from __future__ import annotations

from dataclasses import replace

from videodit import backbone
from videodit.backbone import DualTransformer


def inflate(image: DualTransformer) -> DualTransformer:
    """The video backbone that, on one frame and untrained, is the image model."""
    device = next(image.parameters()).device
    video = backbone.build(replace(image.settings, video=True)).to(device)
    unlike = video.load_state_dict(image.state_dict(), strict=False)
    assert not unlike.unexpected_keys and all(name.startswith("video.") for name in unlike.missing_keys)
    return video
