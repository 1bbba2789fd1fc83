"""What the decoder makes of the expected clip."""

from __future__ import annotations

import pytest
import torch

from videodit.autoencoder import DPVAESettings, PerFrame, inflate
from videodit.autoencoder.presets import ImageAutoencoder
from videodit.diffusion.objectives import Diffusion, Flow
from videodit.shapes import UserError
from videodit.train.decoded import Decoded

IMAGE = ImageAutoencoder(widths=(8, 16, 16), layers=1, latent_channels=4, groups=4)


@pytest.fixture
def autoencoder():
    torch.manual_seed(0)
    return inflate(IMAGE.build(), DPVAESettings(time=2))


@pytest.mark.parametrize("objective", [Flow(), Diffusion(), Diffusion(prediction="v"), Diffusion(variance=True)])
def test_the_right_answer_expects_the_data(objective) -> None:
    clean, noise, t = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 4, 3, 4, 4), torch.tensor([0.2, 0.7])
    answer = objective.target(clean, noise, t)
    answer = torch.cat([answer, torch.randn_like(answer)], dim=1) if objective.variance else answer
    torch.testing.assert_close(objective.expected(answer, objective.corrupt(clean, noise, t), t), clean, atol=1e-5, rtol=1e-5)


def test_what_is_right_misses_nothing_and_what_is_wrong_by_its_share(autoencoder) -> None:
    clean, t = torch.randn(3, 4, 2, 4, 4), torch.tensor([0.1, 0.5, 0.7])
    look = Decoded(weight=2.0, stages=1).of(autoencoder)
    assert look is not None
    assert look(clean, clean, t)[0] == 0
    wrong = clean + 0.1 * torch.randn_like(clean)
    error, told = look(wrong, clean, t)
    first = [autoencoder.decoder.stages[0](autoencoder._raw(x)) for x in (wrong, clean)]  # the first stage, by hand
    torch.testing.assert_close(told["decoded"], (first[0] - first[1]).square().mean() / first[1].var())
    torch.testing.assert_close(error, 2 * told["decoded"])


def test_features_end_as_the_decoder_does(autoencoder) -> None:
    latents = torch.randn(1, 4, 2, 4, 4)
    *_, last = autoencoder.decode_features(latents, len(autoencoder.decoder.stages))
    rest = autoencoder.decoder
    torch.testing.assert_close(rest.conv_out(torch.nn.functional.silu(rest.norm(last))), autoencoder.decode_step(latents))


def test_clips_that_are_too_noisy_are_not_looked_at(autoencoder) -> None:
    clean = torch.randn(3, 4, 2, 4, 4)
    expected = (clean + torch.randn_like(clean)).requires_grad_()
    settings = Decoded(weight=1.0, clips=1, most=0.6)
    look = settings.of(autoencoder)
    assert look is not None
    error, told = look(expected, clean, torch.tensor([0.9, 0.5, 0.3]))
    error.backward()
    assert expected.grad is not None and told
    assert [bool(part.any()) for part in expected.grad] == [False, True, False]
    nothing, told = look(expected, clean, torch.tensor([[0.1, 0.9], [0.7, 0.7], [0.8, 0.1]]))
    assert nothing == 0 and not told


def test_the_decoder_itself_does_not_learn(autoencoder) -> None:
    Decoded(weight=1.0).of(autoencoder)
    assert not any(parameter.requires_grad for parameter in autoencoder.parameters())


def test_what_has_no_decoder_of_clips_is_refused() -> None:
    with pytest.raises(UserError, match="DP-VAE"):
        Decoded(weight=1.0).of(PerFrame(IMAGE.build()))
    assert Decoded().of(PerFrame(IMAGE.build())) is None
