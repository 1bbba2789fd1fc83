"""What processes send each other within a forward pass. Each exchange is linear, and its backward pass is its exact transpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

# what torch 2.13 renamed
GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
ADD = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True)
class Part:
    """This process's part of what `size` processes share."""

    group: dist.ProcessGroup
    rank: int
    size: int

    def mine(self, x: Tensor, dim: int) -> Tensor:
        """My part of what all have; in the backward pass the others add nothing."""
        step = x.shape[dim] // self.size
        return x.narrow(dim, self.rank * step, step)

    def gathered(self, x: Tensor, dim: int) -> Tensor:
        """Everyone's part, side by side."""
        whole = _Gather.apply(x, self.group)
        assert isinstance(whole, Tensor)
        return torch.cat(whole.unbind(), dim=dim)

    def exchanged(self, x: Float[Tensor, "p *rest"]) -> Float[Tensor, "p *rest"]:
        """x[i] goes to process i; what comes from process i stands at i."""
        out = _Exchange.apply(x, self.group)
        assert isinstance(out, Tensor)
        return out

    def to_places(self, x: Float[Tensor, "b n d"], frames: int) -> Float[Tensor, "b n d"]:
        """From some frames with all their places to some places in all frames."""
        split = rearrange(x, "b (f p s) d -> p b f s d", f=frames, p=self.size)
        return rearrange(self.exchanged(split), "p b f s d -> b (p f s) d")

    def to_frames(self, x: Float[Tensor, "b n d"], frames: int) -> Float[Tensor, "b n d"]:
        """The way back; `frames` are those of one process."""
        split = rearrange(x, "b (p f s) d -> p b f s d", f=frames, p=self.size)
        return rearrange(self.exchanged(split), "p b f s d -> b (f p s) d")


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        dist.all_to_all_single(out, x.contiguous(), group=group)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Exchange.forward(ctx, gradients[0], ctx.group), None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        out = x.new_empty(group.size(), *x.shape)
        GATHER(out.view(-1), x.contiguous().view(-1), group=group)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        whole = gradients[0].contiguous()
        out = whole.new_empty(whole.shape[1:])
        ADD(out.view(-1), whole.view(-1), group=ctx.group)
        return out, None
