"""The discriminator judges patches, and both sides of the game pull where they should."""

from __future__ import annotations

import pytest
import torch

import tiny
from videodit.autoencoder.discriminator import Discriminator, PatchDiscriminator, fools, tells

VIDEO = tiny.grid(2, 3, 8, 32, 32)


@pytest.fixture
def discriminator() -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(Discriminator(width=8, depth=2))


def test_it_says_something_of_every_patch(discriminator: PatchDiscriminator) -> None:
    assert discriminator(VIDEO).shape == (2, 1, 4, 6, 6)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_it_sees_frames_of_its_least_extent_and_none_smaller(depth: int) -> None:
    settings = Discriminator(width=5, depth=depth)  # of channels that no eight groups share
    assert PatchDiscriminator(settings)(torch.zeros(1, 3, 1, settings.least, settings.least)).shape == (1, 1, 1, 1, 1)
    with pytest.raises(RuntimeError, match="Kernel size"):
        PatchDiscriminator(settings)(torch.zeros(1, 3, 1, settings.least, settings.least - 1))


def test_a_patch_far_away_does_not_matter(discriminator: PatchDiscriminator) -> None:
    """As far as convolutions reach: the normalisation sees a whole clip, so it stands aside here."""
    for layer in discriminator.layers:
        if isinstance(layer, torch.nn.GroupNorm):
            layer.forward = lambda x: x  # type: ignore[method-assign]
    changed = VIDEO.clone()
    changed[..., 24:] = 0
    moved = (discriminator(changed) - discriminator(VIDEO)).abs().amax((0, 1, 2, 3)) > 1e-7
    assert not moved[0] and moved[-1]


def test_the_sides_of_the_game() -> None:
    def score(clip: torch.Tensor) -> torch.Tensor:
        return clip.mean((1, 2, 3, 4))

    certain = torch.full((2, 3, 1, 2, 2), 1.0)
    assert tells(score, certain, -certain) == 0 and tells(score, 3 * certain, -5 * certain) == 0
    assert tells(score, 0 * certain, 0 * certain) == 1
    assert fools(score, certain) == -1 < fools(score, -certain)
