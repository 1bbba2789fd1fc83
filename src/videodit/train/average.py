"""The exponential moving average of the weights: what is sampled from and what is kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """Follows the trained parameters of a network; early on it forgets faster, so the start does not linger."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone().float() for name, p in network.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        named = dict(network.named_parameters())
        for name, weight in self.weights.items():
            weight.lerp_(named[name].float(), 1 - decay)

    def apply(self, network: nn.Module) -> dict[str, Tensor]:
        """Put the averaged weights into a network and return those they replace."""
        named = dict(network.named_parameters())
        before = {name: named[name].detach().clone() for name in self.weights}
        with torch.no_grad():
            for name, weight in self.weights.items():
                named[name].copy_(weight)
        return before
