"""A clip that is there already: how much of it stays, and the way back to its noise."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import tiny
from videodit.backbone.layouts import GlobalAttention, Layout
from videodit.diffusion.editing import Shared, inverted, kept, later, noised, sharing
from videodit.diffusion.samplers import EVALUATIONS, SAMPLERS
from videodit.diffusion.schedulers import own_times, sampler
from videodit.diffusion.times import Times
from videodit.shapes import Size

CLEAN, NOISE = tiny.grid(1, 4, 3, 4, 4).double(), tiny.grid(1, 4, 3, 4, 4, seed=2).double()
TIMES = Times(shift=3.0).schedule(12).double()


EXACT = ("euler", "heun", "rf-solver", "ddim")  # which draw nothing


def bent(x: Tensor, t: Tensor) -> Tensor:
    return torch.cos(2 * x + 3 * t.view(-1, 1, 1, 1, 1)) * 2


def nothing(step: int) -> Tensor:
    raise AssertionError


def test_what_is_left_of_a_schedule() -> None:
    assert torch.equal(later(TIMES, 1.0), TIMES) and torch.equal(later(TIMES, 0.5), TIMES[6:]) and len(later(TIMES, 0.01)) == 2
    assert torch.equal(noised(CLEAN, NOISE, TIMES), NOISE)
    half = noised(CLEAN, NOISE, later(TIMES, 0.5))
    torch.testing.assert_close(half, (1 - TIMES[6]) * CLEAN + TIMES[6] * NOISE)


@pytest.mark.parametrize("name", [*EXACT, "ancestral", "FlowMatchLCM", "DDPM", "EulerAncestralDiscrete"])
def test_what_is_kept_ends_where_it_was(name: str) -> None:
    """Also where the sampler adds noise on the way."""
    change = torch.zeros(1, 1, 3, 4, 4)
    change[..., 2:] = 1
    field = kept(bent, change, CLEAN, NOISE)
    for strength in (1.0,) if own_times(name) else (1.0, 0.3):
        times = later(TIMES, strength)
        draw = nothing if name in EXACT else lambda step: torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(step)).double()
        out = sampler(name)(field, noised(CLEAN, NOISE, times), times, draw, lambda step, x: None)
        torch.testing.assert_close(out[..., :2], CLEAN[..., :2], rtol=1e-5, atol=1e-5)
        assert (out[..., 2:] - CLEAN[..., 2:]).abs().max() > 0.05


def test_what_is_said_of_the_variance_passes_by_what_is_kept() -> None:
    field = kept(lambda x, t: torch.cat([bent(x, t), x + 1], dim=1), torch.zeros(1, 1, 3, 4, 4), CLEAN, NOISE)
    answer = field(NOISE, torch.ones(1).double())
    assert torch.equal(answer[:, 4:], NOISE + 1) and torch.allclose(answer[:, :4], NOISE - CLEAN)


def test_leading_back_loses_less_with_the_second_order() -> None:
    """At as many looks: RF-Solver's two a step, Euler's one."""
    lost = {}
    for name in ("euler", "rf-solver"):
        times = Times().schedule(24 // EVALUATIONS.get(name, 1)).double()
        there = inverted(SAMPLERS[name], bent, CLEAN, times, nothing)
        back = SAMPLERS[name](bent, there, times, nothing, lambda step, x: None)
        lost[name] = (back - CLEAN).square().mean()
    assert lost["rf-solver"] < lost["euler"] / 10


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = GlobalAttention()


@torch.no_grad()
def test_shared_values_come_back_in_reverse_and_words_keep_their_own() -> None:
    block, layout = Block(), Layout(None, None, Size(1, 2, 3))
    query, key, *values = (tiny.grid(1, 2, 8, 1, 4, seed=seed)[:, :, :, 0] for seed in range(4))
    with sharing([block]) as (shared,):
        for value in values:
            assert torch.equal(block.attention(query, key, value, layout), GlobalAttention()(query, key, value, layout))
        shared.hand_on(3)
        other = tiny.grid(2, 2, 8, 1, 4, seed=9)[:, :, :, 0]
        for value in (values[1], *reversed(values)):
            mixed = torch.cat([other[:, :, :2], value[:, :, 2:].repeat(2, 1, 1, 1)], dim=2)
            seen = block.attention(query.repeat(2, 1, 1, 1), key.repeat(2, 1, 1, 1), other, layout)
            torch.testing.assert_close(seen, GlobalAttention()(query.repeat(2, 1, 1, 1), key.repeat(2, 1, 1, 1), mixed, layout))
        assert torch.equal(block.attention(query, key, values[0], layout), GlobalAttention()(query, key, values[0], layout))  # none is left
    assert isinstance(block.attention, GlobalAttention) and isinstance(shared, Shared)


def test_leading_back_and_forth_meets_at_the_same_times() -> None:
    """So that what was seen there fits: RF-Solver looks on the way back where it did on the way there, pure noise aside."""
    looks: list[list[float]] = [[], []]

    def field(x: Tensor, t: Tensor, into: list[float]) -> Tensor:
        into.append(float(t[0]))
        return x

    for into, times in zip(looks, (TIMES.flip(0), TIMES), strict=True):
        SAMPLERS["rf-solver"](partial(field, into=into), CLEAN, times, nothing, lambda step, x: None)
    assert len(looks[0]) == len(looks[1]) == 24
    torch.testing.assert_close(torch.tensor(looks[0][1:]), torch.tensor(looks[1][1:][::-1]))
