"""Latents and features computed once and kept by content: the key is all that decides them, so a stale entry is never used.

An entry carries its key and a digest of its tensors; one that is damaged, or whose key is another, is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from videodit.shapes import UserError

Shapes = dict[str, tuple[int, ...]]
_NOTED: list[set[Path]] = []
_HOST = re.sub(r"\W", "-", platform.node()) or "here"  # a folder may be shared by machines, whose processes have the same numbers


def remembered(folder: Path, key: dict[str, Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `key` decides: from `folder`, or made now and kept there."""
    found = known(folder, key)
    return keep(folder, key, make()) if found is None else found


def known(folder: Path, key: dict[str, Any]) -> dict[str, Tensor] | None:
    """The tensors that `key` decides, if they are kept and whole."""
    words, path = _entry(folder, key)
    if (tensors := _whole(path, words)) is None:
        path.unlink(missing_ok=True)
    return tensors


def head(folder: Path, key: dict[str, Any]) -> tuple[str, Shapes | None]:
    """The name of what `key` decides, and its shapes if it is kept; of its numbers nothing is read, so nothing is verified."""
    words, path = _entry(folder, key)
    try:
        with safe_open(path, "np") as file:
            if file.metadata().get("key", "").partition(" ")[2] == words:
                return path.stem, {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}
    except (OSError, SafetensorError, AttributeError):
        pass
    return path.stem, None


def sound(folder: Path, name: str) -> bool:
    """Whether what is kept under a name is what was made."""
    return _whole(folder / f"{name}.safetensors") is not None


def rows(folder: Path, name: str, tensors: Iterable[str], places: Sequence[int]) -> list[list[Tensor]]:
    """Some rows of tensors of an entry, which alone are read; an OSError where it is not there any more."""
    try:
        with safe_open(folder / f"{name}.safetensors", "np") as file:
            whole = [file.get_slice(tensor) for tensor in tensors]
            return [[torch.from_numpy(one[at : at + 1][0]) for at in places] for one in whole]
    except SafetensorError as error:
        raise OSError(str(error)) from error


def keep(folder: Path, key: dict[str, Any], made: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keep what `key` decides; several processes may keep the same."""
    words, path = _entry(folder, key)
    tensors = {name: value.contiguous() for name, value in made.items()}  # laid out as they come back, to the last bit of a sum
    folder.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{_HOST}.{os.getpid()}.writing")
    try:
        save_file(tensors, aside, metadata={"key": f"{_digest(tensors)} {words}"})  # one entry: several come in any order
        aside.rename(path)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written ({error}): make room there, and the same command goes on.") from error
    return tensors


@contextmanager
def noted() -> Iterator[set[Path]]:
    """The entries that are asked for in here."""
    used: set[Path] = set()
    _NOTED.append(used)
    try:
        yield used
    finally:
        _NOTED.remove(used)


def collect(folder: Path, used: Iterable[Path]) -> tuple[int, int]:
    """Remove all entries but those used, and what killed processes left half-written: how many, and their bytes.

    What nobody here wrote is left alone, whatever its name.
    """
    kept, count, size = set(used), 0, 0
    for path in folder.iterdir() if folder.is_dir() else ():
        if path not in kept and (_is_entry(path) or _is_left(path)):
            count, size = count + 1, size + path.stat().st_size
            path.unlink()
    return count, size


def _is_entry(path: Path) -> bool:
    """Whether a file has the name of an entry, and says its key as one does; a damaged one cannot say anything."""
    if not re.fullmatch(r"[0-9a-f]{16}\.safetensors", path.name) or not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            return "key" in (file.metadata() or {})
    except SafetensorError:
        return True


def _is_left(path: Path) -> bool:
    """Whether a file was being written by a process of this machine that is gone."""
    found = re.fullmatch(r"[0-9a-f]{16}\.(?:(.+)\.)?(\d+)\.writing", path.name)
    return found is not None and found[1] in (None, _HOST) and not Path(f"/proc/{found[2]}").is_dir()


def _whole(path: Path, words: str | None = None) -> dict[str, Tensor] | None:
    """The tensors of an entry that is undamaged and has this key, or that by which it is called."""
    try:
        with safe_open(path, "pt") as file:
            digest, _, said = file.metadata().get("key", "").partition(" ")
        if (said == words or (words is None and _name(said) == path.stem)) and digest == _digest(tensors := load_file(path)):
            return tensors
    except (OSError, SafetensorError, AttributeError):
        pass
    return None


def _name(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _entry(folder: Path, key: dict[str, Any]) -> tuple[str, Path]:
    words = json.dumps(key, sort_keys=True, default=str)
    path = folder / f"{_name(words)}.safetensors"
    for used in _NOTED:
        used.add(path)
    return words, path


def _digest(tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.flatten().view(torch.uint8).numpy().data if value.numel() else b"")
    return found.hexdigest()
