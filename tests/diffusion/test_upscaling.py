"""What a network is told of a clip at a lower resolution: at no noise the clip, at all of it nothing, and never held."""

from __future__ import annotations

import pytest
import torch

import tiny
from videodit.diffusion.tasks import around
from videodit.diffusion.upscaling import Upscale, told
from videodit.shapes import Size, UserError

LOW, NOISE = tiny.grid(3, 8, 2, 6, 4), tiny.grid(3, 8, 2, 6, 4, seed=6)


def test_the_branch_sees_the_share_of_the_clip_and_the_clip_under_its_noise() -> None:
    shares = torch.tensor([0.0, 0.25, 0.9])
    given = told(LOW, NOISE, shares)
    assert given.hint is not None and not given.holds
    mask, latents = given.hint[:, :1], given.hint[:, 1:]
    s = shares.view(-1, 1, 1, 1, 1)
    assert torch.equal(mask, (1 - s).expand(-1, 1, 2, 6, 4))
    torch.testing.assert_close(mask * latents, (1 - s) * LOW + s * NOISE)  # as the branch multiplies
    assert torch.equal(latents[0], LOW[0])  # without noise it is the clip, bit for bit


def test_nothing_is_held() -> None:
    given = told(LOW, NOISE, torch.zeros(3))
    assert torch.equal(given.hold(NOISE), NOISE)
    assert given.images.shape[2] == 0 and given.places == ()


def test_an_empty_hint_is_not_being_told_and_a_branch_at_zero_hears_nothing() -> None:
    network, t, words = tiny.transformer(hints=True), torch.tensor([0.2, 0.5, 0.8]), tiny.text([3, 1, 2])
    given = told(LOW, NOISE, torch.tensor([0.0, 0.1, 0.2]))
    silent = given._replace(hint=torch.zeros_like(given.hint))  # type: ignore[arg-type]
    with torch.no_grad():
        plain = network(NOISE, t, words)
        assert torch.equal(around(network, silent)(NOISE, t, words), plain)
        assert not torch.allclose(around(network, given)(NOISE, t, words), plain)
        torch.nn.init.zeros_(network.hints.proj.weight)  # type: ignore[union-attr]
        assert torch.equal(around(network, given)(NOISE, t, words), plain)


def test_every_latent_frame_is_told_of() -> None:
    """A change in any of them is heard."""
    network, t, words = tiny.transformer(hints=True), torch.tensor([0.2, 0.5, 0.8]), tiny.text([3, 1, 2])
    with torch.no_grad():
        before = around(network, told(LOW, NOISE, torch.zeros(3)))(NOISE, t, words)
        for frame in range(LOW.shape[2]):
            other = LOW.clone()
            other[:, :, frame] += 1
            assert not torch.allclose(around(network, told(other, NOISE, torch.zeros(3)))(NOISE, t, words), before)


def test_shares_reach_from_none_to_the_most() -> None:
    shares = Upscale(most=0.4).shares(4000, torch.Generator().manual_seed(0))
    assert 0 <= shares.min() < 0.01 and 0.39 < shares.max() <= 0.4 and abs(shares.mean() - 0.2) < 0.01
    assert not Upscale(most=0.0, softened=0.0).shares(9, torch.Generator()).any()


def test_sizes_and_settings_that_cannot_be() -> None:
    assert Upscale(factor=4).lower(Size(16, 64, 96)) == (16, 16, 24)
    with pytest.raises(UserError, match="64 rows are not 3 times as many"):
        Upscale(factor=3).lower(Size(16, 64, 96))
    for wrong, said in (
        ({"factor": 1}, "takes 2 or more, not 1"),
        ({"most": 1.0}, "upscale.most takes 0 up to"),
        ({"softened": 0.5}, "upscale.softened 0 to upscale.most"),
        ({"most": float("nan")}, "upscale.most takes 0 up to"),
    ):
        with pytest.raises(UserError, match=said):
            Upscale(**wrong)
