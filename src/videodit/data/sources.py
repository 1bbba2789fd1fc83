"""Where clips and pictures with their words come from: folders, lists, shards, data sets as they are published.

A source becomes a list of items, in an order that does not depend on the machine. What an item holds is only looked at when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from videodit.config import setting
from videodit.data import glyphs, layouts, lists, shards
from videodit.data.item import PICTURES, VIDEOS, Item, inside
from videodit.shapes import UserError


@dataclass(frozen=True, kw_only=True)
class Toybox:
    """Scenes that are drawn, no files."""

    kind: Literal["toybox"] = "toybox"


@dataclass(frozen=True, kw_only=True)
class Sprites:
    """Scenes that are drawn from a colour font, of which nothing else is read."""

    kind: Literal["sprites"] = "sprites"
    font: Path = setting(glyphs.FONT, doc="a colour font of emoji with bitmaps of size 109, or a folder with a NOUN.png for each thing")


@dataclass(frozen=True, kw_only=True)
class Files:
    """How files become clips, whatever names them."""

    every: int = setting(1, doc="a clip takes every so many-th frame of its file")
    most: int = setting(16, doc="clips of a file at most, spread evenly over it")
    budget: float = setting(0.01, doc="part of the files that may be unreadable; more stop the run with a report")
    seconds: float = setting(600.0, doc="of work that a file may take")

    def __post_init__(self) -> None:
        if self.every < 1 or self.most < 1:
            raise UserError(f"every and most take 1 or more, not {self.every} and {self.most}.")
        if not 0 <= self.budget <= 1 or not 0 < self.seconds < 1e6:
            raise UserError(f"budget takes 0 to 1 and seconds a number above 0, not {self.budget:g} and {self.seconds:g}.")


@dataclass(frozen=True, kw_only=True)
class Folder(Files):
    """A folder of videos and pictures, each with its captions in a .txt of its name, one a line."""

    kind: Literal["folder"] = "folder"
    path: Path = setting(doc="the folder, searched with all folders in it")


@dataclass(frozen=True, kw_only=True)
class Manifest(Files):
    """A list of files: JSON lines, CSV with a head, or Parquet. Columns: path, and what there is of lists.COLUMNS."""

    kind: Literal["manifest"] = "manifest"
    path: Path = setting(doc="a .jsonl, .csv or .parquet; paths in it are counted from its folder")


@dataclass(frozen=True, kw_only=True)
class Labelled(Files):
    """Folders that are labels, as UCF101's: FOLDER/LABEL/files."""

    kind: Literal["labelled"] = "labelled"
    path: Path = setting(doc="the folder that holds a folder for each label")


@dataclass(frozen=True, kw_only=True)
class Shards(Files):
    """WebDataset's tar shards: a clip with its words in a .txt, .json or .cls of its name."""

    kind: Literal["shards"] = "shards"
    path: str = setting(doc="a .tar, a folder of them, a pattern such as part-{000..009}.tar, or an address such as s3://bucket/part-*.tar")


@dataclass(frozen=True, kw_only=True)
class DataSet(Files):
    """A data set as it is published."""

    kind: Literal["dataset"] = "dataset"
    path: Path = setting(doc="its folder")
    layout: layouts.Layout = setting(doc="how the folder is laid out")
    split: layouts.Split = setting("lavita", doc="which part; lavita: training splits, of UCF101 both")
    every: int = setting(layouts.INTERVAL, doc="a clip takes every so many-th frame of its file; LAVITA every third")


Filed = Folder | Manifest | Labelled | Shards | DataSet
Drawn = Toybox | Sprites
Source = Drawn | Filed


def items(source: Filed) -> list[Item]:
    """All items of a source, of which there is at least one, and each can be used."""
    found = entries(source)
    if wrong := [item for item in found if item.wrong]:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        said = f"{wrong[0].path} cannot be used ({wrong[0].wrong}){more}"
        raise UserError(f"{said}: mend that, or take it out of {source.path}; videodit audit tells of each file.")
    return found


def entries(source: Filed) -> list[Item]:
    """The same, with those that cannot be used."""
    found = sorted({_seen(item, source) for item in _READERS[source.kind](source)}, key=_order)
    if not found:
        raise UserError(f"There is no video or picture in {source.path}: name a folder or list with files such as .mp4 or .png.")
    captions: dict[Item, list[str]] = {}  # rows of a list that differ in their caption alone are one item with all of them
    for item in found:
        captions.setdefault(item._replace(captions=()), []).extend(item.captions)
    return [item._replace(captions=tuple(said)) for item, said in captions.items()]


def _seen(item: Item, source: Filed) -> Item:
    """An item, and whether there is something of its name to be read."""
    try:
        return item if item.wrong or item.inside is not None else item._replace(wrong=_wrong(item.path, source))
    except OSError as error:  # a folder that may not be entered, or too long a name
        return item._replace(wrong=f"it cannot be looked for: {error.strerror}")


def _wrong(path: Path, source: Filed) -> str:
    if path.is_dir() and isinstance(source, DataSet):
        return ""
    if not path.is_file():
        return "it is a broken link, a pipe, a folder or a device" if path.exists() or path.is_symlink() else "it is not there"
    return "" if path.suffix.lower() in VIDEOS + PICTURES else "it is neither a video nor a picture by its name"


def labels(source: Filed) -> tuple[str, ...]:
    """The labels of a source, in order."""
    return tuple(sorted({item.label for item in items(source)} - {""}))


def _order(item: Item) -> tuple[Any, ...]:
    return (
        item.path,
        item.captions,
        item.label,
        item.start,
        item.end is not None,
        item.end or 0.0,
        item.weight,
        item.digest,
        item.inside or (),
        item.wrong,
        item.crop or (),
    )


def _folder(path: Path) -> Iterator[Item]:
    for file in _files(path):
        words = file.with_suffix(".txt")
        try:
            said = words.read_text(encoding="utf-8-sig").splitlines() if words.is_file() else []
        except (OSError, ValueError) as error:
            yield Item(file, wrong=f"{words.name} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}")
            continue
        yield Item(file, tuple(line.strip() for line in said if line.strip()))


def _labelled(path: Path) -> Iterator[Item]:
    for file in _files(path):
        below = file.relative_to(path).parts
        yield Item(file, label=below[0]) if len(below) > 1 else Item(file, wrong=f"it stands in no label's folder, such as {path}/LABEL/")


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UserError(f"{path} is no folder: name the one that holds the videos and pictures.")
    return inside(path, VIDEOS + PICTURES)


_READERS: dict[str, Callable[[Any], Iterator[Item]]] = {
    "folder": lambda source: _folder(source.path),
    "manifest": lambda source: lists.listed(source.path),
    "labelled": lambda source: _labelled(source.path),
    "shards": lambda source: shards.members(source.path),
    "dataset": lambda source: layouts.members(source.path, source.layout, source.split),
}
