"""How much clips flicker and how sharp they are, beside clips of the same scenes that are as they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import UInt8

Video = UInt8[np.ndarray, "f h w 3"]
Rows = Sequence[dict[str, float | None]]
LUMA = (0.299, 0.587, 0.114)


def flicker(video: Video) -> float | None:
    """How far frames are from the mean of the two around them, over all pixels, of 255; what moves evenly has little, two frames none."""
    if len(video) < 3:
        return None
    x = video.astype(np.float32)
    return float(abs(x[1:-1] - (x[:-2] + x[2:]) / 2).mean())


def sharpness(video: Video) -> float:
    """Root mean square of the difference in brightness of neighbouring pixels, of 255: a blurred edge counts for less."""
    grey = video.astype(np.float32) @ np.array(LUMA, np.float32)
    return float(np.sqrt(np.mean([np.square(np.diff(grey, axis=axis)).mean() for axis in (1, 2)])))


FIGURES: dict[str, Callable[[Video], float | None]] = {"flicker": flicker, "sharpness": sharpness}


def figures(videos: Iterable[Video]) -> list[dict[str, float | None]]:
    """Of each clip."""
    return [{name: figure(video) for name, figure in FIGURES.items()} for video in videos]


def beside(model: Rows, rebuilt: Rows, truth: Rows) -> dict[str, dict[str, float | None]]:
    """Means over clips, and how many times the truth's the model's are."""
    found: dict[str, dict[str, float | None]] = {}
    for name in FIGURES:
        means = {what: _mean([one[name] for one in rows]) for what, rows in (("model", model), ("rebuilt", rebuilt), ("truth", truth))}
        means["ratio"] = means["model"] / means["truth"] if means["model"] is not None and means["truth"] else None
        found[name] = {what: _rounded(mean) for what, mean in means.items()}
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
