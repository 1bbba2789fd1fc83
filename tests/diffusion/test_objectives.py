"""The line from data to noise."""

from __future__ import annotations

import torch

import tiny
from videodit.diffusion.objectives import corrupt, spread, target
from videodit.diffusion.times import Times

CLEAN, NOISE = tiny.grid(3, 2, 4, 5, 6), tiny.grid(3, 2, 4, 5, 6, seed=7)


def test_the_ends_are_data_and_noise() -> None:
    assert torch.equal(corrupt(CLEAN, NOISE, torch.zeros(3)), CLEAN)
    assert torch.equal(corrupt(CLEAN, NOISE, torch.ones(3)), NOISE)


def test_every_clip_has_its_own_time() -> None:
    t = torch.tensor([0.0, 0.25, 1.0])
    mixed = corrupt(CLEAN, NOISE, t)
    assert torch.equal(mixed[0], CLEAN[0]) and torch.equal(mixed[2], NOISE[2])
    torch.testing.assert_close(mixed[1], 0.75 * CLEAN[1] + 0.25 * NOISE[1])
    assert spread(t, CLEAN).shape == (3, 1, 1, 1, 1)


def test_the_target_is_the_slope_of_the_line() -> None:
    clean, noise = CLEAN.double(), NOISE.double()
    at = [corrupt(clean, noise, torch.full((3,), t, dtype=torch.float64)) for t in (0.3, 0.4)]
    torch.testing.assert_close((at[1] - at[0]) / 0.1, target(clean, noise))


def test_times_of_training_are_logit_normal_then_shifted() -> None:
    draw = Times(mean=0.5, deviation=0.7).draw(20_000, torch.Generator().manual_seed(0))
    assert draw.min() > 0 and draw.max() < 1
    logit = torch.logit(draw)
    assert abs(logit.mean() - 0.5) < 0.03 and abs(logit.std() - 0.7) < 0.03
    shifted = Times(mean=0.5, deviation=0.7, shift=3.0).draw(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(shifted, 3 * draw / (1 + 2 * draw))
    assert (shifted > draw).all()


def test_times_of_sampling_go_from_one_to_zero() -> None:
    for shift in (0.5, 1.0, 3.0):
        times = Times(shift=shift).schedule(7)
        assert len(times) == 8 and times[0] == 1 and times[-1] == 0
        assert (times.diff() < 0).all()
    plain, shifted = (Times(shift=shift).schedule(7)[1:-1] for shift in (1.0, 3.0))
    assert (shifted > plain).all()
    torch.testing.assert_close(plain, torch.arange(6, 0, -1) / 7)
