"""Every scheduler of diffusers: what walks from noise to data arrives there, the rest is refused by a sentence that says why."""

from __future__ import annotations

from functools import partial

import diffusers
import pytest
import torch
from torch import Tensor

import tiny
from videodit.diffusion.objectives import spread
from videodit.diffusion.schedulers import REFUSED, THERE, WALKS, sampler, scheduled
from videodit.diffusion.times import Times
from videodit.shapes import UserError

ALL = sorted(name for name in dir(diffusers) if name.endswith("Scheduler"))
CLEAN, NOISE = (tiny.grid(2, 3, 2, 4, 4, seed=seed) for seed in (1, 2))
MEAN, DEVIATION = 1.5, 0.4
LARGEST = 4.0  # of any number that is drawn here
# The share of noise at which the others end, who know no level without any: where time is 0.001; at the first of a thousand levels, of
# which TCD's, of Stable Diffusion, has as much as sqrt(0.00085).
LEFT = {"DEISMultistep": 0.001, "SASolver": 0.001, "DDPMWuerstchen": 0.01, "UnCLIP": 0.01, "PNDM": 0.01, "TCD": 0.00085**0.5}
CONSISTENT = ("FlowMatchLCM", "CMStochasticIterative", "SCM")  # which are told the end of the way, not what is expected there
EXACT = {
    **dict.fromkeys(("FlowMatchEulerDiscrete", "FlowMapEulerDiscrete", "MiniMaxH3", "EDMEuler"), 0.05),
    **dict.fromkeys(("FlowMatchHeunDiscrete", "EDMDPMSolverMultistep", "IPNDM", "UniPCMultistep", "PNDM", "LMSDiscrete"), 0.01),
}


def point(x: Tensor, t: Tensor) -> Tensor:
    """The velocity towards CLEAN, from wherever x is."""
    return (x - CLEAN[: len(x)]) / spread(t, x).clamp(min=1e-9)


def gaussian(x: Tensor, t: Tensor) -> Tensor:
    """The velocity E[noise - clean | x] where clean is normal with MEAN and DEVIATION."""
    t = spread(t, x)
    variance, away = (1 - t) ** 2 * DEVIATION**2 + t**2, x - (1 - t) * MEAN
    return t / variance * away - (MEAN + (1 - t) * DEVIATION**2 / variance * away)


def straight(x: Tensor, t: Tensor) -> Tensor:
    """The velocity that leads at once to where that field ends: what a consistency model learns."""
    t = spread(t, x)
    return (x - MEAN - DEVIATION * (x - (1 - t) * MEAN) / ((1 - t) ** 2 * DEVIATION**2 + t**2).sqrt()) / t


def fresh(step: int, like: Tensor) -> Tensor:
    return tiny.grid(*like.shape, seed=100 + step)


def test_every_class_is_known() -> None:
    assert {name.removesuffix("Scheduler") for name in ALL} <= {*WALKS, *REFUSED} and not set(WALKS) & set(REFUSED)
    assert len(ALL) >= 40 and len(WALKS) == 33


@pytest.mark.parametrize("name", ALL)
def test_every_class_reaches_one_point_or_is_refused_by_a_sentence(name: str) -> None:
    short = name.removesuffix("Scheduler")
    if short in REFUSED:
        for called in (name, short):
            with pytest.raises(UserError, match=f"^{called} is a scheduler of diffusers that {REFUSED[short]}, so it is no sampler"):
                sampler(called)
        return
    for count in (4, 20):
        seen: list[int] = []
        reached = scheduled(name)(
            point, NOISE, Times().schedule(count), partial(fresh, like=NOISE), lambda step, x, seen=seen: seen.append(step)
        )
        torch.testing.assert_close(reached, CLEAN, rtol=0, atol=LARGEST * LEFT.get(short, 0) + 1e-3)
        assert seen == list(range(1, count + 1))


@pytest.mark.parametrize("name", [*EXACT, *CONSISTENT, "LTXEulerAncestralRF", "DDPMWuerstchen", "UnCLIP"])
def test_a_gaussian_is_reached_too(name: str) -> None:
    """Those that add no noise come to where the flow ends, the others to its mean and deviation."""
    noise = tiny.grid(1, 20_000, 1, 1, 1)
    field = straight if name in CONSISTENT else gaussian
    out = scheduled(name)(field, noise, Times().schedule(100), partial(fresh, like=noise), lambda step, x: None)
    assert abs(out.mean() - MEAN) < 0.02 and abs(out.std() / DEVIATION - 1) < 0.06
    if name in EXACT:
        torch.testing.assert_close(out, MEAN + DEVIATION * noise, rtol=0, atol=EXACT[name])


@pytest.mark.parametrize("name", WALKS)
def test_no_scheduler_waits_for_the_device(name: str) -> None:
    """A tensor on meta has no numbers, so looking at one is an error, and so is mixing it with more than a number of the host's."""

    def run() -> Tensor:
        draw = partial(fresh, like=NOISE)
        return scheduled(name)(lambda x, t: 2 * x, NOISE.to("meta"), Times().schedule(4), draw, lambda step, x: None)

    if name in THERE:
        with pytest.raises(RuntimeError, match="item"):
            run()
    else:
        assert run().device.type == "meta"


def test_a_number_of_steps_that_a_scheduler_cannot_make_is_a_sentence() -> None:
    for name, count in (("UnCLIP", 1), ("PNDM", 2), ("LCM", 100)):
        with pytest.raises(UserError, match=f"{name} cannot make {count} steps .*: use others, or another sampler"):
            scheduled(name)(point, NOISE, Times().schedule(count), partial(fresh, like=NOISE))
