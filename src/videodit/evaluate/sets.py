"""Which clips of a source are measured, and at which extent: a function of the source and a seed, known before anything is decoded.

Files are gone through in an order that the seed draws. Of each come `most` clips that do not overlap: one begins where the seed says,
several are spread evenly. Shots are not told apart, as published protocols do not. Where there are fewer clips than asked for nothing is
measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch.nn import functional as F

from videodit.config import setting
from videodit.data import sources, toybox, video
from videodit.data.item import Item, content
from videodit.evaluate.asked import DRAWN, Kernel
from videodit.evaluate.judges import TOYBOX
from videodit.shapes import Size, UserError

Frames = UInt8[np.ndarray, "f h w 3"]
DRAWN_EXTENT = (64, 64)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What is taken of a set of videos."""

    count: int = setting(2048, doc="clips; fewer are an error")
    frames: int = setting(16, doc="frames of a clip")
    every: int = setting(1, doc="a clip takes every so many-th frame of its file")
    most: int = setting(1, doc="clips of a file at most")
    size: tuple[int, int] | None = setting(None, doc="rows and columns: frames are resized to cover them, and their middle is taken")
    resize: Kernel = setting("bicubic", doc="the kernel; each is as wide as frames shrink")
    seed: int = setting(0, doc="which files, and where their clips begin")

    @property
    def span(self) -> int:
        return (self.frames - 1) * self.every + 1


class Part(NamedTuple):
    """A file, and the first frames of the clips that are taken from it."""

    item: Item | None  # none: a scene
    starts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Set:
    """The clips that will be measured."""

    name: str
    taken: Taken
    parts: tuple[Part, ...]

    @cached_property
    def digest(self) -> str:
        """Of the content of its files and of where its clips begin."""
        found = hashlib.sha256()
        for number, part in enumerate(self.parts):
            which = f"{DRAWN} {number}" if part.item is None else content(part.item)
            cropped = f" {part.item.crop}" if part.item is not None and part.item.crop else ""
            found.update(f"{which}{cropped} {part.starts}\n".encode())
        if self.parts[0].item is None:
            found.update(TOYBOX.world.content().encode())
        return found.hexdigest()

    @property
    def captions(self) -> list[str]:
        """What is said of each clip: the first words of its file; of a scene, its prompt."""
        drawn = TOYBOX.scenes("held-out", len(self.parts)) if self.parts[0].item is None else []
        words = []
        for number, part in enumerate(self.parts):
            if part.item is not None and not part.item.captions:
                raise UserError(f"{part.item.path} has no words: put them into {part.item.path.with_suffix('.txt').name}, or give a list.")
            said = toybox.prompt(drawn[number]) if part.item is None else part.item.captions[0]
            words += [said] * len(part.starts)
        return words

    @cached_property
    def extent(self) -> tuple[int, int]:
        """Rows and columns of the first clip."""
        rows, columns = next(self.clips(step=self.taken.count))[1].shape[1:3]
        return rows, columns

    def clips(self, first: int = 0, step: int = 1) -> Iterator[tuple[int, Frames]]:
        """Clips `first`, `first + step`, ... with their numbers."""
        number, wanted = 0, range(first, self.taken.count, step)
        drawn = TOYBOX.scenes("held-out", len(self.parts)) if self.parts[0].item is None else []
        for place, part in enumerate(self.parts):
            numbers = range(number, number + len(part.starts))
            number += len(part.starts)
            mine = [at for at in numbers if at in wanted]
            if not mine:
                continue
            if part.item is None:
                extent = self.taken.size or DRAWN_EXTENT
                yield place, toybox.render(drawn[place], Size(self.taken.frames, *extent))
                continue
            starts = [part.starts[at - numbers.start] for at in mine]
            for at, frames in zip(mine, _windows(part.item, starts, self.taken), strict=True):
                yield at, fitted(frames, self.taken)


def choose(name: str, taken: Taken, progress: Callable[[int, int], None] | None = None) -> Set:
    """The clips of a folder, of a list of files, or of the toybox."""
    if name == DRAWN:
        if taken.every > 1 or taken.most > 1:
            raise UserError(f"A scene of {DRAWN} is as long as a clip: --every and --most, or those of a protocol, are for files.")
        return Set(name=name, taken=taken, parts=(Part(None, (0,)),) * taken.count)
    path = Path(name)
    items = sources.items(sources.Folder(path=path) if path.is_dir() else sources.Manifest(path=path))
    order = np.random.default_rng([taken.seed, 1]).permutation(len(items))
    parts, found = [], 0
    for place in order.tolist():
        if starts := _starts(items[place], place, taken)[: taken.count - found]:
            parts.append(Part(items[place], starts))
            found += len(starts)
            if progress:
                progress(found, taken.count)
        if found == taken.count:
            return Set(name=name, taken=taken, parts=tuple(parts))
    long = f"{taken.span} frames ({taken.frames}, every {taken.every})" if taken.every > 1 else f"{taken.frames} frames"
    files = f"{name} has {found} clips of {long} in {len(items)} files, at most {taken.most} of each,"
    raise UserError(f"{files} and {taken.count} are asked for: bring more, or ask for fewer by --count, which the score then says.")


def _starts(item: Item, place: int, taken: Taken) -> tuple[int, ...]:
    length, fps, *_ = video.probe(item)
    first = round(item.start * fps)
    stop = length if item.end is None else min(length, round(item.end * fps))
    if stop - first < taken.span:
        return ()
    if taken.most == 1:
        return (int(np.random.default_rng([taken.seed, 2, place]).integers(first, stop - taken.span + 1)),)
    starts = list(range(first, stop - taken.span + 1, taken.span))
    if len(starts) > taken.most:
        starts = [starts[i] for i in np.linspace(0, len(starts) - 1, taken.most).round().astype(int)]
    return tuple(starts)


def _windows(item: Item, starts: Iterable[int], taken: Taken) -> Iterator[Frames]:
    """Clips of a file in one pass; only the clip at hand is in memory, however long the file is."""
    starts = list(starts)
    at = starts[0] if starts else 0
    frames = video.stream(item, start=at, stop=max(starts, default=0) + taken.span)
    for start in starts:
        kept = []
        for frame in frames:
            at += 1
            if at > start and (at - 1 - start) % taken.every == 0:
                kept.append(frame.copy())  # the frames around it go
            if len(kept) == taken.frames:
                break
        if len(kept) < taken.frames:
            raise UserError(f"{item.path} ends after {at} frames, before it says: write it anew, or leave it out of what is measured.")
        yield np.stack(kept)
    for _ in frames:  # who reads to the end is asked again
        pass


# --- Extent ---


def fitted(frames: Frames, taken: Taken) -> UInt8[np.ndarray, "f y x 3"]:
    """Frames at the extent that is asked for, rounded to whole numbers as a file would hold them."""
    if taken.size is None or frames.shape[1:3] == taken.size:
        return frames
    if taken.resize == "lanczos":
        return video.fitted(frames, *taken.size)
    rows, columns = frames.shape[1:3]
    scale = max(taken.size[0] / rows, taken.size[1] / columns)
    cover = max(taken.size[0], round(rows * scale)), max(taken.size[1], round(columns * scale))
    pictures = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    if cover != (rows, columns):
        smooth = {} if taken.resize == "area" else {"antialias": True}
        pictures = F.interpolate(pictures, cover, mode=taken.resize, **smooth)
    top, left = (cover[0] - taken.size[0]) // 2, (cover[1] - taken.size[1]) // 2
    pictures = pictures[:, :, top : top + taken.size[0], left : left + taken.size[1]]
    return pictures.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
