"""Endless latents from a queue (FIFO-Diffusion): each frame is a step nearer to data than the one behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.diffusion.guidance import Field
from videodit.diffusion.samplers import Grid

Frame = Float[Tensor, "b c 1 h w"]


def queued(clean: Grid, noise: Grid, levels: Float[Tensor, "n"]) -> Grid:
    """A queue to begin with: a clip noised as far as each of its places is."""
    t = levels[1:].to(clean).view(1, 1, -1, 1, 1)
    return (1 - t) * clean + t * noise


def rolling(field: Field, queue: Grid, levels: Float[Tensor, "n"], fresh: Callable[[int], Frame]) -> Iterator[Frame]:
    """Latent frames without end. `levels` rise from 0 and hold one for each place of the queue behind it; `fresh(n)` is noise to come."""
    now, below, number = levels[1:], levels[:-1], 0
    steps = (below - now).to(queue).view(1, 1, -1, 1, 1)
    while True:
        times = now.expand(len(queue), -1)
        queue = queue + steps * field(queue, times)[:, : queue.shape[1]]
        yield queue[:, :, :1]
        queue = torch.cat([queue[:, :, 1:], fresh(number).to(queue, non_blocking=True)], dim=2)
        number += 1
