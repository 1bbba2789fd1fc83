"""How sure a figure is: the bootstrap's interval over clips.

Clips are drawn again, with repetition, and the figure is computed of each draw. The quantiles of these about their mean are laid about the
figure itself, because a set drawn again has fewer different clips, which moves some figures: a distance is further from everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from videodit.evaluate.protocol import Estimator, Figure

Interval = tuple[float, float] | None


def interval(
    value: float,
    samples: Sequence[Tensor],
    figure: Callable[..., float],
    estimator: Estimator,
    *,
    least: float = -math.inf,
    most: float = math.inf,
) -> Interval:
    """Where a figure of some sets (clips by rows by numbers) may lie for other clips of the same worlds; it takes the rows of each set.

    `least` and `most`: what no such figure is below or above. A draw whose figure does not exist is left out; there is no interval where
    draws may be infinite.
    """
    found = []
    for number in range(estimator.resamples):
        rng = _generator(estimator.seed, number)
        drawn = [sample[torch.from_numpy(rng.integers(len(sample), size=len(sample)))].flatten(0, 1) for sample in samples]
        found.append(figure(*drawn))
    return _about(value, np.array(found), estimator, least, most)


def of_mean(
    clips: Float[Tensor, "n 2"],
    estimator: Estimator,
    *,
    told: Callable[[float], float] = float,
    floor: float | None = None,
    least: float = -math.inf,
    most: float = math.inf,
    digits: int = 4,
) -> Figure | None:
    """A mean over clips, each a sum and of how many, where any clip has some; `told`: what the mean becomes."""

    def mean(total: float, count: float) -> float:
        return told(total / count) if count else math.nan

    value = mean(*clips.sum(0).tolist())
    if not math.isfinite(value):
        return None
    sums = _often(len(clips), estimator.resamples, estimator.seed) @ clips
    span = _about(value, np.array([mean(total, count) for total, count in sums.tolist()]), estimator, least, most)
    rounded = None if span is None else (round(span[0], digits), round(span[1], digits))
    return Figure(value=round(value, digits), interval=rounded, floor=floor)


def _generator(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, 3, number])


@lru_cache(maxsize=4)
def _often(clips: int, resamples: int, seed: int) -> Float[Tensor, "r n"]:
    """How often each draw has each clip, the same draws as `interval` makes of one set."""
    often = np.zeros((resamples, clips))
    for number in range(resamples):
        often[number] = np.bincount(_generator(seed, number).integers(clips, size=clips), minlength=clips)
    return torch.from_numpy(often)


def _about(value: float, found: Float[np.ndarray, "r"], estimator: Estimator, least: float, most: float) -> Interval:
    held = found[~np.isnan(found)]
    if len(held) < 2 or not np.isfinite([value, *held]).all():
        return None
    if np.ptp(held) == 0:
        return value, value
    away = (1 - estimator.confidence) / 2
    low, high = np.quantile(held - np.mean(held), [away, 1 - away])
    return min(value, max(least, value + float(low))), max(value, min(most, value + float(high)))


def rows(values: Sequence[float | bool | None]) -> Float[Tensor, "n 2"]:
    """Clips of one number each, or of none, as `of_mean` takes them."""
    return torch.tensor([(0.0, 0.0) if value is None else (float(value), 1.0) for value in values], dtype=torch.float64).reshape(-1, 2)
