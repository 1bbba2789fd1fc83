"""Guidance: 1 is the plain prediction, 0 the one without text, and all else is on the line through both."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tiny
from videodit.diffusion.guidance import Guidance, guided
from videodit.shapes import Text, UserError

NOISY, TIMES = tiny.grid(3, 8, 2, 4, 4), torch.tensor([0.9, 0.5, 0.1])
WORDS, BLANK = tiny.text([4, 2, 3]), tiny.text([4, 1, 1], seed=8)


@pytest.fixture(scope="module")
def network():
    return tiny.transformer()


def untold(noisy: Tensor, t: Tensor, text: Text) -> Tensor:
    """Stands for the network without what is given."""
    assert text.pooled is not None
    return noisy.sin() + text.pooled.mean()


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_one_is_the_plain_prediction(network) -> None:
    assert torch.equal(guided(network, WORDS, BLANK, Guidance(scale=1.0))(NOISY, TIMES), network(NOISY, TIMES, WORDS))


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0 + 1e-6, 7.5])
@torch.no_grad()
def test_the_scale(network, scale: float, batched: bool) -> None:
    plain, blank = network(NOISY, TIMES, WORDS), network(NOISY, TIMES, BLANK)
    assert (plain - blank).abs().max() > 1e-2
    close(guided(network, WORDS, BLANK, Guidance(scale=scale, batched=batched))(NOISY, TIMES), blank + scale * (plain - blank))


@torch.no_grad()
def test_what_is_given_has_a_scale_of_its_own(network) -> None:
    guidance = Guidance(scale=4.0, images=2.5)
    told, blank, nothing = network(NOISY, TIMES, WORDS), network(NOISY, TIMES, BLANK), untold(NOISY, TIMES, BLANK)
    wanted = nothing + 2.5 * (blank - nothing) + 4 * (told - blank)
    for batched in (True, False):
        mixed = guided(network, WORDS, BLANK, Guidance(scale=4.0, images=2.5, batched=batched), untold=untold)
        close(mixed(NOISY, TIMES), wanted)
    close(guided(network, WORDS, BLANK, guidance)(NOISY, TIMES), blank + 4 * (told - blank))  # where nothing is given


@torch.no_grad()
def test_joint_guidance_leaves_out_text_and_what_is_given_together(network) -> None:
    told, nothing = network(NOISY, TIMES, WORDS), untold(NOISY, TIMES, BLANK)
    field = guided(network, WORDS, BLANK, Guidance(scale=3.0, joint=True), untold=untold)
    close(field(NOISY, TIMES), nothing + 3 * (told - nothing))


@torch.no_grad()
def test_outside_its_interval_there_is_no_guidance(network) -> None:
    field = guided(network, WORDS, BLANK, Guidance(scale=3.0, start=0.8, stop=0.3))
    for t, guides in ((0.9, False), (0.79, True), (0.31, True), (0.2, False)):
        times = torch.full((3,), t)
        same = torch.equal(field(NOISY, times), network(NOISY, times, WORDS))
        assert same != guides


@torch.no_grad()
def test_of_times_that_differ_those_inside_are_guided(network) -> None:
    """A queue of frames holds every time at once."""
    times = torch.linspace(0.5, 1.0, NOISY.shape[2]).repeat(len(NOISY), 1)
    inside = ((times >= 0.3) & (times <= 0.8))[:, None, :, None, None].expand_as(NOISY)
    assert inside.any() and not inside.all()
    for rescale in (0.0, 0.5):
        some = guided(network, WORDS, BLANK, Guidance(scale=3.0, start=0.8, stop=0.3, rescale=rescale))(NOISY, times)
        every = guided(network, WORDS, BLANK, Guidance(scale=3.0, rescale=rescale))(NOISY, times)
        plain = network(NOISY, times, WORDS)
        assert torch.equal(some[inside], every[inside]) and (some[inside] - plain[inside]).abs().max() > 1e-2
        close(some[~inside], plain[~inside])


@torch.no_grad()
def test_rescaling_sets_the_deviation_back(network) -> None:
    plain = network(NOISY, TIMES, WORDS)
    whole = guided(network, WORDS, BLANK, Guidance(scale=6.0, rescale=1.0))(NOISY, TIMES)
    free = guided(network, WORDS, BLANK, Guidance(scale=6.0))(NOISY, TIMES)
    half = guided(network, WORDS, BLANK, Guidance(scale=6.0, rescale=0.5))(NOISY, TIMES)
    close(whole.std((1, 2, 3, 4)), plain.std((1, 2, 3, 4)))
    close(half, (whole + free) / 2)


@torch.no_grad()
def test_a_projected_push_stands_at_right_angles_to_the_clean_prediction(network) -> None:
    plain = network(NOISY, TIMES, WORDS)
    free, flat, half = (guided(network, WORDS, BLANK, Guidance(scale=4.0, along=a))(NOISY, TIMES) - plain for a in (1.0, 0.0, 0.5))
    clean = NOISY - TIMES.view(3, 1, 1, 1, 1) * plain
    cosine = torch.cosine_similarity(flat.flatten(1), clean.flatten(1))
    assert cosine.abs().max() < 1e-4 and torch.cosine_similarity(free.flatten(1), clean.flatten(1)).abs().max() > 1e-2
    close(half, (free + flat) / 2)
    short = guided(network, WORDS, BLANK, Guidance(scale=4.0, longest=0.01))(NOISY, TIMES) - plain
    close(short.square().mean((1, 2, 3, 4)).sqrt(), torch.full((3,), 0.01))
    close(torch.cosine_similarity(short.flatten(1), free.flatten(1)), torch.ones(3))


def test_the_network_is_asked_once_a_step_unless_told_otherwise() -> None:
    asked: list[Text] = []

    def network(noisy: Tensor, t: Tensor, text: Text) -> Tensor:
        asked.append(text)
        return noisy

    words, blank = WORDS._replace(mask=None), BLANK._replace(mask=None)
    for guidance, clips in ((Guidance(scale=1.0), [3]), (Guidance(scale=2.0), [6]), (Guidance(scale=2.0, batched=False), [3, 3])):
        guided(network, words, blank, guidance)(NOISY, TIMES)
        assert [len(text.pooled) for text in asked if text.pooled is not None] == clips and all(text.mask is None for text in asked)
        asked.clear()


def test_what_a_network_says_of_its_variance_is_not_guided() -> None:
    def network(noisy: Tensor, t: Tensor, text: Text) -> Tensor:
        assert text.pooled is not None
        return torch.cat([noisy, noisy * 0 + text.pooled.mean((1,)).view(-1, 1, 1, 1, 1)], dim=1)

    answer = guided(network, WORDS, BLANK, Guidance(scale=5.0))(NOISY, TIMES)
    assert torch.equal(answer[:, 8:], network(NOISY, TIMES, WORDS)[:, 8:]) and answer.shape[1] == 16


@pytest.mark.parametrize(
    "wrong", [{"scale": -1.0}, {"images": 101.0}, {"start": 0.2, "stop": 0.4}, {"rescale": 2.0}, {"joint": True, "images": 2.0}]
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match="guidance"):
        Guidance(**wrong)
