"""Files of a source -> windows for training: frames are shrunk once and kept by content, cut into shots, and windows are drawn from those.

Frames stay on disk; what is held is where each shot begins and how long it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from videodit.config import setting
from videodit.data import cuts, sources, video
from videodit.data.cache import remembered
from videodit.data.item import Item
from videodit.data.quarantine import Losses, Place, Quarantine, placed, readable, reader
from videodit.data.rows import Rows
from videodit.data.shots import lengths, thumbnail
from videodit.data.sources import Filed
from videodit.shapes import Size, UserError

Frames = UInt8[np.ndarray, "f h w 3"]


@dataclass(frozen=True, kw_only=True)
class Clips:
    """How clips are drawn from files, and how often beside a drawn world."""

    share: float = setting(1.0, doc="part of the samples that come from the files of data, if it names any; the others are drawn")
    side: int = setting(96, doc="rows or columns, whichever are fewer, that files are shrunk to before clips are cut out")

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.side < 1:
            raise UserError(f"clips takes a share of 0 to 1 and a side of 1 or more, not {self.share} and {self.side}.")


@dataclass(frozen=True)
class Shots:
    """All shots of all files, one after another."""

    frames: Rows
    firsts: np.ndarray  # frame with which each begins
    lengths: np.ndarray
    weights: np.ndarray  # how often one of its frames opens a clip
    digest: str  # of what decides all this


def shots(source: Filed, clips: Clips, size: Size, cache: Path, report: Path, progress: Callable[[int, int], None]) -> Shots:
    """Where clips of a size may be drawn from: videos and, where clips have one frame, pictures; what cannot be read is reported."""
    items = [item for item in sources.items(source) if item.moves or size.frames == 1]
    quarantine = Quarantine(cache / "quarantine.jsonl", source.seconds)
    losses = Losses(len(items), source.budget, report)
    read: list[Item] = []
    spans: list[tuple[int, float]] = []  # how long each shot lasts, and its weight
    content, span = hashlib.sha256(repr((clips.side, source.every)).encode()), (size.frames - 1) * source.every + 1

    def kept(item: Item, place: Place) -> tuple[dict, Callable[[], dict[str, Tensor]]]:
        key = {"file": place.digest, **place.key, "side": clips.side, "resize": "lanczos", "reader": reader(item)}
        return key, partial(quarantine.tried, place, item.path, partial(_shrunk, item, source, clips.side))

    def cut(item: Item, place: Place) -> list[int]:
        key, make = kept(item, place)
        return remembered(cache, key | {"shots": "lengths"}, lambda: _lengths(remembered(cache, key, make)["frames"]))["lengths"].tolist()

    frames = Rows(cache, lambda entry: remembered(cache, *kept(read[entry], placed(read[entry]))))
    for item, place, found in readable(items, cut, losses, progress):
        if frames.add(*kept(item, place)):
            read.append(item._replace(captions=()))
            spans += [(length, item.weight) for length in found]
            content.update(f"{place} {item.weight}".encode())
            if max(found) >= span:
                _check(item.path, frames.shape("frames", len(frames) - 1), size, clips.side)
    if not spans or max(length for length, _ in spans) < span:
        lost = f", and {losses.count} of {losses.total} files could not be used, as {report} says" if losses.count else ""
        raise UserError(
            f"No shot in {source.path} lasts {span} frames{lost}: use fewer frames (size), a smaller data.every, or longer videos."
        )
    lasting, weights = np.array(spans).T
    lasting = lasting.astype(np.int64)
    return Shots(frames, lasting.cumsum() - lasting, lasting, weights, content.hexdigest())


def window(found: Shots, size: Size, every: int, rng: np.random.Generator) -> Frames:
    """A clip from a place, a time and a side drawn at random, of shots that it fits; every frame of every shot is as likely to open one,
    times its file's weight."""
    span = (size.frames - 1) * every + 1
    starts = np.maximum(0, found.lengths - span + 1) * found.weights
    shot = int(rng.choice(len(starts), p=starts / starts.sum()))
    first = int(found.firsts[shot])
    rows, columns, _ = found.frames.shape("frames", first)
    at = first + int(rng.integers(found.lengths[shot] - span + 1))
    top, left = int(rng.integers(rows - size.rows + 1)), int(rng.integers(columns - size.columns + 1))
    clip = np.stack([frame.numpy() for frame in found.frames.read("frames", range(at, at + span, every))])
    clip = clip[:, top : top + size.rows, left : left + size.columns]
    return clip[:, :, ::-1] if rng.random() < 0.5 else clip


def _check(path: Path, extent: tuple[int, ...], size: Size, side: int) -> None:
    """Whether a clip fits into frames, which are shrunk and never enlarged."""
    rows, columns, _ = extent
    if rows >= size.rows and columns >= size.columns:
        return
    said = f"{path} has frames of {rows}x{columns}"
    if min(rows, columns) < side:
        raise UserError(f"{said}, smaller than clips of {size.rows}x{size.columns}: take it out of data.path, or use a smaller size.")
    raise UserError(
        f"{said} at clips.side={side}, smaller than clips of {size.rows}x{size.columns}: use a larger clips.side, or a smaller size."
    )


def _lengths(frames: Tensor) -> dict[str, Tensor]:
    """How long each shot lasts."""
    return {"lengths": torch.tensor(lengths(np.stack([thumbnail(frame) for frame in frames.numpy()])) if len(frames) else [])}


def _shrunk(item: Item, source: Filed, side: int) -> dict[str, Tensor]:
    first, stop = cuts.span(item, source)
    frames = [_small(frame, side) for frame in video.stream(item, start=first, stop=stop, seconds=source.seconds)] if first < stop else []
    return {"frames": torch.from_numpy(np.stack(frames)) if frames else torch.zeros(0)}


def _small(frame: np.ndarray, side: int) -> np.ndarray:
    rows, columns = frame.shape[:2]
    factor = side / min(rows, columns)
    if factor >= 1:
        return frame
    return np.asarray(Image.fromarray(frame).resize((round(columns * factor), round(rows * factor)), Image.Resampling.LANCZOS))
