"""What a network learns: the ends are data and noise, the answer becomes a velocity, and the variance is learned from its bound."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import tiny
from videodit.diffusion.objectives import Diffusion, Flow, Objective, likelihood, posterior, spread, variance
from videodit.diffusion.times import Times
from videodit.shapes import UserError

CLEAN, NOISE = tiny.grid(3, 2, 4, 5, 6), tiny.grid(3, 2, 4, 5, 6, seed=7)
OBJECTIVES: dict[str, Objective] = {
    "flow": Flow(),
    "noise": Diffusion(),
    "v": Diffusion(prediction="v", betas="cosine"),
    "learned": Diffusion(variance=True, betas="scaled-linear", last=0.012, first=0.00085),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_ends_are_data_and_noise(name: str) -> None:
    corrupt = OBJECTIVES[name].corrupt
    assert torch.equal(corrupt(CLEAN, NOISE, torch.zeros(3)), CLEAN)
    assert torch.equal(corrupt(CLEAN, NOISE, torch.ones(3)), NOISE)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_clip_or_frame_has_its_own_time(name: str) -> None:
    objective, t = OBJECTIVES[name], torch.tensor([0.0, 0.25, 1.0])
    mixed = objective.corrupt(CLEAN, NOISE, t)
    assert torch.equal(mixed[0], CLEAN[0]) and torch.equal(mixed[2], NOISE[2])
    frames = torch.tensor([[0.0, 0.3, 0.6, 1.0]] * 3)
    each = objective.corrupt(CLEAN, NOISE, frames)
    for f in range(4):
        torch.testing.assert_close(each[:, :, f], objective.corrupt(CLEAN, NOISE, frames[:, f])[:, :, f])
    assert spread(t, CLEAN).shape == (3, 1, 1, 1, 1) and spread(frames, CLEAN).shape == (3, 1, 4, 1, 1)


def test_the_target_of_a_flow_is_the_slope_of_its_line() -> None:
    clean, noise = CLEAN.double(), NOISE.double()
    at = [Flow().corrupt(clean, noise, torch.full((3,), t, dtype=torch.float64)) for t in (0.3, 0.4)]
    torch.testing.assert_close((at[1] - at[0]) / 0.1, Flow().target(clean, noise, torch.zeros(3)))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_right_answer_becomes_the_velocity_of_the_line(name: str) -> None:
    """Whatever the network answers with, and in its own grid, samplers see noise - clean."""
    objective, t = OBJECTIVES[name], torch.tensor([0.2, 0.5, 0.95])
    line = (1 - spread(t, CLEAN)) * CLEAN + spread(t, CLEAN) * NOISE

    def network(noisy: Tensor, clock: Tensor, text: object) -> Tensor:
        torch.testing.assert_close(noisy, objective.corrupt(CLEAN, NOISE, t))
        answer = objective.target(CLEAN, NOISE, t)
        return torch.cat([answer, answer * 0 + 0.5], dim=1) if objective.variance else answer

    answer = objective.flow(network)(line, t, None)
    torch.testing.assert_close(answer[:, :2], NOISE - CLEAN, rtol=1e-4, atol=1e-4)
    assert answer.shape[1] == (4 if objective.variance else 2) and (answer[:, 2:] == 0.5).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_given_frames_reach_the_network_as_they_are(name: str) -> None:
    objective, mask = OBJECTIVES[name], torch.zeros(3, 1, 4, 5, 6)
    mask[:, :, 0] = 1
    seen: list[Tensor] = []

    def network(noisy: Tensor, clock: Tensor, text: object, given: Tensor | None = None, *, when: object = None) -> Tensor:
        seen.append(noisy)
        return torch.cat([noisy, noisy], dim=1) if objective.variance else noisy

    objective.flow(network)(CLEAN, torch.full((3,), 0.5), None, mask, when=None)
    assert torch.equal(seen[0][:, :, 0], CLEAN[:, :, 0])


@pytest.mark.parametrize("betas", ["linear", "scaled-linear", "cosine"])
def test_levels_are_those_of_diffusers(betas: str) -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    named = {"linear": "linear", "scaled-linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
    ours, theirs = Diffusion(betas=betas), DDPMScheduler(1000, 1e-4, 0.02, named[betas])
    torch.testing.assert_close(ours.kept.float(), theirs.alphas_cumprod, rtol=1e-4, atol=1e-6)
    at = torch.tensor([0, 17, 999])
    t = ours.levels[at].float()
    torch.testing.assert_close(ours.corrupt(CLEAN, NOISE, t), theirs.add_noise(CLEAN, NOISE, at), rtol=1e-4, atol=1e-5)
    if betas != "cosine":  # whose last levels are cut off
        torch.testing.assert_close(
            Diffusion(betas=betas, prediction="v").target(CLEAN, NOISE, t), theirs.get_velocity(CLEAN, NOISE, at), rtol=1e-4, atol=1e-4
        )
    assert (ours.clock(ours.levels.float()) * 1000).round().tolist() == list(range(1000))


def test_the_clock_tells_a_level_exactly_and_goes_on_between() -> None:
    objective = Diffusion(steps=50)
    levels = objective.levels.float()
    assert torch.equal(objective.clock(levels), (torch.arange(50) / 1000).float())
    between = objective.clock((levels[3:4] + levels[4:5]) / 2)
    assert 0.003 < float(between) < 0.004 and float(objective.clock(torch.zeros(1))) == 0
    torch.testing.assert_close(objective.before(levels), torch.cat([torch.zeros(1), levels[:-1]]))


def test_the_posterior_is_bayes_rule() -> None:
    """Mean and variance of x before, given x now and the data, from the joint normal distribution."""
    objective = Diffusion(steps=30)
    now, then = objective.levels[20], objective.levels[19]
    mean, least, most = posterior(CLEAN.double(), NOISE.double(), now, then)
    kept, before = objective.kept[20], objective.kept[19]
    share = kept / before
    gain = share.sqrt() * (1 - before) / (1 - kept)
    expected = before.sqrt() * CLEAN.double() + gain * (NOISE.double() - kept.sqrt() * CLEAN.double())
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(least.exp(), (1 - before) - gain**2 * (1 - kept))
    torch.testing.assert_close(most.exp(), 1 - share)


def test_the_bound_is_zero_for_the_true_posterior_and_else_above() -> None:
    objective = Diffusion(variance=True, steps=30)
    t = objective.levels[torch.tensor([5, 12, 29])].float()
    right = objective.bound(NOISE, torch.full_like(NOISE, -1.0), CLEAN, NOISE, t)
    torch.testing.assert_close(right, torch.zeros_like(right), rtol=0, atol=1e-4)
    for answer, raw in ((NOISE, 0.3), (NOISE + 0.5, -1.0)):
        assert (objective.bound(answer, torch.full_like(NOISE, raw), CLEAN, NOISE, t) > 0).all()
    first = objective.levels[:1].float().expand(3)
    assert objective.bound(NOISE, NOISE * 0, CLEAN.clamp(-1, 1), NOISE, first).isfinite().all()


def test_the_variance_learns_from_the_bound_and_the_mean_does_not() -> None:
    objective, t = Diffusion(variance=True, steps=30), Diffusion(steps=30).levels[torch.tensor([0, 12, 29])].float()
    output = torch.cat([NOISE * 0.9, NOISE * 0.1], dim=1).requires_grad_()
    objective.loss(output, CLEAN, NOISE, t).sum().backward()
    assert output.grad is not None
    torch.testing.assert_close(output.grad[:, :2], 2 * (NOISE * 0.9 - NOISE))
    assert (output.grad[:, 2:] != 0).any(dim=1).all()


def test_learned_variance_goes_from_the_least_to_the_most() -> None:
    least, most = torch.tensor(-3.0), torch.tensor(-1.0)
    assert variance(-torch.ones(1), least, most) == -3 and variance(torch.ones(1), least, most) == -1


def test_likelihoods_of_all_values_sum_to_one() -> None:
    values = torch.linspace(-1, 1, 256, dtype=torch.float64).view(1, 1, 1, 16, 16)
    log = likelihood(values, torch.full_like(values, 0.2), torch.full_like(values, math.log(0.3)))
    assert abs(log.exp().sum() - 1) < 1e-6


@pytest.mark.parametrize("wrong", [{"first": 0.03}, {"last": 1.0}, {"steps": 1}])
def test_levels_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match="objective takes"):
        Diffusion(**wrong)


# --- Times ---


def drawn(times: Times, *, clips: int = 20_000, frames: int = 1, places: int = 0, objective: Objective = OBJECTIVES["flow"]) -> Tensor:
    return objective.draw(times, clips, frames, places, torch.Generator().manual_seed(0))


def test_times_of_training_are_logit_normal_then_shifted() -> None:
    draw = drawn(Times(mean=0.5, deviation=0.7))
    assert draw.min() > 0 and draw.max() < 1
    logit = torch.logit(draw)
    assert abs(logit.mean() - 0.5) < 0.03 and abs(logit.std() - 0.7) < 0.03
    shifted = drawn(Times(mean=0.5, deviation=0.7, shift=3.0))
    torch.testing.assert_close(shifted, 3 * draw / (1 + 2 * draw))
    assert (shifted > draw).all()


def test_uniform_times_and_those_of_the_mode() -> None:
    even, mode = drawn(Times(density="uniform")), drawn(Times(density="mode"))
    assert abs(even.mean() - 0.5) < 0.01 and abs(even.std() - 12**-0.5) < 0.01
    assert mode.min() >= 0 and mode.max() <= 1 and ((mode - 0.5).abs() < 0.25).float().mean() > 0.58
    flat = drawn(Times(density="mode", heaviness=0.0))
    assert abs(flat.mean() - 0.5) < 0.01 and abs(flat.std() - 12**-0.5) < 0.01


def test_the_shift_grows_with_the_root_of_the_places() -> None:
    times = Times(shift=2.0, places=100)
    assert torch.equal(drawn(times, places=100), drawn(Times(shift=2.0)))
    torch.testing.assert_close(drawn(times, places=400), drawn(Times(shift=4.0)))
    torch.testing.assert_close(times.schedule(5, 400), Times(shift=4.0).schedule(5))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_frame_may_have_its_own_time_or_one_that_never_falls(name: str) -> None:
    objective = OBJECTIVES[name]
    each, rising = (drawn(Times(each=each), clips=2000, frames=4, objective=objective) for each in ("frame", "monotone"))
    assert each.shape == rising.shape == (2000, 4)
    correlations = torch.corrcoef(each.T) - torch.eye(4)
    assert correlations.abs().max() < 0.1 and (rising.diff(dim=1) >= 0).all() and (each.diff(dim=1) < 0).any()


def test_every_level_is_trained_equally_often() -> None:
    levels = Diffusion(steps=10).levels.float()
    draw = drawn(Times(), objective=Diffusion(steps=10))
    counts = [(draw == level).float().mean() for level in levels]
    assert abs(sum(counts) - 1) < 1e-6 and all(abs(count - 0.1) < 0.01 for count in counts)


def test_times_of_sampling_go_from_noise_to_data() -> None:
    for shift in (0.5, 1.0, 3.0):
        times = Times(shift=shift).schedule(7)
        assert len(times) == 8 and times[0] == 1 and times[-1] == 0
        assert (times.diff() < 0).all()
    plain, shifted = (Times(shift=shift).schedule(7)[1:-1] for shift in (1.0, 3.0))
    assert (shifted > plain).all()
    torch.testing.assert_close(plain, torch.arange(6, 0, -1) / 7)
    levels = Diffusion().schedule(Times(), 7, 0)
    assert len(levels) == 8 and levels[-1] == 0 and levels[0] == Diffusion().levels[-1].float() and (levels.diff() < 0).all()


@pytest.mark.parametrize("betas", ["linear", "scaled-linear", "cosine"])
def test_sampling_begins_at_noise_of_its_own_size(betas: str) -> None:
    """A diffusion's last level keeps a little of the data, and what sampling begins with is pure noise in the diffusion's own grid."""
    heard = []
    objective, noise = Diffusion(betas=betas), torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    t = objective.schedule(Times(), 8, 0)[0]
    objective.flow(lambda x, t, text: (heard.append(x), x)[1])(objective.begin(noise, t), t.expand(2), None)
    torch.testing.assert_close(heard[0], noise, rtol=1e-5, atol=1e-6)
    assert torch.equal(Flow().begin(noise, t), noise)
