"""Data sets as they are published, with the splits that LAVITA trains on: training splits, of UCF101 both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from videodit.data.item import VIDEOS, Item, pictures
from videodit.data.lists import text
from videodit.shapes import UserError

Layout = Literal["ucf101", "faceforensics", "skytimelapse", "taichi-hd"]
Split = Literal["lavita", "train", "test", "both"]
INTERVAL = 3  # LAVITA takes every third frame
FOLDERS = {  # where each keeps its splits: the first of the names that is there
    "faceforensics": {"train": ("train",), "test": ("test", "val")},
    "skytimelapse": {"train": ("sky_train", "train"), "test": ("sky_test", "test")},
    "taichi-hd": {"train": ("train",), "test": ("test",)},
}


def members(path: Path, layout: Layout, split: Split) -> Iterator[Item]:
    """The videos of a split."""
    if not path.is_dir():
        raise UserError(f"{path} is no folder: name the one that holds {layout}.")
    split = ("both" if layout == "ucf101" else "train") if split == "lavita" else split
    for part in ("train", "test") if split == "both" else (split,):
        yield from _LAYOUTS[layout](path, part) if layout == "ucf101" and split != "both" else _folders(path, layout, part)


def _folders(path: Path, layout: Layout, part: str) -> Iterator[Item]:
    if layout == "ucf101":  # both splits are all there is, and one pass sees it
        yield from _classes(path) if part == "train" else ()
        return
    for name in FOLDERS[layout][part]:
        if (path / name).is_dir():
            yield from (Item(video) for video in _videos(path / name))
            return
    raise UserError(f"{path} has no folder {' or '.join(FOLDERS[layout][part])}: name the folder of {layout} that holds its splits.")


def _videos(folder: Path) -> Iterator[Path]:
    """Files that are videos, and folders of pictures that are, at any depth."""
    if len(pictures(folder)) > 1:
        yield folder
    for inside in sorted(folder.iterdir()):
        if inside.is_dir() and not inside.name.startswith("."):
            yield from _videos(inside)
        elif inside.suffix.lower() in VIDEOS and not inside.name.startswith("."):
            yield inside


def _classes(path: Path) -> Iterator[Item]:
    """UCF101: CLASS/v_CLASS_g01_c01.avi, in the folder itself or in its UCF-101."""
    for folder in sorted(_root(path).iterdir()):
        if folder.is_dir() and not folder.name.startswith(".") and folder.name != "ucfTrainTestlist":
            yield from (Item(video, label=folder.name) for video in _videos(folder))


def _root(path: Path) -> Path:
    return path / "UCF-101" if (path / "UCF-101").is_dir() else path


def _ucf101(path: Path, part: str) -> Iterator[Item]:
    """By the first of its three published lists."""
    lists = next(
        (p for p in (path / "ucfTrainTestlist", path.parent / "ucfTrainTestlist", path) if (p / f"{part}list01.txt").is_file()), None
    )
    if lists is None:
        raise UserError(f"There is no ucfTrainTestlist/{part}list01.txt in {path}: bring it there, or use data.split=both.")
    names = {line.split()[0] for line in text(lists / f"{part}list01.txt").splitlines() if line.strip()}
    found = {f"{item.label}/{item.path.name}": item for item in _classes(path)}
    root = _root(path)
    yield from (found.get(name) or Item(root / name, label=name.partition("/")[0]) for name in sorted(names))


_LAYOUTS: dict[str, Callable[[Path, str], Iterator[Item]]] = {"ucf101": _ucf101}
