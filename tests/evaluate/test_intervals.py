"""Intervals over clips: of no width where clips are alike, and as often about the truth as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from videodit.evaluate.intervals import interval, of_mean, rows
from videodit.evaluate.protocol import Estimator

ESTIMATOR = Estimator(resamples=200)


def mean(drawn: Tensor) -> float:
    return drawn.mean().item()


def clips(*values: float | None) -> Tensor:
    """A row of one number a clip."""
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def test_an_interval_of_alike_clips_has_no_width():
    for value in np.random.default_rng(0).random(20).tolist():
        sample = clips(*[value] * 7)
        assert interval(mean(sample[:, 0]), [sample], mean, ESTIMATOR) == (mean(sample[:, 0]),) * 2
        found = of_mean(rows([value] * 7), ESTIMATOR)
        assert found and found.interval == (found.value, found.value)
    assert (found := of_mean(rows([True] * 9), ESTIMATOR, most=1.0)) and found.interval == (1.0, 1.0)


def test_a_mean_of_clips_has_the_interval_of_every_other_figure():
    values = np.random.default_rng(0).random(11).tolist()
    found = of_mean(rows(values), ESTIMATOR, digits=12)
    assert found and found.value == pytest.approx(np.mean(values))
    assert found.interval == pytest.approx(interval(found.value, [clips(*values)], mean, ESTIMATOR))
    both = interval(0.0, [clips(*values), clips(*values)], lambda one, other: mean(one) - mean(other), ESTIMATOR)
    assert both and both[0] < 0 < both[1], "sets are drawn each for itself"


@pytest.mark.parametrize("kind", ["rate", "mean", "decibels"])
def test_an_interval_holds_the_truth_about_as_often_as_it_says(kind: str):
    """A rate of 0.6, a mean of 1, and 10 log10 of it; 60 clips, so that what the bootstrap is short of is little."""
    truth, told = {"rate": (0.6, float), "mean": (1.0, float), "decibels": (0.0, lambda x: 10 * math.log10(x))}[kind]
    inside, tries = 0, 300
    for number in range(tries):
        rng = np.random.default_rng([5, number])
        drawn = rng.random(60) < truth if kind == "rate" else rng.gamma(4.0, 0.25, 60)
        found = of_mean(rows(drawn.tolist()), Estimator(resamples=120, confidence=0.9), told=told)
        assert found and found.interval
        inside += found.interval[0] <= truth <= found.interval[1]
    assert 0.85 <= inside / tries <= 0.94, inside / tries  # three deviations of 300 tries are 0.05


def test_a_longer_clip_counts_for_more():
    found = of_mean(torch.tensor([[3.0, 3.0], [0.0, 1.0]], dtype=torch.float64), ESTIMATOR)
    assert found and found.value == 0.75 and found.interval and found.interval[0] < 0.75


def test_what_no_clip_has_is_no_figure_and_a_draw_without_it_is_left_out():
    assert of_mean(rows([None, None]), ESTIMATOR) is None and of_mean(rows([]), ESTIMATOR) is None
    found = of_mean(rows([None, None, True, False]), ESTIMATOR, least=0.0, most=1.0)
    assert found and found.value == 0.5 and found.interval and found.interval[0] < 0.1 and found.interval[1] == 1.0


def test_there_is_no_interval_where_draws_may_be_infinite():
    def told(error: float) -> float:
        return -math.log(error) if error else math.inf

    found = of_mean(rows([0.0, 0.0, 1.0]), ESTIMATOR, told=told)
    assert found and found.interval is None and found.value == round(math.log(3), 4)
    assert of_mean(rows([0.0, 0.0]), ESTIMATOR, told=told) is None


def test_an_interval_ends_where_such_figures_do():
    found = of_mean(rows([True, True, True, False]), ESTIMATOR, least=0.0, most=1.0)
    assert found and found.interval and found.interval[1] == 1.0
    assert (of_mean(rows([0.1, 0.2]), Estimator(resamples=0)) or found).interval is None
