"""Samplers on fields whose flow is known: one point, where they are exact, and a Gaussian, where their order shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from videodit.diffusion.guidance import Field
from videodit.diffusion.objectives import spread, target
from videodit.diffusion.samplers import SAMPLERS
from videodit.diffusion.times import Times

CLEAN, NOISE = (tiny.grid(2, 3, 2, 4, 4, seed=seed).double() for seed in (1, 2))
MEAN, DEVIATION = 1.5, 0.4
ORDER, EVALUATIONS = {"euler": 1, "heun": 2}, {"euler": 1, "heun": 2}


def gaussian(x: Tensor, t: Tensor) -> Tensor:
    """The velocity E[noise - clean | x] where clean is normal with MEAN and DEVIATION."""
    t = spread(t, x)
    variance = (1 - t) ** 2 * DEVIATION**2 + t**2
    away = x - (1 - t) * MEAN
    return t / variance * away - (MEAN + (1 - t) * DEVIATION**2 / variance * away)


def run(name: str, field: Field, steps: int, shift: float = 1.0) -> Tensor:
    return SAMPLERS[name](field, NOISE, Times(shift=shift).schedule(steps).double(), lambda step: None)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 3, 24])
def test_one_point_is_reached_exactly(name: str, steps: int) -> None:
    torch.testing.assert_close(run(name, lambda x, t: target(CLEAN, NOISE), steps, shift=2.0), CLEAN)


@pytest.mark.parametrize("steps", [1, 3, 24])
def test_euler_ends_at_what_the_last_step_sees(steps: int) -> None:
    """The true velocity towards one point, from wherever x is; it is undefined at t = 0, where Euler never looks."""
    torch.testing.assert_close(run("euler", lambda x, t: (x - CLEAN) / spread(t, x), steps), CLEAN)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_gaussian_is_reached_with_the_order_of_the_sampler(name: str) -> None:
    exact = MEAN + DEVIATION * NOISE
    counts = np.array([16, 32, 64, 128])
    errors = [(run(name, gaussian, int(steps)) - exact).abs().max().item() for steps in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(ORDER[name], abs=0.15)
    assert errors[-1] < 0.05


@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_are_told_and_evaluations_counted(name: str) -> None:
    seen: list[int] = []
    asked: list[float] = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (2,) and (t == t[0]).all()
        asked.append(t[0].item())
        return torch.zeros_like(x)

    out = SAMPLERS[name](field, NOISE, Times().schedule(4).double(), seen.append)
    assert seen == [1, 2, 3, 4] and len(asked) == 4 * EVALUATIONS[name]
    assert asked[0] == 1 and torch.equal(out, NOISE)
