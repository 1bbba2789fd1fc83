"""Samplers on fields whose flow is known: one point, where they are exact, and a Gaussian, where their order shows."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from videodit.diffusion.guidance import Field, Network
from videodit.diffusion.objectives import Diffusion, Flow, spread
from videodit.diffusion.samplers import EVALUATIONS, SAMPLERS, Sampler, ancestral, ddim, euler
from videodit.diffusion.schedulers import sampler, scheduled
from videodit.diffusion.times import Times
from videodit.shapes import UserError

CLEAN, NOISE = (tiny.grid(2, 3, 2, 4, 4, seed=seed).double() for seed in (1, 2))
MEAN, DEVIATION = 1.5, 0.4
ORDER = {"euler": 1, "heun": 2, "rf-solver": 2, "ddim": 1}


def gaussian(x: Tensor, t: Tensor) -> Tensor:
    """The velocity E[noise - clean | x] where clean is normal with MEAN and DEVIATION."""
    t = spread(t, x)
    variance = (1 - t) ** 2 * DEVIATION**2 + t**2
    away = x - (1 - t) * MEAN
    return t / variance * away - (MEAN + (1 - t) * DEVIATION**2 / variance * away)


def bent(x: Tensor, t: Tensor) -> Tensor:
    """A field that is linear in nothing."""
    return torch.cos(x + spread(t, x)) * (1 + spread(t, x))


def point(x: Tensor, t: Tensor) -> Tensor:
    """The velocity towards CLEAN, from wherever x is."""
    return (x - CLEAN.to(x)[: len(x)]) / spread(t, x).clamp(min=1e-9)


def fresh(step: int, like: Tensor = NOISE) -> Tensor:
    return tiny.grid(*like.shape, seed=100 + step).to(like)


def run(sample: Sampler, field: Field, steps: int, shift: float = 1.0, noise: Tensor = NOISE) -> Tensor:
    return sample(field, noise, Times(shift=shift).schedule(steps).to(noise), partial(fresh, like=noise))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 3, 24])
def test_one_point_is_reached_exactly(name: str, steps: int) -> None:
    field: Field = point if name == "ancestral" else lambda x, t: NOISE - CLEAN
    torch.testing.assert_close(run(SAMPLERS[name], field, steps, shift=2.0), CLEAN)


@pytest.mark.parametrize("name", ["euler", "ddim", "ancestral"])
@pytest.mark.parametrize("steps", [1, 3, 24])
def test_a_sampler_that_never_looks_at_data_ends_at_what_its_last_step_sees(name: str, steps: int) -> None:
    """The true velocity towards one point is undefined at t = 0."""
    torch.testing.assert_close(run(SAMPLERS[name], point, steps), CLEAN)


@cache
def bent_end() -> Tensor:
    """As near that no slope below sees it: a 250th of the error of 128 steps."""
    return run(SAMPLERS["heun"], bent, 2000)


@pytest.mark.parametrize("name", ORDER)
def test_a_gaussian_is_reached_with_the_order_of_the_sampler(name: str) -> None:
    exact = MEAN + DEVIATION * NOISE
    counts = np.array([16, 32, 64, 128])
    slopes = []
    for field, end in ((gaussian, exact), (bent, bent_end())):
        errors = np.array([float((run(SAMPLERS[name], field, int(n)) - end).abs().max()) for n in counts])
        slopes.append(-np.polyfit(np.log(counts), np.log(errors), 1)[0])
    # of the midpoint's error on the Gaussian the leading term vanishes
    assert slopes[0] > ORDER[name] - 0.15 and abs(slopes[1] - ORDER[name]) < 0.15, (name, slopes)


@pytest.mark.parametrize("name", ["ancestral", "DDPM", "EulerAncestralDiscrete"])
def test_a_sampler_that_adds_noise_reaches_the_gaussian_with_its_covariance(name: str) -> None:
    noise = tiny.grid(1, 40_000, 1, 1, 1)
    out = run(sampler(name), gaussian, 200, noise=noise)
    assert abs(out.mean() - MEAN) < 0.02 and abs(out.std() / DEVIATION - 1) < 0.04


def test_ddim_is_euler_on_the_line() -> None:
    torch.testing.assert_close(run(ddim, gaussian, 9), run(euler, gaussian, 9))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_field_is_asked_as_often_as_is_said(name: str) -> None:
    asked: list[float] = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t[0]))
        return x

    seen: list[int] = []
    SAMPLERS[name](field, NOISE, Times().schedule(4).double(), fresh, lambda step, x: seen.append(step))
    assert len(asked) == 4 * EVALUATIONS.get(name, 1) and seen == [1, 2, 3, 4]


# --- Schedulers of diffusers ---


@pytest.mark.parametrize("name", ["DDIM", "DDPM"])
def test_a_scheduler_begins_at_the_whole_noise_where_a_diffusion_begins(name: str) -> None:
    """Also with betas that leave some of the data at the last level."""
    objective, heard = Diffusion(betas="scaled-linear", first=8.5e-4, last=0.012), []
    noise, times = NOISE.float(), objective.schedule(Times(), 4, 0)

    def field(x: Tensor, t: Tensor) -> Tensor:
        heard.append(x * sum(Diffusion.shares(spread(t, x))))  # in the diffusion's own grid
        return x

    scheduled(name)(field, objective.begin(noise, times[0]), times, partial(fresh, like=noise))
    assert heard[0].std() == pytest.approx(float(noise.std()), rel=1e-4)


TINY = tiny.grid(2, 8, 2, 8, 8, seed=7)


@cache
def real() -> Network:
    """A tiny transformer with random weights, which reads words."""
    network, text = tiny.transformer(), tiny.text([5, 3])
    return lambda x, t, _: network(x, t, text)


@torch.no_grad()
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("whose", ["a function", "a network"])
def test_flow_matching_of_diffusers_is_euler(whose: str, shift: float) -> None:
    """Step by step, driven as its own pipelines drive it."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    noise = TINY if whose == "a network" else NOISE.float()
    field = partial(real(), _=None) if whose == "a network" else gaussian
    theirs, times = FlowMatchEulerDiscreteScheduler(), Times(shift=shift).schedule(12)
    theirs.set_timesteps(sigmas=times[:-1].numpy())
    passed, x = [], noise
    for at in theirs.timesteps:
        x = theirs.step(field(x, (at / 1000).expand(2)), at, x, return_dict=False)[0]
        passed.append(x)
    for how in (euler, scheduled("FlowMatchEulerDiscrete")):
        steps: list[Tensor] = []
        how(field, noise, times, fresh, lambda step, x, steps=steps: steps.append(x))
        assert len(steps) == len(passed) == 12
        for one, other in zip(steps, passed, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert (passed[-1] - noise).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("whose", ["a function", "a function that knows the variance", "a network"])
@pytest.mark.parametrize("betas", ["linear", "scaled-linear", "cosine"])
def test_ancestral_is_ddpm_of_diffusers(betas: str, whose: str) -> None:
    """The same weights, the same noise, step by step, level by level and with levels left out."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    learned, noise = whose.endswith("variance"), TINY if whose == "a network" else NOISE.float()
    objective = Diffusion(betas=betas, variance=learned, steps=40)
    named = {"linear": "linear", "scaled-linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
    theirs = DDPMScheduler(40, 1e-4, 0.02, named[betas], variance_type="learned_range" if learned else "fixed_small", clip_sample=False)

    theirs.alphas_cumprod = objective.kept  # the same levels, without the rounding of 1 - 0.9999 in single precision

    def function(x: Tensor, t: Tensor, text: object) -> Tensor:
        level = spread(t, x) * 1000
        noise = torch.sin(x * 1.3 + level / 20)
        return torch.cat([noise, torch.cos(x + level)], dim=1) if learned else noise

    network = real() if whose == "a network" else function
    for count in (40, 8):
        times, flow = objective.schedule(Times(), count, 0), objective.flow(network)
        ours: list[Tensor] = []
        start, draw = objective.begin(noise, times[0]), partial(fresh, like=noise)
        ancestral(lambda x, t, flow=flow: flow(x, t, None), start, times, draw, lambda step, x, ours=ours: ours.append(x))
        theirs.set_timesteps(timesteps=torch.linspace(39, 0, count).round().long().tolist())
        x = noise
        for step, level in enumerate(theirs.timesteps):
            answer = network(x, (level / 1000).expand(2), None)
            x = theirs.step(answer, level, x, generator=_Once(fresh(step, noise))).prev_sample
            own = ours[step] * sum(Diffusion.shares(times[step + 1]))  # on the diffusion's grid
            largest = float(x.abs().max())  # a thousand and more for cosine, whose last level leaves nearly nothing of the data
            torch.testing.assert_close(own / largest, x / largest, rtol=1e-5, atol=1e-5 if betas != "cosine" else 1e-4)
        assert len(ours) == count == len(theirs.timesteps)


class _Once:
    """What stands for a generator and hands out one tensor."""

    device = torch.device("cpu")

    def __init__(self, drawn: Tensor) -> None:
        self.drawn = drawn


@pytest.fixture(autouse=True)
def handed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffusers draws through one function; there our own noise is handed to it."""
    from diffusers.schedulers import scheduling_ddpm

    plain = scheduling_ddpm.randn_tensor
    monkeypatch.setattr(
        scheduling_ddpm,
        "randn_tensor",
        lambda *a, generator=None, **k: generator.drawn if isinstance(generator, _Once) else plain(*a, generator=generator, **k),
    )


def test_a_batch_is_its_clips_one_by_one_for_samplers_that_draw() -> None:
    noise = NOISE.float()
    for name in ("ancestral", "EulerAncestralDiscrete", "DDPM"):
        whole = sampler(name)(gaussian, noise, Times().schedule(6), partial(fresh, like=noise))
        for i in range(2):
            one = sampler(name)(gaussian, noise[i : i + 1], Times().schedule(6), lambda step, i=i: fresh(step, noise)[i : i + 1])
            torch.testing.assert_close(one[0], whole[i], rtol=1e-5, atol=1e-5)


def test_what_is_no_sampler_is_refused() -> None:
    with pytest.raises(UserError, match=r"There is no sampler 'nonsense': use euler, .* or a scheduler of diffusers such as"):
        sampler("nonsense")


def test_flow_is_its_own_field() -> None:
    assert Flow().flow(gaussian) is gaussian
