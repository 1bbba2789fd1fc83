"""Names of weights in two projects. A `Pair` says that some tensors of ours, one above the other, are some of theirs, one above the other.

Halves at most are exchanged and nothing is computed, so a round trip gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from videodit.shapes import Text, UserError

Weights = dict[str, Tensor]


class Pair(NamedTuple):
    """Names without `.weight` and `.bias`. `shares`: how long ours are, relative to each other; theirs are equally long."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    halves: Literal["same", "rows", "columns"] = "same"  # which are exchanged
    shares: tuple[int, ...] = (1,)
    ends: tuple[str, ...] = ("weight", "bias")


class Project(NamedTuple):
    """A class of another project, and how its transformers are ours."""

    kind: type[nn.Module]
    settings_of: Callable[[Mapping[str, Any]], Any]  # our settings, from its configuration
    described: Callable[[Any], dict[str, Any]]  # its configuration, from our settings
    pairs: Callable[[Any], Iterable[Pair]]  # all weights, from our settings
    call: Callable[[Any, Tensor, Tensor, Text], Tensor]  # the class on one frame, as ours is called
    computed: frozenset[str] = frozenset()  # tables that are saved and not learnt

    @property
    def name(self) -> str:
        return self.kind.__name__


def ours(theirs: Mapping[str, Tensor], pairs: Iterable[Pair]) -> tuple[Weights, list[str]]:
    """Our weights from theirs, and the names of theirs that say nothing to us. Copies of one weight have to be the same."""
    found, used = Weights(), set()
    for pair, end in _tensors(complete(theirs, pairs)):
        names = _named(pair, end)
        used.update(names)
        whole = _exchanged(torch.cat([theirs[name] for name in names]), pair.halves)
        for name, part in zip(pair.ours, _cut(whole, pair.shares), strict=True):
            known = found.setdefault(f"{name}.{end}", part)
            if known is not part and not torch.equal(known.double(), part.double()):  # they may differ in precision
                raise UserError(f"{names[0]} differs from its copy in another block: such a transformer is not read.")
    return found, sorted(theirs.keys() - used)


def complete(theirs: Mapping[str, Tensor], pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs, of which none lacks a weight of theirs."""
    found = []
    for pair in pairs:  # one by one: settings may speak of more than could ever be listed
        if absent := [name for _, end in _tensors([pair]) for name in _named(pair, end) if name not in theirs]:
            raise UserError(f"There is no {absent[0]} among these weights: give a transformer as its project saves it.")
        found.append(pair)
    return found


def theirs(ours: Mapping[str, Tensor], pairs: Iterable[Pair]) -> Weights:
    """Their weights from ours; tables are left for their class to make."""
    found = Weights()
    for pair, end in _tensors(pairs):
        whole = _exchanged(torch.cat([ours[f"{name}.{end}"] for name in pair.ours]), pair.halves)
        for name, part in zip(pair.theirs, _cut(whole, (1,) * len(pair.theirs)), strict=True):
            found[f"{name}.{end}"] = part
    return found


def _tensors(pairs: Iterable[Pair]) -> Iterator[tuple[Pair, str]]:
    return ((pair, end) for pair in pairs for end in pair.ends)


def _named(pair: Pair, end: str) -> list[str]:
    """Theirs in full."""
    return [f"{name}.{end}" for name in pair.theirs]


def _exchanged(whole: Tensor, halves: str) -> Tensor:
    """The two halves of the rows, or of the columns, in each other's place."""
    if halves == "same":
        return whole
    dim = 0 if halves == "rows" else 1
    return whole.roll(whole.shape[dim] // 2, dims=dim)


def _cut(whole: Tensor, shares: Sequence[int]) -> Sequence[Tensor]:
    unit = len(whole) // sum(shares)
    return [part.contiguous() for part in whole.split([share * unit for share in shares])]
