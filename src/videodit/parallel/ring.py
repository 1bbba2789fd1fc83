"""Attention over all tokens of a clip that is split, without a process that has them all: keys and values go round.

Each process keeps its queries and hears every other's keys and values in turn; what it has seen so far is merged by the logarithms of the
sums (softmax in parts). Nothing of the others is kept: in the backward pass they go round again, and their gradients with them, home.
PyTorch's own context parallel takes no mask of words, and no words that every process has whole; so this is its ring, by plain products.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from videodit.backbone.layouts import Layout
from videodit.parallel.exchange import Part
from videodit.shapes import UserError


class ByRing(nn.Module):
    """Some tokens with all words -> what they see of all tokens. What words see, each process computes for itself."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part

    def forward(
        self, query: Float[Tensor, "b k n d"], key: Float[Tensor, "b k n d"], value: Float[Tensor, "b k n d"], layout: Layout
    ) -> Float[Tensor, "b k n d"]:
        if layout.packed:
            raise UserError("Packed clips cannot be split over processes: set parallel.sequence=1, or give clips of one extent.")
        words = query.shape[2] - layout.grid.count // self.part.size
        seen = _Ring.apply(query, key, value, words, layout.visible, self.part.group)
        assert isinstance(seen, Tensor)
        return seen


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, words: int, visible: Tensor | None, group: dist.ProcessGroup
    ) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            seen, total = _seen(query, key, value, visible)
            going = torch.stack([key[:, :, words:], value[:, :, words:]])
            for _ in range(group.size() - 1):
                going = passed(going, group)
                more, added = _seen(query, *going.unbind(), None)
                whole = torch.logaddexp(total, added)
                seen = seen * (total - whole).exp() + more * (added - whole).exp()
                total = whole
        seen = seen.to(value.dtype)
        ctx.save_for_backward(query, key, value, seen, total)
        ctx.words, ctx.visible, ctx.group = words, visible, group
        return seen

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, seen, total = ctx.saved_tensors
        (pull,) = gradients
        inner = (pull.float() * seen.float()).sum(-1, keepdim=True)
        of_query, of_key, of_value = _pulled(query, key, value, ctx.visible, pull, inner, total)
        going, home = torch.stack([key[:, :, ctx.words :], value[:, :, ctx.words :]]), None
        for _ in range(ctx.group.size() - 1):
            going = passed(going, ctx.group)
            more, *mine = _pulled(query, going[0], going[1], None, pull, inner, total)
            of_query = of_query + more
            home = passed(torch.stack(mine) if home is None else torch.stack(mine) + home, ctx.group)
        if home is not None:
            of_key[:, :, ctx.words :] += home[0]
            of_value[:, :, ctx.words :] += home[1]
        return of_query.to(query.dtype), of_key, of_value, None, None, None


def passed(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """To the next process; what the one before had comes."""
    rank, size = group.rank(), group.size()
    came = torch.empty_like(x)
    after, before = (dist.get_global_rank(group, (rank + step) % size) for step in (1, -1))
    both = [dist.P2POp(dist.isend, x.contiguous(), after, group), dist.P2POp(dist.irecv, came, before, group)]
    for one in dist.batch_isend_irecv(both):
        one.wait()
    return came


def _scores(query: Tensor, key: Tensor, visible: Tensor | None) -> Float[Tensor, "b k n m"]:
    scores = ((query * query.shape[-1] ** -0.5) @ key.mT).float()
    if visible is not None:
        scores[..., : visible.shape[-1]].masked_fill_(~visible, float("-inf"))
    return scores


def _seen(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor]:
    """What is seen of these keys alone, and the logarithm of the sum of their weights."""
    scores = _scores(query, key, visible)
    total = scores.logsumexp(-1, keepdim=True)
    return ((scores - total).exp().to(value.dtype) @ value).float(), total


def _pulled(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, pull: Tensor, inner: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, of these keys' part in what was seen of all; the first in fp32, as it is a sum of several."""
    weights = (_scores(query, key, visible) - total).exp()
    of_scores = (weights * ((pull @ value.mT).float() - inner)).to(query.dtype)
    scale = query.shape[-1] ** -0.5
    return (of_scores @ key).float() * scale, of_scores.mT @ query * scale, weights.to(value.dtype).mT @ pull
