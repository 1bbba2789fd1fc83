"""Clips that share a sequence are what they are alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tiny
from videodit.shapes import Size, UserError

SIZES = (Size(1, 4, 4), Size(3, 2, 6), Size(2, 8, 4), Size(1, 2, 2))
T = torch.tensor([0.2, 0.9, 0.5, 0.0])


def clips(channels: int) -> list[Tensor]:
    return [tiny.grid(channels, *size, seed=i) for i, size in enumerate(SIZES)]


def masks(frames: tuple[int, ...] = (0, 2, 1, 0)) -> list[Tensor]:
    """So many first frames given of each clip."""
    made = [torch.zeros(1, *size) for size in SIZES]
    for mask, count in zip(made, frames, strict=True):
        mask[:, :count] = 1
    return made


@pytest.mark.parametrize("given", [None, "time", "channels"])
def test_loss_and_gradients_are_those_of_clips_alone(given: str | None) -> None:
    network = tiny.transformer(twice=1, given=given or "refused")
    x, text, told = clips(network.settings.channels), tiny.text([3, 1, 5, 2]), masks() if given else None
    together = network(x, T, text, told)
    alone = [
        network(x[i][None], T[i : i + 1], text.map(lambda field, i=i: field[i : i + 1]), told[i][None] if told else None)[0]
        for i in range(len(x))
    ]
    losses, gradients = [], []
    for said in (together, alone):
        network.zero_grad()
        loss = torch.stack([(one - clean.sin()).square().mean() for one, clean in zip(said, x, strict=True)]).sum()
        loss.backward()
        losses.append(loss.item())
        gradients.append([None if p.grad is None else p.grad.clone() for p in network.parameters()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(together, alone, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one - other).abs().max() <= 1e-5 * max(1.0, other.abs().max().item())


def test_no_clip_hears_another() -> None:
    network = tiny.transformer()
    x, text = clips(network.settings.channels), tiny.text([3, 1, 5, 2])
    before = network(x, T, text)
    assert text.sequence is not None and text.pooled is not None
    x[1] = x[1] + 1
    sequence, pooled, t = text.sequence.clone(), text.pooled.clone(), T.clone()
    sequence[1] += 1
    pooled[1] += 1
    t[1] = 0.1
    after = network(x, t, text._replace(sequence=sequence, pooled=pooled))
    for i in range(len(x)):
        assert torch.equal(before[i], after[i]) == (i != 1)


def test_layouts_that_take_no_packed_clips_say_so() -> None:
    network = tiny.transformer(layout="spatial")
    with pytest.raises(UserError, match="with the layout spatial give them one by one"):
        network(clips(network.settings.channels), T, tiny.text([3, 1, 5, 2]))


@pytest.mark.parametrize("told", ["hint", "when", "picture"])
def test_what_packed_clips_cannot_be_told_is_said(told: str) -> None:
    network = tiny.transformer(hints=True, picture=tiny.SIGHT)
    channels, text = network.settings.channels, tiny.text([3, 1, 5, 2])
    how = {"hint": {"hint": tiny.grid(4, 1 + channels, 2, 4, 4)}, "when": {"when": [0, 2]}}.get(told, {})
    text = text._replace(picture=tiny.grid(4, tiny.SIGHT)) if told == "picture" else text
    with pytest.raises(UserError, match="give them one by one"):
        network(clips(channels), T, text, **how)
