"""Clips of many entries of the cache as one row of clips that stays on disk: what is held of it is where each stands.

An entry is verified when something of it is read for the first time; from then on only what is asked for is read. One that is damaged, or
gone, is made again.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from videodit.data import cache
from videodit.shapes import UserError

Make = Callable[[], dict[str, Tensor]]


class Rows:
    """Entries whose tensors have one row for each clip; `again` makes the entry of a number once more, as it was."""

    def __init__(self, folder: Path, again: Callable[[int], object]) -> None:
        self.folder, self.again = folder, again
        self._names, self._ends, self._kinds = array("Q"), array("q", [0]), array("H")
        self._shapes: list[cache.Shapes] = []  # of a row, by kind of entry
        self._verified = bytearray()

    @classmethod
    def joined(cls, some: Sequence[Rows]) -> Rows:
        """One after another."""
        firsts = np.cumsum([0, *(len(one._names) for one in some)])

        def again(entry: int) -> object:
            which = int(np.searchsorted(firsts, entry, side="right")) - 1
            return some[which].again(entry - int(firsts[which]))

        found = cls(some[0].folder, again)
        for one in some:
            for name, kind, (start, stop) in zip(one._names, one._kinds, pairwise(one._ends), strict=True):
                found._append(name, stop - start, one._shapes[kind])
        return found

    @classmethod
    def one(cls, folder: Path, key: dict[str, Any], make: Make) -> Rows:
        """Of one entry."""
        found = cls(folder, lambda entry: cache.remembered(folder, key, make))
        found.add(key, make)
        return found

    def add(self, key: dict[str, Any], make: Make | None) -> int:
        """What `key` decides, kept already or made now, as the next entry if it has rows: how many."""
        name, shapes = cache.head(self.folder, key)
        if shapes is None and make:
            shapes = {tensor: tuple(value.shape) for tensor, value in cache.remembered(self.folder, key, make).items()}
        count = next(iter(shapes.values()))[0] if shapes else 0
        if shapes and count:
            self._append(int(name, 16), count, {tensor: shape[1:] for tensor, shape in shapes.items()})
        return count

    def __len__(self) -> int:
        return self._ends[-1]

    def entry(self, row: int) -> int:
        """The number of the entry that a row is of."""
        return int(np.searchsorted(self._ends, row, side="right")) - 1

    @property
    def tensors(self) -> list[str]:
        """The names of those that every entry has."""
        return sorted(set.intersection(*map(set, self._shapes)))

    def shape(self, tensor: str, row: int) -> tuple[int, ...]:
        """Of one row."""
        return self._shapes[self._kinds[self.entry(row)]][tensor]

    def shapes(self, tensor: str) -> tuple[list[tuple[int, ...]], np.ndarray]:
        """The shapes that rows have, and which each has."""
        return [shapes[tensor] for shapes in self._shapes], np.repeat(np.array(self._kinds), np.diff(self._ends))

    def read(self, tensor: str, indices: Sequence[int] | np.ndarray) -> list[Tensor]:
        """Some of the rows, in the order in which they are asked for."""
        return self.beside([tensor], indices)[0]

    def beside(self, tensors: Sequence[str], indices: Sequence[int] | np.ndarray) -> list[list[Tensor]]:
        """The same of several tensors, for which no entry is opened twice."""
        wanted = np.asarray(indices, np.int64)
        entries = np.searchsorted(self._ends, wanted, side="right") - 1
        found = [[torch.empty(0)] * len(wanted) for _ in tensors]
        for entry in np.unique(entries).tolist():
            asked = np.flatnonzero(entries == entry).tolist()
            read = self._read(entry, tensors, (wanted[asked] - self._ends[entry]).tolist())
            for mine, rows in zip(found, read, strict=True):
                for at, row in zip(asked, rows, strict=True):
                    mine[at] = row
        return found

    def together(self, tensor: str, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Rows of one shape."""
        return torch.stack(self.read(tensor, indices))

    def verify(self) -> None:
        """All entries now."""
        for entry in range(len(self._names)):
            self._sound(entry)

    def _append(self, name: int, count: int, shapes: cache.Shapes) -> None:
        if shapes not in self._shapes:
            self._shapes.append(shapes)
        self._kinds.append(self._shapes.index(shapes))
        self._names.append(name)
        self._ends.append(self._ends[-1] + count)
        self._verified.append(False)

    def _read(self, entry: int, tensors: Sequence[str], places: list[int]) -> list[list[Tensor]]:
        try:
            return cache.rows(self.folder, self._sound(entry), tensors, places)
        except OSError:  # another process cleared it away
            self._verified[entry] = False
            return cache.rows(self.folder, self._sound(entry), tensors, places)

    def _sound(self, entry: int) -> str:
        """The name of an entry that is there, and undamaged."""
        name = f"{self._names[entry]:016x}"
        if not self._verified[entry] and not cache.sound(self.folder, name):
            self.again(entry)
            if not cache.sound(self.folder, name):
                raise UserError(f"{self.folder / name}.safetensors is lost, and what it was made of has changed: start the command again.")
        self._verified[entry] = True
        return name
