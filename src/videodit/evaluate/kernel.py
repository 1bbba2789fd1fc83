"""The kernel distance of two sets of features: the unbiased squared maximum mean discrepancy under (x y / d + 1)^3 (arXiv:1801.01401).

It is the mean over subsets that are drawn by a seed, so it may be a little below zero, and does not depend on how many rows there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from videodit.config import setting
from videodit.shapes import UserError

Rows = Float[Tensor, "n d"]
Others = Float[Tensor, "m d"]


@dataclass(frozen=True, kw_only=True)
class Subsets:
    """Which parts of two sets are compared."""

    number: int = setting(100, doc="how many subsets")
    size: int = setting(1000, doc="rows of each, drawn without repetition")
    seed: int = setting(0, doc="seed of the draws")


def discrepancy(one: Rows, other: Others) -> float:
    """The unbiased estimate for two sets of two rows at least."""
    one, other = one.double(), other.double()
    within = [_kernel(rows, rows) for rows in (one, other)]
    pairs = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in within]
    return (pairs[0] + pairs[1] - 2 * _kernel(one, other).mean()).item()


def kernel_distance(one: Rows, other: Others, subsets: Subsets) -> float:
    """The mean of `discrepancy` over subsets."""
    fewest = min(len(one), len(other))
    if not 2 <= subsets.size <= fewest:
        raise too_few(subsets.size, fewest)
    found = []
    for number in range(subsets.number):
        rng = np.random.default_rng([subsets.seed, number])
        chosen = [rows[torch.from_numpy(rng.permutation(len(rows))[: subsets.size])] for rows in (one, other)]
        found.append(discrepancy(*chosen))
    return float(np.mean(found))


def too_few(size: int, rows: int) -> UserError:
    return UserError(f"Subsets of {size} cannot be drawn from {rows} rows: use --subset-size of 2 to {rows}, or more clips.")


def _kernel(one: Rows, other: Others) -> Float[Tensor, "n m"]:
    return (one @ other.T / one.shape[1] + 1) ** 3
