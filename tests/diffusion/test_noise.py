"""Noise is a function of (seed, clip, frame) alone, and a prior says how alike two frames are."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from videodit.diffusion.noise import Prior, first_frame_lows, noise, rescheduled
from videodit.shapes import UserError

SHAPE = (4, 3, 8, 8)
PRIORS = {
    "independent": Prior(),
    "shared": Prior(kind="shared", share=0.6),
    "around the middle": Prior(kind="shared", share=0.6, middle=True),
    "progressive": Prior(kind="progressive", share=0.8),
}


def test_a_clip_has_the_same_noise_in_any_batch() -> None:
    whole = noise(7, range(5), SHAPE)
    assert torch.equal(noise(7, [3], SHAPE)[0], whole[3])
    assert torch.equal(noise(7, [4, 0, 2], SHAPE), whole[[4, 0, 2]])
    assert whole.shape == (5, *SHAPE) and whole.dtype == torch.float32


@pytest.mark.parametrize(("draw", "level"), [(0, 0), (3, 0), (0, 1), (3, 1)])
@pytest.mark.parametrize("name", PRIORS)
def test_a_frame_has_the_same_noise_in_any_window(name: str, draw: int, level: int) -> None:
    drawn = partial(noise, 7, [2], prior=PRIORS[name], whole=range(9), draw=draw, level=level)
    whole = drawn((4, 9, 8, 8))
    assert torch.equal(drawn((4, 5, 8, 8)), whole[:, :, :5])
    for start in range(7):
        torch.testing.assert_close(drawn((4, 3, 8, 8), start=start), whole[:, :, start : start + 3])
    assert torch.equal(noise(7, [2], (4, 9, 8, 8), prior=PRIORS[name], draw=draw, level=level), whole)


def test_clips_seeds_and_frames_differ() -> None:
    drawn = torch.cat([noise(seed, range(4), SHAPE) for seed in range(4)]).transpose(1, 2).reshape(48, -1)
    correlations = torch.corrcoef(drawn) - torch.eye(48)
    assert correlations.abs().max() < 0.3  # 256 numbers each: a deviation of 0.06


@pytest.mark.parametrize("name", PRIORS)
def test_levels_have_nothing_to_do_with_each_other(name: str) -> None:
    """Not even through what frames share; of 4,096 numbers the deviation of a correlation is 0.016."""
    shape = (4, 3, 32, 32)
    drawn = torch.cat([noise(7, [0], shape, prior=PRIORS[name], level=level, draw=draw) for draw in (0, 1) for level in (0, 1)], dim=2)
    ties = torch.corrcoef(drawn[0].transpose(0, 1).flatten(1)).abs()
    for i in range(4):
        ties[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = 0
    assert ties.max() < 0.08
    assert torch.equal(noise(7, [0], shape, prior=PRIORS[name], level=0), noise(7, [0], shape, prior=PRIORS[name]))


@pytest.mark.parametrize("name", PRIORS)
def test_every_frame_is_standard_normal(name: str) -> None:
    x = noise(0, range(100), SHAPE, prior=PRIORS[name]).double().transpose(1, 2).reshape(100, 3, -1)
    for frame in x.unbind(1):
        assert abs(frame.mean()) < 0.03 and abs(frame.var() - 1) < 0.03 and abs((frame**4).mean() - 3) < 0.2


def covariance(x: Tensor) -> Tensor:
    """Of the frames of many clips."""
    return torch.cov(x.double().permute(2, 0, 1, 3, 4).flatten(1))


@pytest.mark.parametrize("name", PRIORS)
def test_the_covariance_between_frames_is_the_formula(name: str) -> None:
    """Of a clip, of a window of one, and of a chunk of a longer video, which is a clip of its own."""
    prior, shape = PRIORS[name], (4, 5, 12, 12)
    drawn = partial(noise, 0, range(60), shape, prior=prior)
    window = prior.covariance(9)[2:7, 2:7]
    for x, expected in ((drawn(), prior.covariance(5)), (drawn(start=2, whole=range(9)), window), (drawn(start=6), prior.covariance(5))):
        torch.testing.assert_close(covariance(x), expected, rtol=0, atol=0.03)


def test_the_formulas_are_those_of_the_papers() -> None:
    shared, progressive = PRIORS["shared"].covariance(3), PRIORS["progressive"].covariance(3)
    assert torch.allclose(shared, torch.full((3, 3), 0.6).double() + 0.4 * torch.eye(3).double())
    assert torch.allclose(progressive[0], torch.tensor([1, 0.8, 0.64]).double())
    middle = PRIORS["around the middle"].covariance(3)
    assert torch.allclose(middle[1], torch.tensor([0.6**0.5, 1, 0.6**0.5]).double())


def test_training_makes_it_the_same_way() -> None:
    fresh = torch.randn(400, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    base = torch.randn(400, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for prior in PRIORS.values():
        frames = prior.correlated(fresh, base).double().transpose(1, 2).reshape(400, 3, -1).transpose(0, 1).reshape(3, -1)
        torch.testing.assert_close(torch.cov(frames), prior.covariance(3), rtol=0, atol=0.03)
    assert PRIORS["independent"].correlated(fresh, base) is fresh


def test_rescheduled_noise_repeats_that_of_the_first_window_in_another_order() -> None:
    whole = noise(0, [0], (2, 11, 4, 4))
    long = rescheduled(whole, 4, seed=3)
    assert long.shape == whole.shape and torch.equal(long[:, :, :4], whole[:, :, :4])

    def frames(x: Tensor) -> list[float]:
        return sorted(x[0, 0, :, 0, 0].tolist())

    assert frames(long[:, :, 4:8]) == frames(whole[:, :, :4]) and not torch.equal(long[:, :, 4:8], long[:, :, :4])
    assert torch.equal(rescheduled(whole, 4, seed=3), long) and torch.equal(rescheduled(whole, 16, seed=3), whole)


def test_the_first_frame_lends_its_low_frequencies() -> None:
    x, first = noise(0, [0], (2, 4, 8, 8)), 3 + noise(1, [0], (2, 1, 8, 8))
    mixed = first_frame_lows(x, first, t=0.9)
    still = 0.1 * first.expand_as(x) + 0.9 * x
    torch.testing.assert_close(mixed.mean((2, 3, 4)), still.mean((2, 3, 4)), rtol=1e-4, atol=1e-4)  # frequency 0

    def highs(y: Tensor) -> Tensor:
        return torch.fft.fftn(y, dim=(-3, -2, -1))[:, :, 2, 4, 4]

    torch.testing.assert_close(highs(mixed), highs(x), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(first_frame_lows(x, first, t=1.0), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"share": 0.5}, {"kind": "shared"}, {"kind": "shared", "share": 1.0}, {"kind": "progressive", "share": 0.3, "middle": True}]
)
def test_priors_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match="prior"):
        Prior(**wrong)
