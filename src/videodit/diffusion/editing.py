"""A clip that is there already, changed: noised in part and sampled again (SDEdit), led back to its noise, or kept where nobody asked.

All of it moves along the line (1 - t) clean + t noise, so any sampler that follows a field does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from videodit.diffusion.guidance import Field
from videodit.diffusion.samplers import Draw, Grid, Sampler

Mask = Float[Tensor, "b 1 f h w"]


def later(times: Float[Tensor, "s"], strength: float) -> Float[Tensor, "r"]:
    """The part of a schedule that is left when a clip is noised to `strength` of the steps: 1 is all of it."""
    steps = max(1, round(strength * (len(times) - 1)))
    return times[len(times) - 1 - steps :]


def noised(clean: Grid, noise: Grid, times: Float[Tensor, "s"]) -> Grid:
    """Where such a part begins."""
    return (1 - times[0]) * clean + times[0] * noise


def kept(field: Field, change: Mask, clean: Grid, noise: Grid) -> Field:
    """The field where `change` is 1; elsewhere the straight way to the clip from wherever it is, which ends there exactly."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        answer, s = field(x, t), t.view(len(t), 1, -1, 1, 1).to(x, non_blocking=True)
        back = torch.where(s > 0, (x - clean) / s.clamp(min=1e-6), noise - clean)
        moved = torch.where(change > 0, answer[:, : x.shape[1]], back)
        return torch.cat([moved, answer[:, x.shape[1] :]], dim=1)  # with what is said of the variance

    return velocity


def inverted(sample: Sampler, field: Field, clean: Grid, times: Float[Tensor, "s"], draw: Draw) -> Grid:
    """The noise that a sampler would make this clip from: its own steps, backwards."""
    return sample(field, clean, times.flip(0), draw, lambda step, x: None)


class Shared(nn.Module):
    """Stands for an attention: keeps the clip's values of each call on the way back, and hands them, last first, to later calls."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention, self.keeps = attention, True
        self.values: list[Tensor] = []

    def hand_on(self, looks: int) -> None:
        """From now on, in the first so many looks. The first, at pure noise, where nobody looked on the way back, finds the nearest."""
        there = [*self.values, *self.values[-1:]]
        self.keeps, self.values = False, there[max(0, len(there) - looks) :]

    def forward(self, query: Tensor, key: Tensor, value: Tensor, layout: object) -> Tensor:
        words = value.shape[2] - layout.grid.count  # pyright: ignore[reportAttributeAccessIssue]
        if self.keeps:
            self.values.append(value[:, :, words:])
        elif self.values:
            before = self.values.pop()
            value = torch.cat([value[:, :, :words], before.repeat(len(value) // len(before), 1, 1, 1)], dim=2)
        return self.attention(query, key, value, layout)


@contextmanager
def sharing(blocks: list[nn.Module]) -> Iterator[list[Shared]]:
    """RF-Edit: the attentions of these blocks keep what they see, until they are told to hand it on."""
    plain = [block.attention for block in blocks]
    shared = [Shared(attention) for attention in plain]  # pyright: ignore[reportArgumentType]
    for block, attention in zip(blocks, shared, strict=True):
        block.attention = attention
    try:
        yield shared
    finally:
        for block, attention in zip(blocks, plain, strict=True):
            block.attention = attention
