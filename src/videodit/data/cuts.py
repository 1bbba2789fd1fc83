"""A file of a source -> its clips: frames in their order, cut where the picture changes at once, resized and cropped to one extent.

A file is looked through once, in pieces; of its frames only thumbnails stay. Its clips are then read alone, by exact seeks.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, islice
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from videodit.data import borders, video
from videodit.data.item import Crop, Item, content
from videodit.data.shots import lengths, thumbnail
from videodit.data.sources import Files
from videodit.shapes import Size, UserError

Frames = UInt8[np.ndarray, "f h w 3"]
STILL = (0.25, 1.0)  # mean change between neighbours, of 255, of all and of the block that changes most: below both nothing moves
APART = 4  # pixels between those that changes are taken of
BLOCK = 32  # rows and columns of a block: what is small moves much in its own, however large the frame


class Look(NamedTuple):
    """An item looked through: where it begins in its file, its frames, their rate, thumbnails, mean changes (of 255) as in STILL, and
    what is left between black borders, where it has some."""

    first: int
    frames: int
    fps: float
    extent: tuple[int, int]
    thumbnails: np.ndarray
    change: tuple[float, float]
    crop: Crop | None


class Cut(NamedTuple):
    """What became of a file: where its clips begin, and what is left out."""

    first: int
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


def verified(item: Item) -> str:
    """The digest of an item's bytes, which has to be the one that its list says."""
    try:
        found = content(item)
    except UserError as error:
        if not isinstance(error.__cause__, OSError):  # a storage elsewhere that fails is no fault of one file
            raise
        raise video.Unreadable(item.path, error.__cause__.strerror or "it cannot be opened") from None
    if item.digest and item.digest != found:
        raise video.Unreadable(item.path, f"its list says the digest {item.digest[:12]} and it has {found[:12]}")
    return found


def look(item: Item, files: Files) -> Look:
    """An item looked through; of a picture, one frame."""
    seconds = files.seconds
    told = video.probe(item, seconds=seconds)
    first, stop = _span(item, told)
    thumbnails, changes, extent, before = [], [], (0, 0), None
    edges, places = [], borders.places(stop - first)
    for frame in video.stream(item, start=first, stop=stop, seconds=seconds) if first < stop else ():
        some = frame[::APART, ::APART].astype(np.int16)
        if before is not None:
            changes.append(_changes(np.abs(some - before).mean(-1)))
        if len(thumbnails) in places:
            edges.append(borders.edges(frame))
        thumbnails.append(thumbnail(frame))
        extent, before = frame.shape[:2], some
    whole, block = np.mean(changes or [(0.0, 0.0)], axis=0).tolist()
    return Look(first, len(thumbnails), told.fps, extent, np.array(thumbnails), (whole, block), borders.found(edges))


def span(item: Item, files: Files) -> tuple[int, int]:
    """The first frame of an item in its file, and the one behind its last."""
    return _span(item, video.probe(item, seconds=files.seconds))


def _span(item: Item, told: video.Told) -> tuple[int, int]:
    if not item.moves:
        return 0, 1
    return round(item.start * told.fps), told.frames if item.end is None else min(told.frames, round(item.end * told.fps))


def _changes(change: np.ndarray) -> tuple[float, float]:
    """The mean of all, and that of the block where it is largest."""
    rows, columns = (np.linspace(0, length, max(1, length * APART // BLOCK) + 1).astype(int) for length in change.shape)
    sums = np.add.reduceat(np.add.reduceat(change, rows[:-1], 0), columns[:-1], 1)
    return float(change.mean()), float((sums / np.outer(np.diff(rows), np.diff(columns))).max())


def filled(seen: Look, files: Files) -> Size:
    """The largest clip that a file holds: its own rows and columns, and its longest shot."""
    longest = max(lengths(seen.thumbnails)) if seen.frames else 0
    return Size(-(-longest // files.every), *seen.extent)


def cut(seen: Look, size: Size, files: Files) -> Cut:
    """Clips that do not overlap, within shots; of more than `most`, those spread evenly."""
    span = (size.frames - 1) * files.every + 1
    ends = list(accumulate(lengths(seen.thumbnails)))
    spans = tuple(zip([0, *ends[:-1]], ends, strict=True))
    starts = [at for start, stop in spans for at in range(start, stop - span + 1, span)]
    if len(starts) > files.most:
        starts = [starts[i] for i in np.linspace(0, len(starts) - 1, files.most).round().astype(int)]
    return Cut(seen.first, seen.frames, seen.fps, seen.extent, spans, tuple(starts), len(starts) * span)


def still(item: Item, seen: Look) -> bool:
    """Whether a video shows nothing that moves."""
    return item.moves and seen.frames > 1 and all(change < most for change, most in zip(seen.change, STILL, strict=True))


def clips(item: Item, found: Cut, size: Size, files: Files) -> Iterator[Frames]:
    """The clips of a file at their extent, read one by one; of those between their frames nothing stays in memory."""
    span = (size.frames - 1) * files.every + 1
    for start in (found.first + start for start in found.starts):
        frames = video.stream(item, start=start, stop=start + span, seconds=files.seconds)
        kept = [video.fitted(frame[None].copy(), size.rows, size.columns) for frame in islice(frames, 0, None, files.every)]
        if len(kept) < size.frames:
            raise video.Unreadable(item.path, "its decoder gave fewer frames than it announced")
        yield np.concatenate(kept)
