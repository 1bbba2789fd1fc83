"""Clips longer than those of training: places scaled, and the one turn that would repeat slowed."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

import tiny
from videodit import backbone
from videodit.backbone import PRESETS
from videodit.backbone.positions import Length, grid_positions, rotary_angles
from videodit.shapes import Size

LIKE = torch.zeros(())
LATTE = replace(PRESETS["latte-xl-v2-tiny"], channels=8)


def rates(frames: int, length: Length) -> torch.Tensor:
    """Turns from one frame to the next."""
    angles = rotary_angles(Size(frames, 1, 1), 32, "time", like=LIKE, length=length)
    return angles[1] - angles[0]


def test_scaled_places_are_those_of_training() -> None:
    twice = Length(scale=2.0)
    for rotary in ("time", "space-time"):
        short, long = (rotary_angles(Size(n, 2, 3), 32, rotary, like=LIKE, length=x) for n, x in ((4, Length()), (8, twice)))
        torch.testing.assert_close(long.unflatten(0, (8, 6))[::2], short.unflatten(0, (4, 6)))
    short, long = (grid_positions(Size(n, 2, 3), 48, axes=3, like=LIKE, scale=x) for n, x in ((4, 1.0), (8, 2.0)))
    torch.testing.assert_close(long.unflatten(0, (8, 6))[::2], short.unflatten(0, (4, 6)))


def test_only_the_turn_that_repeats_is_slowed_and_only_where_the_clip_is_longer() -> None:
    slowed = Length(repeats=16)
    assert torch.equal(rates(16, slowed), rates(16, Length()))
    before, after = rates(40, Length()), rates(40, slowed)
    (changed,) = (before != after).nonzero().flatten()
    assert changed == (2 * math.pi / before[:8] - 16).abs().argmin()
    assert 2 * math.pi / after[changed] > 40 > 2 * math.pi / before[changed]


@torch.no_grad()
def test_models_hear_of_it() -> None:
    noisy, t = tiny.grid(2, 8, 6, 4, 4), torch.tensor([0.2, 0.7])
    for settings in (tiny.transformer().settings, LATTE, replace(LATTE, time="rotary")):
        outs = []
        for length in (Length(), Length(scale=1.5)):
            torch.manual_seed(0)
            network = backbone.build(replace(settings, length=length)).eval()
            tiny.randomised(network)
            outs.append(network(noisy, t, tiny.text([3, 2])))
        assert (outs[0] - outs[1]).abs().max() > 1e-4
