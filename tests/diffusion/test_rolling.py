"""The queue: what leaves it is data, in order, and as many looks as it has places were taken at it."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor

import tiny
from videodit.diffusion.rolling import queued, rolling
from videodit.diffusion.times import Times

CLEAN, NOISE = tiny.grid(1, 3, 4, 2, 2).double(), tiny.grid(1, 3, 4, 2, 2, seed=6).double()
LEVELS = Times(shift=2.0).schedule(4).flip(0).double()


def later(n: int) -> Tensor:
    return tiny.grid(1, 3, 1, 2, 2, seed=50 + n).double()


def test_each_frame_reaches_its_own_point_in_its_turn() -> None:
    """The field knows where every frame ends: those of the first clip, then one point for each that comes after."""
    points = torch.cat([CLEAN, *(later(100 + n) for n in range(8))], dim=2)
    at = [0]

    def field(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (1, 4) and (t.diff(dim=1) > 0).all() and t[0, -1] == 1
        towards = points[:, :, at[0] : at[0] + 4]
        at[0] += 1
        return (x - towards) / t.view(1, 1, 4, 1, 1)

    frames = torch.cat(list(islice(rolling(field, queued(CLEAN, NOISE, LEVELS), LEVELS, later), 8)), dim=2)
    torch.testing.assert_close(frames, points[:, :, :8])


def test_a_queue_begins_noised_place_by_place() -> None:
    queue = queued(CLEAN, NOISE, LEVELS)
    assert torch.equal(queue[:, :, 3], NOISE[:, :, 3])
    torch.testing.assert_close(queue[:, :, 0], (1 - LEVELS[1]) * CLEAN[:, :, 0] + LEVELS[1] * NOISE[:, :, 0])
