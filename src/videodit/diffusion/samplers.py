"""From noise to data along a field, each sampler the algorithm of its paper with one signature: (field, noise, times)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from videodit.diffusion.guidance import Field

Grid = Float[Tensor, "b c f h w"]
Sampler = Callable[[Field, Tensor, Tensor, Callable[[int], None]], Tensor]


def euler(field: Field, noise: Grid, times: Float[Tensor, "s"], seen: Callable[[int], None] = lambda step: None) -> Grid:
    """First order."""
    x = noise
    for step, (now, then) in enumerate(pairwise(times)):
        x = x + (then - now) * field(x, now.expand(len(x)))
        seen(step + 1)
    return x


def heun(field: Field, noise: Grid, times: Float[Tensor, "s"], seen: Callable[[int], None] = lambda step: None) -> Grid:
    """Second order: the mean of the velocities at both ends of a step; two evaluations a step."""
    x = noise
    for step, (now, then) in enumerate(pairwise(times)):
        first = field(x, now.expand(len(x)))
        second = field(x + (then - now) * first, then.expand(len(x)))
        x = x + (then - now) * (first + second) / 2
        seen(step + 1)
    return x


SAMPLERS: dict[str, Sampler] = {"euler": euler, "heun": heun}
