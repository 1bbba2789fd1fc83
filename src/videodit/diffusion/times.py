"""How often each time is trained, and which times sampling visits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.config import setting


@dataclass(frozen=True, kw_only=True)
class Times:
    """Logit-normal times (SD3), then shifted towards noise: t -> s t / (1 + (s - 1) t)."""

    mean: float = setting(0.0, doc="mean of the logit of t in training")
    deviation: float = setting(1.0, doc="deviation of the logit of t in training")
    shift: float = setting(1.0, doc="over 1 spends more of training and sampling near noise, as larger extents need")

    def shifted(self, t: Tensor) -> Tensor:
        return self.shift * t / (1 + (self.shift - 1) * t)

    def draw(self, count: int, generator: torch.Generator) -> Float[Tensor, "b"]:
        """Times for training."""
        normal = torch.randn(count, generator=generator, device=generator.device)
        return self.shifted(torch.sigmoid(self.mean + self.deviation * normal))

    def schedule(self, steps: int) -> Float[Tensor, "s"]:
        """Times from 1 to 0 for sampling: steps + 1 of them."""
        return self.shifted(torch.linspace(1, 0, steps + 1))
