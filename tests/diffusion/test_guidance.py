"""Guidance: 1 is the plain prediction, 0 the one without text, and all else is on the line through both."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tiny
from videodit.diffusion.guidance import guided
from videodit.shapes import Text

NOISY, TIMES = tiny.grid(3, 8, 2, 4, 4), torch.tensor([0.9, 0.5, 0.1])
WORDS, BLANK = tiny.text([4, 2, 3]), tiny.text([4, 1, 1], seed=8)


@pytest.fixture(scope="module")
def network():
    return tiny.transformer()


@torch.no_grad()
def test_one_is_the_plain_prediction(network) -> None:
    assert torch.equal(guided(network, WORDS, BLANK, 1.0)(NOISY, TIMES), network(NOISY, TIMES, WORDS))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0 + 1e-6, 7.5])
@torch.no_grad()
def test_the_scale(network, scale: float) -> None:
    plain, blank = network(NOISY, TIMES, WORDS), network(NOISY, TIMES, BLANK)
    assert (plain - blank).abs().max() > 1e-2
    torch.testing.assert_close(guided(network, WORDS, BLANK, scale)(NOISY, TIMES), blank + scale * (plain - blank), rtol=1e-4, atol=1e-4)


def test_the_network_is_asked_once_a_step() -> None:
    asked: list[Text] = []

    def network(noisy: Tensor, t: Tensor, text: Text) -> Tensor:
        asked.append(text)
        return noisy

    for scale, clips in ((1.0, 3), (2.0, 6)):
        guided(network, WORDS._replace(mask=None), BLANK._replace(mask=None), scale)(NOISY, TIMES)
        text = asked.pop()
        assert not asked and text.pooled is not None and len(text.pooled) == clips and text.mask is None
