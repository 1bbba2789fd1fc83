"""The Frechet distance of two sets of features, taken as Gaussians; their moments are gathered bit by bit.

    distance = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)

The last trace is the nuclear norm of the product of the two symmetric roots. That needs no inverse and no root of an unsymmetric matrix,
so singular covariances (fewer clips than features) are like any others and nothing is added to their diagonals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.shapes import UserError

Rows = Float[Tensor, "n d"]
Others = Float[Tensor, "m d"]
Matrix = Float[Tensor, "d d"]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """How many rows there were, their mean, and the sum of the outer products of what is left without it, in double precision."""

    count: int
    mean: Float[Tensor, "d"]
    scatter: Matrix

    @classmethod
    def none(cls, width: int) -> Moments:
        return cls(count=0, mean=torch.zeros(width, dtype=torch.float64), scatter=torch.zeros(width, width, dtype=torch.float64))

    @classmethod
    def of(cls, rows: Rows) -> Moments:
        rows = rows.double()
        mean = rows.mean(0)
        return cls(count=len(rows), mean=mean, scatter=(rows - mean).T @ (rows - mean))

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets together (Chan, Golub and LeVeque 1979): sums of squares would lose digits far from zero."""
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        apart = other.mean - self.mean
        between = torch.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count=count, mean=self.mean + apart * (other.count / count), scatter=self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Matrix:
        if self.count < 2:
            raise UserError(f"A covariance needs two clips at least, and there is {self.count}: use more.")
        return self.scatter / (self.count - 1)


def frechet(one: Moments, other: Moments) -> float:
    """The distance of two sets by their moments."""
    a, b = one.covariance, other.covariance
    cross = torch.linalg.svdvals(_root(a) @ _root(b)).sum()
    return ((one.mean - other.mean).square().sum() + a.trace() + b.trace() - 2 * cross).item()


def frechet_of_rows(one: Rows, other: Others) -> float:
    """The distance of two sets at hand; with fewer rows than features the rows stand for the roots, which is the same and quicker."""
    if min(len(one), len(other)) < 2 or len(one) + len(other) > 2 * one.shape[1]:
        return frechet(Moments.of(one), Moments.of(other))
    means = [rows.double().mean(0) for rows in (one, other)]
    roots = [(rows.double() - mean) / (len(rows) - 1) ** 0.5 for rows, mean in zip((one, other), means, strict=True)]
    cross = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return ((means[0] - means[1]).square().sum() + roots[0].square().sum() + roots[1].square().sum() - 2 * cross).item()


def _root(covariance: Matrix) -> Matrix:
    """The symmetric root; what rounding made negative is zero."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
