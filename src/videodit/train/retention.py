"""What is left of the image model while a video model learns: its answers to fixed questions, compared with those it began with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from videodit.shapes import Text

TIMES = (0.2, 0.5, 0.8)
COUNT = 8  # pictures


class Retention:
    """Noisy pictures with their words, and what the network says of them before it learns."""

    def __init__(self, network: nn.Module, ask: Callable[[nn.Module, Tensor, Tensor, Text], Tensor], pictures: Tensor, words: Text) -> None:
        noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0)).to(pictures.device)
        times = torch.tensor(TIMES, device=pictures.device).repeat_interleave(len(pictures))
        t = times.view(-1, 1, 1, 1, 1)
        self.ask, self.times = ask, times
        self.noisy = (1 - t) * pictures.repeat(len(TIMES), 1, 1, 1, 1) + t * noise.repeat(len(TIMES), 1, 1, 1, 1)
        self.words = words.map(lambda x: x.repeat(len(TIMES), *(1,) * (x.ndim - 1)))
        self.before = self._said(network)

    def drift(self, network: nn.Module) -> Tensor:
        """How far the answers have moved, as a part of their own size: 0 is the image model."""
        return (self._said(network) - self.before).square().mean().sqrt() / self.before.square().mean().sqrt()

    @torch.no_grad()
    def _said(self, network: nn.Module) -> Tensor:
        """Without dropout."""
        learning = network.training
        try:
            return self.ask(network.eval(), self.noisy, self.times, self.words).float()
        finally:
            network.train(learning)
