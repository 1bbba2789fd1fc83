"""AdamW with warm-up and an optional cosine end; the rate is a function of the step alone, so a resume needs no schedule state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from videodit.config import setting


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    learning_rate: float = setting(1e-3, doc="peak learning rate")
    warmup: int = setting(50, doc="steps of linear warm-up")
    schedule: Literal["constant", "cosine"] = setting("cosine", doc="after the warm-up: constant, or cosine down to a twentieth")
    weight_decay: float = setting(0.01, doc="decoupled weight decay of matrices; vectors have none")
    beta1: float = setting(0.9, doc="decay of the mean of gradients")
    beta2: float = setting(0.98, doc="decay of the mean of squared gradients")
    clip: float = setting(1.0, doc="largest norm of the whole gradient")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step `step` (from 0) of `steps`."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        if self.schedule == "constant":
            return self.learning_rate * warm
        done = min(1.0, max(0, step - self.warmup) / max(1, steps - self.warmup))
        return self.learning_rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))

    def build(self, network: nn.Module) -> torch.optim.AdamW:
        trained = [p for p in network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=(self.beta1, self.beta2))
