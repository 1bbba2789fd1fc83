"""A file of a source -> its clips: frames in their order, cut where the picture changes at once, resized and cropped to one extent."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from videodit.data import video
from videodit.data.clips import split
from videodit.data.sources import Files, Item
from videodit.shapes import Size

Frames = UInt8[np.ndarray, "f h w 3"]


class Cut(NamedTuple):
    """What became of a file: where its clips begin, and what is left out."""

    frames: int
    fps: float
    extent: tuple[int, int]
    spans: tuple[tuple[int, int], ...]  # where each shot begins and ends
    starts: tuple[int, ...]
    used: int

    @property
    def shots(self) -> int:
        return len(self.spans)

    @property
    def dropped(self) -> int:
        return self.frames - self.used


def read(item: Item) -> tuple[Frames, float]:
    """The frames of an item, and their rate."""
    if not item.moves:
        return video.read(item.path, frames=1)
    frames, fps = video.read(item.path)
    stop = len(frames) if item.end is None else round(item.end * fps)
    return frames[round(item.start * fps) : stop], fps


def cut(frames: Frames, fps: float, size: Size, files: Files) -> Cut:
    """Clips that do not overlap, within shots; of more than `most`, those spread evenly."""
    span, shots = (size.frames - 1) * files.every + 1, split(frames) if len(frames) > 1 else [frames]
    ends = list(accumulate(map(len, shots)))
    spans = tuple(zip([0, *ends[:-1]], ends, strict=True))
    starts = [at for start, stop in spans for at in range(start, stop - span + 1, span)]
    if len(starts) > files.most:
        starts = [starts[i] for i in np.linspace(0, len(starts) - 1, files.most).round().astype(int)]
    return Cut(len(frames), fps, frames.shape[1:3], spans, tuple(starts), len(starts) * span)


def clips(frames: Frames, found: Cut, size: Size, files: Files) -> Iterator[Frames]:
    """The clips of a file at their extent."""
    span = (size.frames - 1) * files.every + 1
    for start in found.starts:
        yield video.fitted(frames[start : start + span : files.every], size.rows, size.columns)
