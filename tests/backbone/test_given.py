"""Given latents: by extra channels that start at zero, or by the time of their frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import tiny
from videodit import backbone
from videodit.backbone import PRESETS
from videodit.shapes import UserError

NOISY, TIMES = tiny.grid(2, 8, 4, 4, 6), torch.tensor([0.2, 0.9])
WORDS = tiny.text([3, 2])._replace(label=torch.tensor([0, 2]))
FIRST = torch.zeros(2, 1, 4, 4, 6)
FIRST[:, :, 0] = 1
DUAL = replace(PRESETS["toybox-tiny"], text=tiny.TEXT.width, pooled=tiny.TEXT.width, video=True)
SINGLE = replace(PRESETS["latte-xl-v2-tiny"], channels=8, labels=3, variance=False)
KINDS = {"dual": DUAL, "single": SINGLE, "tubes": replace(SINGLE, tube=2)}


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def network(kind: str, given: str) -> nn.Module:
    torch.manual_seed(4)
    made = backbone.build(replace(KINDS[kind], given=given)).eval()
    tiny.randomised(made)
    return made


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_channels_start_as_the_model_without_them(kind: str) -> None:
    plain, told = network(kind, "refused"), backbone.build(replace(KINDS[kind], given="channels")).eval()
    told.load_state_dict(plain.state_dict(), strict=False)
    close(told(NOISY, TIMES, WORDS, FIRST), plain(NOISY, TIMES, WORDS))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_channels_tell_the_mask_and_what_is_under_it(kind: str) -> None:
    model = network(kind, "channels")
    none = model(NOISY, TIMES, WORDS)
    assert torch.equal(model(NOISY, TIMES, WORDS, torch.zeros_like(FIRST)), none)
    assert (model(NOISY, TIMES, WORDS, FIRST) - none).abs().max() > 1e-3
    part = FIRST.clone()
    part[..., 3:] = 0  # half of a frame
    assert (model(NOISY, TIMES, WORDS, part) - model(NOISY, TIMES, WORDS, FIRST)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_by_time_given_frames_stand_at_zero(kind: str) -> None:
    model = network(kind, "time")
    first = FIRST.clone()
    first[:, :, : getattr(KINDS[kind], "tube", 1)] = 1
    frames = first.amax((1, 3, 4)).unflatten(1, (-1, getattr(KINDS[kind], "tube", 1))).amax(2)
    close(model(NOISY, TIMES, WORDS, first), model(NOISY, TIMES[:, None] * (1 - frames), WORDS))
    close(model(NOISY, TIMES, WORDS, torch.zeros_like(first)), model(NOISY, TIMES, WORDS))
    close(model(NOISY, TIMES, WORDS, torch.ones_like(first)), model(NOISY, 0 * TIMES, WORDS))
    with pytest.raises(UserError, match="frames are given whole"):
        model(NOISY, TIMES, WORDS, torch.where(torch.arange(6) < 3, first, 0.0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_is_not_told_refuses(kind: str) -> None:
    with pytest.raises(ValueError, match="takes no given frames"):
        network(kind, "refused")(NOISY, TIMES, WORDS, FIRST)


@torch.no_grad()
def test_the_words_hear_the_noisiest_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the given frames stand."""
    model, heard = network("dual", "time"), []
    assert isinstance(model, backbone.DualTransformer)
    plain = model.blocks[0].text.modulation.forward
    monkeypatch.setattr(model.blocks[0].text.modulation, "forward", lambda signal, tokens: (heard.append(signal), plain(signal, tokens))[1])
    last = FIRST.flip(2)
    for given in (None, FIRST, last, torch.zeros_like(FIRST)):
        model(NOISY, TIMES, WORDS, given)
    for signal in heard[1:]:
        close(signal, heard[0])


HINT = torch.cat([FIRST, tiny.grid(2, 8, 4, 4, 6, seed=8)], dim=1)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_hints_start_as_the_model_without_them_bit_for_bit(kind: str) -> None:
    plain, told = network(kind, "time"), backbone.build(replace(KINDS[kind], given="time", hints=True)).eval()
    told.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(told(NOISY, TIMES, WORDS, hint=HINT), plain(NOISY, TIMES, WORDS))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_hint_is_a_mask_and_what_is_under_it(kind: str) -> None:
    torch.manual_seed(4)
    model = tiny.randomised(backbone.build(replace(KINDS[kind], hints=True)).eval())
    told = model(NOISY, TIMES, WORDS, hint=HINT)
    elsewhere = torch.cat([FIRST, torch.where(FIRST > 0, HINT[:, 1:], 9.0)], dim=1)
    assert torch.equal(model(NOISY, TIMES, WORDS, hint=elsewhere), told)
    assert torch.equal(model(NOISY, TIMES, WORDS, hint=0 * HINT), model(NOISY, TIMES, WORDS))
    for other in (torch.cat([FIRST, HINT[:, 1:] + 1], dim=1), torch.cat([FIRST, 0 * HINT[:, 1:]], dim=1), 0 * HINT):
        assert (model(NOISY, TIMES, WORDS, hint=other) - told).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_without_hints_refuses_them(kind: str) -> None:
    with pytest.raises(ValueError, match="takes no hints"):
        network(kind, "time")(NOISY, TIMES, WORDS, hint=HINT)


# --- What a picture shows ---

READING = {"dual": DUAL, "single": replace(SINGLE, text=tiny.TEXT.width, labels=0)}
SHOWN = WORDS._replace(picture=tiny.grid(2, 5))


@pytest.mark.parametrize("kind", READING)
@torch.no_grad()
def test_what_a_picture_shows_starts_as_nothing_bit_for_bit_and_is_then_told_to_the_words(kind: str) -> None:
    torch.manual_seed(4)
    plain = tiny.randomised(backbone.build(READING[kind]).eval())
    model = backbone.build(replace(READING[kind], picture=5)).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    expected = plain(NOISY, TIMES, WORDS)
    assert torch.equal(model(NOISY, TIMES, SHOWN), expected) and torch.equal(model(NOISY, TIMES, WORDS), expected)
    tiny.randomised(model.picture)
    told = model(NOISY, TIMES, SHOWN)
    assert torch.equal(model(NOISY, TIMES, WORDS), expected)  # without a picture nothing changes, whatever was learnt
    assert (told - expected).flatten(1).abs().amax(1).min() > 1e-3
    other = SHOWN._replace(picture=torch.cat([SHOWN.picture[:1], -SHOWN.picture[1:]]))
    again = model(NOISY, TIMES, other)
    close(again[:1], told[:1])
    assert (again[1] - told[1]).abs().max() > 1e-3  # each clip its own


@pytest.mark.parametrize("kind", READING)
def test_every_weight_of_it_learns(kind: str) -> None:
    model = tiny.randomised(backbone.build(replace(READING[kind], picture=5)))
    model(NOISY, TIMES, SHOWN).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.picture.parameters())


def test_a_picture_needs_words_and_a_network_that_is_shown_it() -> None:
    with pytest.raises(UserError, match="is told to the words, and this transformer sees none"):
        replace(SINGLE, picture=5)
    with pytest.raises(ValueError, match="is shown no pictures"):
        network("dual", "time")(NOISY, TIMES, SHOWN)
