"""AdamW, or Muon for the blocks' matrices beside it, with warm-up and an optional cosine end.

The rate is a function of the step alone, so a resume needs no schedule state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from videodit.config import setting
from videodit.parallel.sharding import in_shards, kinds
from videodit.shapes import UserError


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    learning_rate: float = setting(1e-3, doc="peak learning rate")
    warmup: int = setting(50, doc="steps of linear warm-up")
    schedule: Literal["constant", "cosine"] = setting("cosine", doc="after the warm-up: constant, or cosine down to a twentieth")
    weight_decay: float = setting(0.01, doc="decoupled weight decay of matrices; vectors have none")
    beta1: float = setting(0.9, doc="decay of the mean of gradients")
    beta2: float = setting(0.98, doc="decay of the mean of squared gradients")
    clip: float = setting(1.0, doc="largest norm of the whole gradient")
    muon: float = setting(0.0, doc="peak learning rate of Muon for the matrices of repeated blocks; 0 leaves them to AdamW")
    fresh: float = setting(1.0, doc="rate of parameters that an inflated network did not inherit, over that of the others")

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay", "clip", "muon", "fresh"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise UserError(f"optimizer.{name} takes a number from 0, not {value}.")
        if not self.clip or self.warmup < 0:
            raise UserError(
                f"optimizer.clip takes a number above 0 (a large one clips nothing) and optimizer.warmup 0 or more, "
                f"not {self.clip} and {self.warmup}."
            )
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise UserError(f"optimizer.beta1 and optimizer.beta2 take 0 up to, not including, 1, not {self.beta1} and {self.beta2}.")
        if self.muon and not self.learning_rate:
            raise UserError("optimizer.muon rises and falls with optimizer.learning_rate: set that above 0.")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step `step` (from 0) of `steps`."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        if self.schedule == "constant":
            return self.learning_rate * warm
        done = min(1.0, max(0, step - self.warmup) / max(1, steps - self.warmup))
        return self.learning_rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))

    def build(self, network: nn.Module, fresh: Sequence[nn.Parameter] = ()) -> list[torch.optim.Optimizer]:
        """One optimiser, or two; a group's `scale` says by how much its rate is above `learning_rate`."""
        trained = [p for p in network.parameters() if p.requires_grad]
        if self.muon and any(map(in_shards, trained)):
            raise UserError("Muon needs whole matrices, and these are in shards: set optimizer.muon=0, or parallel.shard=1.")
        blocks = {id(p) for p in _block_matrices(network) if p.requires_grad} if self.muon else set()
        if self.muon and not _block_matrices(network):
            raise UserError("optimizer.muon is for matrices of repeated blocks, and this network has none: set optimizer.muon=0.")
        new = {id(p) for p in fresh} if self.fresh != 1 else set()
        groups = [
            {
                "params": alike,
                "weight_decay": self.weight_decay if is_matrix else 0.0,
                "scale": self.fresh if is_new else 1.0,
            }
            for is_new in (False, True)
            for is_matrix in (True, False)
            for alike in kinds([p for p in trained if id(p) not in blocks and (id(p) in new) == is_new and (p.ndim > 1) == is_matrix])
        ]
        adam: list[torch.optim.Optimizer] = (
            [torch.optim.AdamW(groups, lr=self.learning_rate, betas=(self.beta1, self.beta2))] if groups else []
        )
        if not blocks:
            return adam
        scaled = [
            {"params": alike, "scale": self.muon / self.learning_rate * (self.fresh if is_new else 1.0)}
            for is_new in (False, True)
            if (alike := [p for p in trained if id(p) in blocks and (id(p) in new) == is_new])
        ]
        return [*adam, torch.optim.Muon(scaled, lr=self.muon, weight_decay=self.weight_decay, adjust_lr_fn="match_rms_adamw")]


def _block_matrices(network: nn.Module) -> list[nn.Parameter]:
    """Matrices of what a network repeats: embeddings, first and last layers are not among them, nor are the factors of a change."""
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    return list({p: None for blocks in lists for name, p in blocks.named_parameters() if p.ndim == 2 and ".lora_" not in name})
