"""Exponential moving averages of the weights: one is sampled from, others may be kept beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Average:
    """Follows the trained parameters of a network; early on it forgets faster, so the start does not linger.

    `weights` holds the average of the first decay under the parameters' names, those of others under name@decay.
    """

    def __init__(self, network: nn.Module, decay: float, others: Sequence[float] = ()) -> None:
        self.ends = {decay: "", **{other: f"@{other}" for other in others if other != decay}}
        trained = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
        self.weights = {name + end: p.clone().float() for end in self.ends.values() for name, p in trained.items()}
        self._names = list(trained)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        named = dict(network.named_parameters())
        for most, end in self.ends.items():
            decay = min(most, (1 + step) / (10 + step))
            for name in self._names:
                self.weights[name + end].lerp_(named[name].float(), 1 - decay)

    def apply(self, network: nn.Module, decay: float | None = None) -> dict[str, Tensor]:
        """Put the averaged weights, of the first decay or another, into a network and return those they replace."""
        named, end = dict(network.named_parameters()), "" if decay is None else self.ends[decay]
        before = {name: named[name].detach().clone() for name in self._names}
        with torch.no_grad():
            for name in self._names:
                named[name].copy_(self.weights[name + end])
        return before
