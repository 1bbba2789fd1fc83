"""The inception score: exp of the mean divergence of what a classifier says of one clip from what it says of all (arXiv:1606.03498).

    score = exp( mean over clips of KL( p(y | clip) || p(y) ) ),  the mean over splits

Clip i is of split i mod splits, so neither how many clips there will be nor which process sees one changes anything; sums are kept, no
clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from videodit.shapes import UserError


@dataclass(frozen=True, kw_only=True)
class Answers:
    """By split: how many clips, the sum of their probabilities, and that of p log p."""

    count: Int[Tensor, "s"]
    sums: Float[Tensor, "s c"]
    negentropy: Float[Tensor, "s"]

    @classmethod
    def of(cls, indices: Int[Tensor, "n"], logits: Float[Tensor, "n c"], splits: int) -> Answers:
        """`indices`: which clips these are."""
        told = logits.double().log_softmax(1)
        split = indices % splits
        into = torch.zeros(splits, len(logits), dtype=torch.float64)
        into[split, torch.arange(len(logits))] = 1.0
        sharpness = (told.exp() * told).nan_to_num(0.0).sum(1)  # 0 log 0 is 0
        return cls(count=into.sum(1).long(), sums=into @ told.exp(), negentropy=into @ sharpness)

    def __add__(self, other: Answers) -> Answers:
        return Answers(count=self.count + other.count, sums=self.sums + other.sums, negentropy=self.negentropy + other.negentropy)

    @property
    def scores(self) -> Float[Tensor, "s"]:
        """The score of each split."""
        if not self.count.all():
            raise UserError(
                f"{len(self.count)} splits need as many clips at least, and there are {self.count.sum().item()}: use fewer splits."
            )
        mean = self.sums / self.count[:, None]
        return (self.negentropy / self.count - torch.xlogy(mean, mean).sum(1)).exp()

    @property
    def score(self) -> float:
        return self.scores.mean().item()
