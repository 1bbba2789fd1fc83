"""Windows that overlap: all of a clip is covered, and a network that looks no further than their margins does not notice them."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import tiny
from videodit.diffusion.samplers import SAMPLERS
from videodit.diffusion.times import Times
from videodit.diffusion.windows import margin, starts, weights, windowed
from videodit.shapes import UserError


@pytest.mark.parametrize(("frames", "window", "overlap"), [(4, 4, 2), (3, 4, 2), (5, 4, 2), (17, 4, 1), (16, 4, 0), (9, 8, 7)])
def test_windows_cover_the_clip_and_share_what_is_asked(frames: int, window: int, overlap: int) -> None:
    begins = starts(frames, window, overlap)
    assert begins[0] == 0 and max(begins) == max(frames - window, 0) and begins == sorted(set(begins))
    assert all(later - earlier <= window - overlap for earlier, later in pairwise(begins))


def test_more_shared_than_there_is_is_refused() -> None:
    with pytest.raises(UserError, match="use 0 to 3"):
        starts(9, 4, 4)


def neighbours(x: Tensor, t: Tensor, reach: int = 1) -> Tensor:
    """A network that sees each frame and so many on either side of it."""
    padded = torch.nn.functional.pad(x, (0, 0, 0, 0, reach, reach))
    seen = (padded[:, :, at : at + x.shape[2]] * (3 if at == reach else (-1) ** at) for at in range(2 * reach + 1))
    return torch.stack(list(seen)).sum(0).sin() + t.view(-1, 1, 1, 1, 1)


def alone(x: Tensor, t: Tensor) -> Tensor:
    """One that sees each frame by itself."""
    return x.sin() * t.view(-1, 1, 1, 1, 1)


@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_windows_equal_the_whole_for_a_network_with_local_reach(overlap: int) -> None:
    x, t, begins = tiny.grid(2, 3, 11, 4, 4), torch.tensor([0.3, 0.9]), starts(11, 4, overlap)
    torch.testing.assert_close(windowed([alone] * len(begins), begins, 4)(x, t), alone(x, t))


REACHES = [(reach, 11, window, overlap) for reach, window, overlap in ((1, 4, 3), (1, 6, 3), (1, 8, 4), (2, 6, 5), (2, 8, 6), (3, 8, 7))]


@pytest.mark.parametrize(("reach", "frames", "window", "overlap"), [*REACHES, (1, 25, 5, 3), (2, 23, 8, 5)])
def test_windows_equal_the_whole_for_a_network_that_sees_no_further_than_their_margin(
    reach: int, frames: int, window: int, overlap: int
) -> None:
    """In one look, and over a whole sampling; a network that sees a frame further notices them."""
    x, t, begins = tiny.grid(2, 3, frames, 4, 4), torch.tensor([0.3, 0.9]), starts(frames, window, overlap)
    assert len(begins) > 1 and margin(overlap) >= reach > margin(2 * reach)
    near, far = (partial(neighbours, reach=how) for how in (reach, margin(overlap) + 1))
    parts, fewer = (windowed([how] * len(begins), begins, window, margin(overlap)) for how in (near, far))
    torch.testing.assert_close(parts(x, t), near(x, t))
    assert (fewer(x, t) - far(x, t)).abs().max() > 0.05
    for name in ("euler", "heun"):
        ours, whole = (SAMPLERS[name](field, x, Times(shift=2.0).schedule(6), torch.zeros, lambda *seen: None) for field in (parts, near))
        torch.testing.assert_close(ours, whole)
        assert (whole - x).abs().max() > 0.1


def test_every_frame_counts_somewhere_whatever_windows_share() -> None:
    """And those of the clip's own ends wholly."""
    for window in range(1, 9):
        for overlap in range(window):
            assert margin(overlap) == 0 or overlap > 2
            for frames in range(1, 30):
                begins, least = starts(frames, window, overlap), min(window, frames)
                total = torch.zeros(frames)
                for i, start in enumerate(begins):
                    total[start : start + window] += weights(least, i == 0, i == len(begins) - 1, margin(overlap))
                assert total.min() > 0, (window, overlap, frames)


def test_a_learned_variance_is_blended_too() -> None:
    x, t, begins = tiny.grid(1, 3, 11, 4, 4), torch.tensor([0.3]), starts(11, 4, 2)
    whole = windowed([lambda x, t: torch.cat([alone(x, t), x.cos()], dim=1)] * len(begins), begins, 4)(x, t)
    torch.testing.assert_close(whole, torch.cat([alone(x, t), x.cos()], dim=1))


def test_what_differs_at_a_windows_edge_hardly_counts_there() -> None:
    x, t, begins = tiny.grid(1, 3, 12, 4, 4), torch.tensor([0.5]), starts(12, 6, 3)
    whole, blended = neighbours(x, t), windowed([neighbours] * len(begins), begins, 6)(x, t)
    apart = (whole - blended).abs().amax((0, 1, 3, 4))
    assert apart[[0, 11]].max() < 1e-6 and 0 < apart.max() < (whole - windowed([neighbours] * 2, [0, 6], 6)(x, t)).abs().max()


def test_each_window_has_its_own_words_and_they_blend() -> None:
    ones, twos = (lambda x, t, v=v: torch.full_like(x, v) for v in (1.0, 2.0))
    out = windowed([ones, twos], [0, 2], 4)(torch.zeros(1, 2, 6, 2, 2), torch.tensor([0.5]))[0, 0, :, 0, 0]
    assert out[0] == out[1] == 1 and out[4] == out[5] == 2 and 1 < out[2] < out[3] < 2
    assert weights(4, True, True).tolist() == [4, 4, 4, 4] and weights(4, False, True).tolist() == [1, 2, 3, 4]
