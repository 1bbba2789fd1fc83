"""One file of a source, or a part of one: what is said of it, and where its bytes are."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from videodit.shapes import UserError

VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif", ".webp")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
HEAD = 21  # bytes of a .webp that say whether it moves


class Inside(NamedTuple):
    """A member of a shard: the shard's path or address, and which of its bytes."""

    shard: str
    at: int
    size: int
    head: bytes = b""  # of a .webp its first bytes


class Crop(NamedTuple):
    """A part of every frame as it is to be seen: written ROWSxCOLUMNS+TOP+LEFT."""

    rows: int
    columns: int
    top: int
    left: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}+{self.top}+{self.left}"


def crop(text: str) -> Crop:
    """'360x640+60+0' -> the part; a ValueError where it is none."""
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})\+(\d{1,6})\+(\d{1,6})", text, re.ASCII)
    if not found:
        raise ValueError(f"crop takes ROWSxCOLUMNS+TOP+LEFT such as 360x640+60+0, not {text[:40]}")
    return Crop(*map(int, found.groups()))


class Item(NamedTuple):
    """A file, or a part of one (in seconds), with what is said of it. A folder of pictures is a video."""

    path: Path
    captions: tuple[str, ...] = ()
    label: str = ""
    start: float = 0.0
    end: float | None = None
    weight: float = 1.0
    digest: str = ""  # SHA-256 of the file, where a list says it
    inside: Inside | None = None  # of a member of a shard, whose path is a name alone
    wrong: str = ""  # why what is said of it cannot be used
    crop: Crop | None = None  # what of each frame is read

    @property
    def moves(self) -> bool:
        suffix = self.path.suffix.lower()
        return not _photograph(self) if suffix == ".webp" else suffix not in PICTURES


def _photograph(item: Item) -> bool:
    """Whether a .webp is one picture: only what is extended (X) can be an animation, and says so in a bit."""
    head = b"" if item.inside is None else item.inside.head
    if item.inside is None:
        with suppress(OSError), item.path.open("rb") as file:
            head = file.read(HEAD)
    head = head.ljust(HEAD, b"\0")
    return head[8:15] == b"WEBPVP8" and not (head[15:16] == b"X" and head[20] & 2)


class Window(io.RawIOBase):
    """A part of a file that reads as a file of its own."""

    def __init__(self, file: BinaryIO, at: int, size: int) -> None:
        self.file, self.first, self.size, self.at = file, at, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = max(0, offset + (0, self.at, self.size)[whence])
        return self.at

    def tell(self) -> int:
        return self.at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self.size - self.at)
        self.file.seek(self.first + self.at)
        data = self.file.read(left if size is None or size < 0 else min(size, left))
        self.at += len(data)
        return data

    def close(self) -> None:
        self.file.close()
        super().close()


def digest(path: Path) -> str:
    """The content of a file, or of a folder's pictures in their order."""
    try:
        if path.is_dir():
            parts = "".join(f"{digest(p)} {p.name}\n" for p in pictures(path))
            return hashlib.sha256(parts.encode()).hexdigest()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a video that exists.") from error


def pictures(folder: Path) -> list[Path]:
    """The frames of a video that is a folder of pictures: by number where names end in one."""

    def place(path: Path) -> tuple[int, str]:
        digits = "".join(c if c.isdecimal() else " " for c in path.stem).split()
        return (int(digits[-1]) if digits else 0, path.name)

    return sorted((p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")), key=place)


def inside(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of these suffixes in a folder and in all below it, linked ones too; what is hidden, as a disk's trash is, stays out.

    A folder is gone through once, however many links lead to it; one that stands in `folder` by its own name.
    """
    root, found = folder.resolve(), []
    seen = {root}

    def new(path: Path) -> bool:
        real = path.resolve()
        if real in seen or (path.is_symlink() and real.is_relative_to(root)):
            return False
        seen.add(real)
        return True

    for place, below, names in os.walk(folder, followlinks=True):
        here = Path(place)
        below[:] = [name for name in sorted(below) if not name.startswith(".") and new(here / name)]
        found += [here / name for name in names if not name.startswith(".") and Path(name).suffix.lower() in suffixes]
    return found


@contextmanager
def at_hand(item: Item) -> Iterator[tuple[str, int, int | None]]:
    """Where another process finds an item's bytes: path, first byte, how many. What is not on this machine is fetched into memory."""
    if item.inside is None:
        yield str(item.path.resolve()), 0, None
    elif "://" not in item.inside.shard:
        yield item.inside.shard, item.inside.at, item.inside.size
    else:
        from videodit.data.shards import fetched

        with fetched(item.inside) as path:
            yield path, 0, None


def content(item: Item) -> str:
    """The digest of an item's bytes."""
    if item.inside is None:
        return digest(item.path)
    with at_hand(item) as (path, at, size):
        found = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                window = Window(file, at, Path(path).stat().st_size if size is None else size)
                while data := window.read(1 << 20):
                    found.update(data)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): name a shard that exists.") from error
        return found.hexdigest()
