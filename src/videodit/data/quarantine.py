"""Files, or parts of them, that could not be read, by their digests, with the reason: nobody tries them again until the reader is another,
or has another time for each. A run goes on without a few of them, and stops with a report where they are more.

One JSON object a line, added in one write, so several processes may share the list; a line that is taken out is a file that is tried again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from av import ffmpeg_version_info
from PIL import __version__ as pillow

from videodit.data import cuts
from videodit.data.item import PICTURES, Crop, Item, crop
from videodit.data.video import Unreadable
from videodit.shapes import UserError

READER = f"4, FFmpeg {ffmpeg_version_info}"  # changes when what is seen changes; what is kept of files is then made again
FAULTS = f"2, Pillow {pillow}"  # changes when what is a fault changes; files that had one are then tried again
T = TypeVar("T")


def reader(item: Item) -> str:
    """What reads a file, for keys of what is made of it: films that Pillow does not read stay what they are under another Pillow."""
    drawn = item.path.suffix.lower() in (*PICTURES, ".webp") or (item.inside is None and item.path.is_dir())
    return f"{READER}, Pillow {pillow}" if drawn else READER


class Place(NamedTuple):
    """The digest of a file, and which part of it (in seconds, and of each frame)."""

    digest: str
    start: float
    end: float | None
    crop: Crop | None = None

    @property
    def key(self) -> dict[str, Any]:
        """What keys of what is made of it say: of whole frames nothing, as before there were others."""
        return {"start": self.start, "end": self.end} | ({} if self.crop is None else {"crop": str(self.crop)})


class Quarantine:
    """A list of places on disk, or none, for a reader that takes so many seconds for each."""

    def __init__(self, path: Path | None, seconds: float) -> None:
        self.path, self.reader = path, f"{READER}, faults {FAULTS}, {seconds:g} s"
        self.reasons: dict[Place, str] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path is not None and path.is_file() else []:
            try:
                entry = json.loads(line)
                if entry["reader"] == self.reader:
                    part = crop(entry["crop"]) if "crop" in entry else None
                    self.reasons[Place(entry["digest"], entry["start"], entry["end"], part)] = str(entry["reason"])
            except (ValueError, KeyError, TypeError):  # half a line of a process that was killed
                continue

    def tried(self, place: Place, file: Path, make: Callable[[], T]) -> T:
        """What is made of a place, if that did not fail before."""
        if place in self.reasons:
            raise Unreadable(file, self.reasons[place])
        try:
            return make()
        except Unreadable as error:
            self.add(place, file, error.reason)
            raise

    def add(self, place: Place, file: Path, reason: str) -> None:
        self.reasons[place] = reason
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entry: dict[str, Any] = {"digest": place.digest, **place.key, "file": file.name, "reason": reason, "reader": self.reader}
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, (json.dumps(entry) + "\n").encode())
        finally:
            os.close(handle)


class Losses:
    """The files of a source that a run goes on without; `budget` is the part that they may be."""

    def __init__(self, total: int, budget: float, report: Path) -> None:
        self.total, self.budget, self.report = total, budget, report
        self.count, self.first = 0, ""

    def add(self, error: Unreadable) -> None:
        self.count, self.first = self.count + 1, self.first or str(error).rstrip(".")
        self.report.parent.mkdir(parents=True, exist_ok=True)
        before = self.report.read_text(encoding="utf-8").splitlines() if self.report.is_file() else []
        line = json.dumps({"file": str(error.path), "reason": error.reason})
        self.report.write_text("".join(f"{each}\n" for each in dict.fromkeys([*before, line])), encoding="utf-8")
        if self.count > self.budget * self.total:
            raise UserError(
                f"{self.count} of {self.total} files could not be used so far, more than data.budget={self.budget:g} allows; "
                f"{self.report} lists them. The first: {self.first}; or leave them out, or raise data.budget."
            )


def placed(item: Item) -> Place:
    """Where an item's bytes are, which have to be those that its list says."""
    return Place(cuts.verified(item), item.start, item.end, item.crop)


def readable(
    items: Sequence[Item], make: Callable[[Item, Place], T], losses: Losses, progress: Callable[[int, int], None]
) -> Iterator[tuple[Item, Place, T]]:
    """What is made of each item that can be read; of those with the same bytes the first counts."""
    seen: set[Place] = set()
    for done, item in enumerate(items, 1):
        progress(done, len(items))
        try:
            place = placed(item)
            if place in seen:
                continue
            seen.add(place)
            made = make(item, place)
        except Unreadable as error:
            losses.add(error)
            continue
        yield item, place, made
