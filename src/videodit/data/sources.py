"""Where clips and pictures with their words come from: a folder with captions beside its files, a manifest, folders that are labels.

A source becomes a list of items, in an order that does not depend on the machine. What an item holds is only looked at when it is read.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from videodit.config import setting
from videodit.shapes import UserError

VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif", ".webp")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
COLUMNS = ("path", "caption", "label", "start", "end", "weight")


class Item(NamedTuple):
    """A file, or a part of one (in seconds), with what is said of it."""

    path: Path
    captions: tuple[str, ...] = ()
    label: str = ""
    start: float = 0.0
    end: float | None = None
    weight: float = 1.0

    @property
    def moves(self) -> bool:
        return self.path.suffix.lower() in VIDEOS


@dataclass(frozen=True, kw_only=True)
class Toybox:
    """Scenes that are drawn, no files."""

    kind: Literal["toybox"] = "toybox"


@dataclass(frozen=True, kw_only=True)
class Files:
    """How files become clips, whatever names them."""

    every: int = setting(1, doc="a clip takes every so many-th frame of its file")
    most: int = setting(16, doc="clips of a file at most, spread evenly over it")


@dataclass(frozen=True, kw_only=True)
class Folder(Files):
    """A folder of videos and pictures, each with its captions in a .txt of its name, one a line."""

    kind: Literal["folder"] = "folder"
    path: Path = setting(doc="the folder, searched with all folders in it")


@dataclass(frozen=True, kw_only=True)
class Manifest(Files):
    """A list of files: JSON lines, or CSV with a head. Columns: path, and what there is of caption, label, start, end, weight."""

    kind: Literal["manifest"] = "manifest"
    path: Path = setting(doc="a .jsonl or .csv; paths in it are counted from its folder")


@dataclass(frozen=True, kw_only=True)
class Labelled(Files):
    """Folders that are labels, as UCF101's: FOLDER/LABEL/files."""

    kind: Literal["labelled"] = "labelled"
    path: Path = setting(doc="the folder that holds a folder for each label")


Source = Toybox | Folder | Manifest | Labelled


def items(source: Folder | Manifest | Labelled) -> list[Item]:
    """All items of a source, of which there is at least one."""
    found = sorted(set(_READERS[source.kind](source.path)))
    if not found:
        raise UserError(f"There is no video or picture in {source.path}: name a folder or list with files such as .mp4 or .png.")
    for item in found:
        if not item.path.is_file():
            raise UserError(f"{source.path} names {item.path}, which is not there: mend the list, or bring the file.")
        if item.path.suffix.lower() not in VIDEOS + PICTURES:
            raise UserError(f"{item.path} is neither a video nor a picture by its name: leave it out of {source.path}.")
    return found


def labels(source: Labelled | Folder | Manifest) -> tuple[str, ...]:
    """The labels of a source, in order."""
    return tuple(sorted({item.label for item in items(source)} - {""}))


def digest(path: Path) -> str:
    """The content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(path: Path) -> Iterator[Item]:
    for file in _files(path):
        words = file.with_suffix(".txt")
        lines = _text(words).splitlines() if words.is_file() else []
        yield Item(file, tuple(line.strip() for line in lines if line.strip()))


def _labelled(path: Path) -> Iterator[Item]:
    for file in _files(path):
        below = file.relative_to(path).parts
        if len(below) < 2:
            raise UserError(f"{file} stands in no label's folder: put it into {path}/LABEL/.")
        yield Item(file, label=below[0])


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UserError(f"{path} is no folder: name the one that holds the videos and pictures.")
    return [file for file in path.rglob("*") if file.suffix.lower() in VIDEOS + PICTURES and not file.name.startswith(".")]


def _manifest(path: Path) -> Iterator[Item]:
    readers: dict[str, Callable[[str], Iterator[Mapping[str, Any]]]] = {
        ".jsonl": _json_lines,
        ".csv": lambda t: csv.DictReader(t.splitlines()),
    }
    if not path.is_file() or path.suffix.lower() not in readers:
        raise UserError(f"{path} is no list that is there: name a .jsonl or a .csv.")
    number = 0
    try:
        for row in readers[path.suffix.lower()](_text(path)):
            number += 1
            yield _item(row, path.parent)
    except (TypeError, ValueError, KeyError, RecursionError, csv.Error) as error:
        what = f"Entry {number or 1} of {path}, or the next, cannot be used ({error})"
        raise UserError(f"{what}: give {', '.join(COLUMNS)}, path at least.") from None


def _json_lines(text: str) -> Iterator[Mapping[str, Any]]:
    for line in text.splitlines():
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"{line[:40]} is no object")
            yield row


def _item(row: Mapping[str, Any], beside: Path) -> Item:
    if unknown := set(row) - set(COLUMNS):
        raise ValueError(f"{sorted(map(str, unknown))[0]} is no column")
    if not row["path"]:
        raise ValueError("path is empty")
    captions = row.get("caption") or ()
    captions = (captions,) if isinstance(captions, str) else tuple(map(str, captions))
    start, weight = float(row.get("start") or 0), row.get("weight")
    end = None if row.get("end") in (None, "") else float(row["end"])
    weight = 1.0 if weight in (None, "") else float(weight)
    "".join(captions).encode()
    if not all(map(math.isfinite, (start, end or 0.0, weight))) or start < 0 or (end is not None and end <= start) or not weight > 0:
        raise ValueError("start, end and weight have to be 0 <= start < end and weight > 0")
    return Item(beside / str(row["path"]), captions, str(row.get("label") or ""), start, end, weight)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({getattr(error, 'strerror', None) or 'it is not UTF-8 text'}): write it anew.") from None


_READERS: dict[str, Callable[[Path], Iterator[Item]]] = {"folder": _folder, "manifest": _manifest, "labelled": _labelled}
