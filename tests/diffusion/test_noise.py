"""Noise is a function of (seed, clip) alone."""

from __future__ import annotations

import torch

from videodit.diffusion.noise import noise

SHAPE = (4, 3, 8, 8)


def test_a_clip_has_the_same_noise_in_any_batch() -> None:
    whole = noise(7, range(5), SHAPE)
    assert torch.equal(noise(7, [3], SHAPE)[0], whole[3])
    assert torch.equal(noise(7, [4, 0, 2], SHAPE), whole[[4, 0, 2]])
    assert whole.shape == (5, *SHAPE) and whole.dtype == torch.float32


def test_clips_and_seeds_differ() -> None:
    drawn = torch.cat([noise(seed, range(4), SHAPE) for seed in range(4)]).flatten(1)
    correlations = torch.corrcoef(drawn) - torch.eye(16)
    assert correlations.abs().max() < 0.2  # 768 numbers each: a deviation of 0.036


def test_it_is_standard_normal() -> None:
    x = noise(0, range(100), SHAPE).double()
    assert abs(x.mean()) < 0.015 and abs(x.var() - 1) < 0.02
    assert abs((x**3).mean()) < 0.05 and abs((x**4).mean() - 3) < 0.1
