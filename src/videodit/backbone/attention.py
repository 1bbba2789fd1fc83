"""Softmax attention by one of several kernels, which say the same up to rounding.

PyTorch's own (`fused`), plain products of everything at once (`plain`), and plain products of as many heads at a time as a cache holds
(`parts`), which learn nothing. A rule chooses, unless a measurement has (`CHOSEN`; `videodit.kernels` measures).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

NAME = "attention "  # begins the name of a case
PLAIN_TOKENS = 1024  # beyond, the memory of all scores counts; benchmarks/attention.py compares
FEW, MANY, NARROW = range(16, 32), 256, 64  # tokens, least groups and largest width with which plain products win in single precision
PART = 2**19  # scores at a time: about what a second-level cache holds in half precision


class Case(NamedTuple):
    """What a choice holds for: numbers of keys up to a power of two are one case."""

    dtype: torch.dtype
    learning: bool
    groups: int  # clips, or their parts, times heads
    queries: int
    keys: int
    width: int

    @property
    def name(self) -> str:
        keys = 1 << (self.keys - 1).bit_length()
        return f"{NAME}{str(self.dtype).removeprefix('torch.')} {'learning' if self.learning else 'using'} {keys} {self.width}"


CHOSEN: dict[str, str] = {}  # by the name of a case
_noted: list[Case] | None = None


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
    """Softmax attention; `visible` says of the first keys whether they may be seen, and what follows them may."""
    learning = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    case = Case(query.dtype, learning, query.shape[0] * query.shape[1], query.shape[2], key.shape[2], query.shape[3])
    if query.device.type != "cpu" or torch.compiler.is_compiling():
        chosen = _rule(case) if query.device.type == "cpu" and learning else "fused"
    else:
        if _noted is not None:
            _noted.append(case)
        chosen = CHOSEN.get(case.name) or _rule(case)
    if chosen == "parts" and (learning or (visible is not None and visible.shape[2] != 1)):
        chosen = "plain"
    return KERNELS[chosen](query, key, value, visible)


@contextmanager
def choosing(record: Mapping[str, str] | None = None) -> Iterator[None]:
    """Begin with what a record says of attention, or with no choices; what is chosen meanwhile ends with it."""
    before = dict(CHOSEN)
    CHOSEN.clear()
    choose(record or {})
    try:
        yield
    finally:
        CHOSEN.clear()
        CHOSEN.update(before)


def choose(record: Mapping[str, str]) -> None:
    """By what a record says of attention from now on; of what it does not say nothing changes."""
    CHOSEN.update({name: kernel for name, kernel in record.items() if name.startswith(NAME)})


@contextmanager
def noted() -> Iterator[list[Case]]:
    """The cases that occur meanwhile."""
    global _noted
    before, _noted = _noted, []
    try:
        yield _noted
    finally:
        _noted = before


def _rule(case: Case) -> str:
    """On a CPU the fused kernel is slower in half precision, backward most of all, and through few frames of many places."""
    if case.dtype == torch.float32 and case.keys in FEW and case.groups >= MANY and case.width <= NARROW:
        return "plain"
    if case.dtype != torch.bfloat16:
        return "fused"
    if case.learning:
        return "plain" if case.keys <= PLAIN_TOKENS else "fused"
    return "parts"


def _fused(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
    whole = visible if visible is None else F.pad(visible, (0, key.shape[2] - visible.shape[-1]), value=True)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=whole)


def _plain(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
    with torch.autocast("cpu", enabled=False):  # which would take the scores to single precision and back
        scores = (query * query.shape[-1] ** -0.5) @ key.mT
        if visible is not None:
            with torch.no_grad():  # adding a constant leaves the gradient as it is
                scores[..., : visible.shape[-1]].masked_fill_(~visible, float("-inf"))
        return scores.softmax(dim=-1) @ value


def _parts(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
    """Scores never leave the cache, whatever the clip's length."""
    (b, k, n, d), m = query.shape, key.shape[2]
    with torch.autocast("cpu", enabled=False):
        out = query.new_empty(b * k, n, value.shape[-1])
        queries, keys, values = (query * d**-0.5).reshape(b * k, n, d), key.reshape(b * k, m, -1), value.reshape(b * k, m, -1)
        hidden = None if visible is None else ~visible.expand(b, k, 1, -1).reshape(b * k, 1, -1)
        step = max(1, PART // (n * m))
        for at in range(0, b * k, step):
            part = slice(at, at + step)
            scores = torch.bmm(queries[part], keys[part].mT)
            if hidden is not None:
                scores[..., : hidden.shape[-1]].masked_fill_(hidden[part], float("-inf"))
            torch.bmm(scores.softmax(dim=-1), values[part], out=out[part])
    return out.view(b, k, n, -1)


KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]] = {"fused": _fused, "plain": _plain, "parts": _parts}
