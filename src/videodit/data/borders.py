"""Black borders, found in frames that are spread over a file.

A row or column is of a border where no frame shows anything in it, and the picture begins at once behind it: along most of its length, in
a part of the frames. So neither a dark scene nor a thing before black has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from PIL import Image

from videodit.data.item import Crop

LOOKED = 64  # frames of a file that are looked at
BLACK = 24.0  # luma, of 255, that nothing in a border is above
LIT = 40.0  # and that a picture begins with
SHARE = 0.6  # of the first row of a picture that is lit
FRAMES = 0.25  # of the frames that show so
SOFT = 2  # rows between black and lit, which scaling blurs: they go too
LEAST = 0.25  # of the whole that is left: of more black, none is cut off
RUNS = 64  # parts of a row or column, each of which counts by its mean, where noise is less


class Lines(NamedTuple):
    """Of each row, or column, of a frame: its brightest part, and how many of its parts are lit."""

    peak: Float32[np.ndarray, "n"]
    lit: Float32[np.ndarray, "n"]


class Edges(NamedTuple):
    """What is kept of a frame."""

    rows: Lines
    columns: Lines


def places(frames: int) -> set[int]:
    """Which of so many frames are looked at."""
    return set(np.linspace(0, max(frames - 1, 0), min(max(frames, 0), LOOKED)).round().astype(int).tolist())


def edges(frame: np.ndarray) -> Edges:
    """A frame, looked at."""
    grey = Image.fromarray(frame).convert("L")
    columns, rows = grey.size
    across = np.asarray(grey.resize((min(columns, RUNS), rows), Image.Resampling.BOX))
    down = np.asarray(grey.resize((columns, min(rows, RUNS)), Image.Resampling.BOX)).T
    return Edges(*(Lines(parts.max(1).astype(np.float32), (parts >= LIT).mean(1, dtype=np.float32)) for parts in (across, down)))


def found(looked: Sequence[Edges]) -> Crop | None:
    """What is left between borders; None where there are none."""
    if not looked:
        return None
    top, bottom = _kept([one.rows for one in looked])
    left, right = _kept([one.columns for one in looked])
    rows, columns = len(looked[0].rows.peak), len(looked[0].columns.peak)
    crop = Crop(bottom - top, right - left, top, left)
    whole = rows * columns
    return crop if LEAST * whole <= crop.rows * crop.columns < whole else None


def _kept(lines: Sequence[Lines]) -> tuple[int, int]:
    """The first line of the picture, and the first behind it."""
    shown = np.max([one.peak for one in lines], axis=0) > BLACK
    begins = np.quantile([one.lit for one in lines], 1 - FRAMES, axis=0) >= SHARE
    return _first(shown, begins), len(shown) - _first(shown[::-1], begins[::-1])


def _first(shown: np.ndarray, begins: np.ndarray) -> int:
    """Where the picture begins, from one side; 0 where nothing before it is a border."""
    dark = int(shown.argmax()) if shown.any() else 0
    sharp = begins[dark : dark + SOFT + 1]
    return dark + int(sharp.argmax()) if dark and sharp.any() else 0
