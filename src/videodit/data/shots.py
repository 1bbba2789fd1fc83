"""Where a video changes at once, and far more than around: there a shot ends."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from PIL import Image

CUT = 24.0  # least mean difference of two thumbnails, of 255, where a shot may end
AROUND = 4  # and by how often it exceeds the median of so many differences before and after
THUMBNAIL = (24, 16)


def thumbnail(frame: np.ndarray) -> Float32[np.ndarray, "16 24"]:
    """What cuts are found by."""
    return np.asarray(Image.fromarray(frame).convert("L").resize(THUMBNAIL, Image.Resampling.BOX), np.float32)


def lengths(thumbnails: np.ndarray) -> list[int]:
    """How many frames each shot of a video lasts."""
    change = abs(np.diff(thumbnails, axis=0)).mean((1, 2)) if len(thumbnails) > 1 else np.zeros(0)
    cuts = [0]
    for i, value in enumerate(change):
        near = np.delete(change[max(0, i - AROUND) : i + AROUND + 1], min(i, AROUND))
        if value > CUT and value > AROUND * (np.median(near) if len(near) else 0):
            cuts.append(i + 1)
    return np.diff([*cuts, len(thumbnails)]).tolist()
