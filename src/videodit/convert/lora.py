"""Low-rank changes of linear layers under the names of two projects: what is one layer here may be several there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.convert.names import Pair
from videodit.shapes import UserError


class Factors(NamedTuple):
    """A change of a linear layer's weight: `scale` times `up` times `down`."""

    down: Float[Tensor, "r i"]
    up: Float[Tensor, "o r"]
    scale: float = 1.0

    def change(self) -> Float[Tensor, "o i"]:
        return (self.up @ self.down) * self.scale


def renamed(found: Mapping[str, Factors], pairs: Iterable[Pair], *, back: bool = False) -> dict[str, Factors]:
    """Changes of our layers as changes of theirs, or the other way (`back`)."""
    made: dict[str, Factors] = {}
    used: set[str] = set()
    for pair in pairs:
        sides = (pair.ours, pair.shares), (pair.theirs, (1,) * len(pair.theirs))
        (names, shares), (others, cuts) = reversed(sides) if back else sides
        there = [found.get(name) for name in names]
        if "weight" not in pair.ends or not any(there):
            continue
        used.update(names)
        parts = _regrouped(there, shares, cuts)
        made |= {name: _exchanged(part, pair.halves) for name, part in zip(others, parts, strict=True) if part is not None}
    if unused := sorted(found.keys() - used):
        raise UserError(f"The adapters change {unused[0]} and {len(unused) - 1} more layers that this transformer has not: give its own.")
    return made


def _regrouped(parts: list[Factors | None], shares: tuple[int, ...], cuts: tuple[int, ...]) -> list[Factors | None]:
    """Layers one above the other, cut anew; a layer without factors does not change."""
    rows = next(len(part.up) // share for part, share in zip(parts, shares, strict=True) if part) * sum(shares)
    edges = [rows * sum(shares[:i]) // sum(shares) for i in range(len(shares) + 1)]
    found: list[Factors | None] = []
    for i in range(len(cuts)):
        top, end = (rows * sum(cuts[:j]) // sum(cuts) for j in (i, i + 1))
        pieces = []
        for part, start, stop in zip(parts, edges, edges[1:], strict=False):
            if part is not None and max(top, start) < min(end, stop):
                low, high = max(top, start), min(end, stop)
                pieces.append((low - top, part._replace(up=part.up[low - start : high - start])))
        found.append(_joined(pieces, end - top) if pieces else None)
    return found


def _joined(pieces: list[tuple[int, Factors]], rows: int) -> Factors:
    """Changes of some rows as one; where they share `down` the rank stays."""
    first = pieces[0][1]
    shared = all(torch.equal(piece.down, first.down) and piece.scale == first.scale for _, piece in pieces)
    scale = first.scale if len({piece.scale for _, piece in pieces}) == 1 else 1.0
    ranks = [0 if shared else len(piece.down) for _, piece in pieces]
    up = first.up.new_zeros(rows, len(first.down) if shared else sum(ranks))
    for i, (top, piece) in enumerate(pieces):
        left = sum(ranks[:i])
        up[top : top + len(piece.up), left : left + len(piece.down)] = piece.up * (piece.scale / scale)
    down = first.down if shared else torch.cat([piece.down for _, piece in pieces])
    return Factors(down, up, scale)


def _exchanged(factors: Factors, halves: str) -> Factors:
    """The two halves of the changed weight's rows, or columns, in each other's place."""
    if halves == "rows":
        return factors._replace(up=factors.up.roll(len(factors.up) // 2, 0))
    if halves == "columns":
        return factors._replace(down=factors.down.roll(factors.down.shape[1] // 2, 1))
    return factors
