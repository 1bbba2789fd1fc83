"""Video files -> clips for training: frames are shrunk once and kept by content, cut into shots, and windows are drawn from those."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image

from videodit.config import setting
from videodit.data import video
from videodit.data.cache import remembered
from videodit.data.item import VIDEOS, Item, digest, inside
from videodit.data.quarantine import reader
from videodit.shapes import Size, UserError

Frames = UInt8[np.ndarray, "f h w 3"]
Shot = np.ndarray  # frames, as many as the shot lasts
CUT = 24.0  # least mean difference of two thumbnails, of 255, where a shot may end
AROUND = 4  # and by how often it exceeds the median of so many differences before and after
THUMBNAIL = (24, 16)


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Where clips come from beside the toybox."""

    files: tuple[str, ...] = setting((), doc="videos, or folders of them; without any the toybox alone is drawn")
    share: float = setting(1.0, doc="part of the samples that come from these files; the others are of the toybox")
    side: int = setting(96, doc="rows or columns, whichever are fewer, that files are shrunk to before clips are cut out")
    every: int = setting(1, doc="a clip takes every so many-th frame")
    cache: Path = setting(Path("out/cache"), doc="folder where shrunk frames are kept")

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.side < 1 or self.every < 1:
            raise UserError(f"clips takes a share of 0 to 1, side and every of 1 or more, not {self.share}, {self.side} and {self.every}.")


def shots(settings: Clips, size: Size) -> list[Shot]:
    """All shots of all files, shrunk; those that last as long as a clip are as large as one."""
    found: list[Shot] = []
    span = (size.frames - 1) * settings.every + 1
    for path in listed(settings.files):
        key = {"file": digest(path), "side": settings.side, "resize": "lanczos", "reader": reader(Item(path))}
        frames = remembered(settings.cache, key, lambda path=path: {"frames": torch.from_numpy(_shrunk(path, settings.side))})["frames"]
        here = split(frames.numpy())
        if max(map(len, here)) >= span:
            _check(path, frames.shape[1:3], size, settings.side)
        found += here
    if found and max(map(len, found)) < span:
        raise UserError(f"No shot lasts {span} frames: use fewer frames (size), a smaller clips.every, or longer videos.")
    return found


def _check(path: Path, extent: Sequence[int], size: Size, side: int) -> None:
    """Whether a clip fits into frames, which are shrunk and never enlarged."""
    rows, columns = extent
    if rows >= size.rows and columns >= size.columns:
        return
    said = f"{path} has frames of {rows}x{columns}"
    if min(extent) < side:
        raise UserError(f"{said}, smaller than clips of {size.rows}x{size.columns}: leave it out of clips.files, or use a smaller size.")
    raise UserError(
        f"{said} at clips.side={side}, smaller than clips of {size.rows}x{size.columns}: use a larger clips.side, or a smaller size."
    )


def split(frames: Frames) -> list[Shot]:
    """A video cut where it changes at once, and far more than around."""
    ends = np.cumsum(lengths(np.stack([thumbnail(frame) for frame in frames])))
    return np.split(frames, ends[:-1])


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


def window(found: Sequence[Shot], size: Size, every: int, rng: np.random.Generator) -> Frames:
    """A clip from a place, a time and a side drawn at random, of shots that it fits; every frame of every shot is as likely to open one."""
    span = (size.frames - 1) * every + 1
    starts = np.array([max(0, len(shot) - span + 1) for shot in found])
    shot = found[int(rng.choice(len(found), p=starts / starts.sum()))]
    rows, columns = shot.shape[1:3]
    at = int(rng.integers(len(shot) - span + 1))
    top, left = int(rng.integers(rows - size.rows + 1)), int(rng.integers(columns - size.columns + 1))
    clip = shot[at : at + span : every, top : top + size.rows, left : left + size.columns]
    return clip[:, :, ::-1] if rng.random() < 0.5 else clip


def listed(files: Iterable[str]) -> list[Path]:
    """Files by name, and those in folders, in an order that does not depend on the machine."""
    paths: list[Path] = []
    for path in map(Path, files):
        found = sorted(inside(path, VIDEOS)) if path.is_dir() else [path]
        if not found:
            raise UserError(f"There is no video in {path}: name a folder with files such as .mp4, or the files themselves.")
        paths += found
    return paths


def _shrunk(path: Path, side: int) -> Frames:
    frames = [_small(frame, side) for frame in video.stream(path)]
    if not frames:
        raise UserError(f"{path} holds no picture: name a file with a video stream, such as an .mp4.")
    return np.stack(frames)


def _small(frame: np.ndarray, side: int) -> np.ndarray:
    rows, columns = frame.shape[:2]
    factor = side / min(rows, columns)
    if factor >= 1:
        return frame
    return np.asarray(Image.fromarray(frame).resize((round(columns * factor), round(rows * factor)), Image.Resampling.LANCZOS))
