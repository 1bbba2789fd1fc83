"""What the decoder makes of the expected clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from videodit.autoencoder import DPVAE, PerFrame
from videodit.data.buckets import Packed
from videodit.diffusion.objectives import Diffusion, Flow
from videodit.shapes import UserError
from videodit.train import outlines, recipes
from videodit.train.backbone import BackboneRun, Joint
from videodit.train.decoded import Decoded


@pytest.fixture
def autoencoder() -> DPVAE:
    return tiny.dpvae(2, trained=True)


def latents(autoencoder: DPVAE, clips: int = 3) -> torch.Tensor:
    return tiny.grid(clips, autoencoder.channels, 2, 4, 4)


@pytest.mark.parametrize("objective", [Flow(), Diffusion(), Diffusion(prediction="v"), Diffusion(variance=True)])
def test_the_right_answer_expects_the_data(objective) -> None:
    clean, noise, t = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 4, 3, 4, 4), torch.tensor([0.2, 0.7])
    answer = objective.target(clean, noise, t)
    answer = torch.cat([answer, torch.randn_like(answer)], dim=1) if objective.variance else answer
    torch.testing.assert_close(objective.expected(answer, objective.corrupt(clean, noise, t), t), clean, atol=1e-5, rtol=1e-5)


def test_what_is_right_misses_nothing_and_what_is_wrong_by_its_share(autoencoder) -> None:
    clean, t = latents(autoencoder), torch.tensor([0.1, 0.5, 0.7])
    look = Decoded(weight=2.0, stages=1).of(autoencoder)
    assert look is not None
    assert look(clean, clean, t)[0] == 0
    wrong = clean + 0.1 * torch.randn_like(clean)
    error, told = look(wrong, clean, t)
    first = [autoencoder.decoder.stages[0](autoencoder._raw(x)) for x in (wrong, clean)]  # the first stage, by hand
    torch.testing.assert_close(told["decoded"], (first[0] - first[1]).square().mean() / first[1].var())
    torch.testing.assert_close(error, 2 * told["decoded"])


def test_features_end_as_the_decoder_does(autoencoder) -> None:
    z = latents(autoencoder)
    rest = autoencoder.decoder
    *_, last = autoencoder.decode_features(z, len(rest.stages))
    torch.testing.assert_close(rest.conv_out(torch.nn.functional.silu(rest.norm(last))), autoencoder.decode_step(z))


def test_clips_that_are_too_noisy_are_not_looked_at(autoencoder) -> None:
    clean = latents(autoencoder)
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
        Decoded(weight=1.0).of(PerFrame(tiny.image_autoencoder()))
    assert Decoded().of(PerFrame(tiny.image_autoencoder())) is None


# --- In a run ---


@pytest.mark.usefixtures("unchecked")
def test_a_run_learns_from_the_decoder_too(world: tiny.World, tmp_path: Path) -> None:
    plain = tiny.runs(world, tmp_path, steps=1)["video"]
    assert isinstance(plain, BackboneRun)
    plain = replace(plain, joint=Joint(video_probability=1.0), precision="fp32")
    run = replace(plain, decoded=Decoded(weight=3.0, clips=2, most=1.0))
    jobs = [recipes.JOBS["backbone"](one) for one in (plain, run)]
    for job in jobs:
        tiny.randomised(job.network["backbone"])
    batch = jobs[0].batch(0)
    (before, _), (after, figures) = (job.loss(0, batch) for job in jobs)
    torch.testing.assert_close(after - before, 3 * figures["decoded"])
    assert figures["decoded"] > 0
    after.backward()
    learns = [name for name, parameter in jobs[1].network.named_parameters() if parameter.grad is not None and parameter.grad.any()]
    assert any(name.startswith("backbone.blocks") for name in learns) and not any("decoder" in name for name in learns)


@pytest.mark.usefixtures("unchecked")
def test_a_run_of_it_is_planned_and_trains(world: tiny.World, tmp_path: Path) -> None:
    plain = tiny.runs(world, tmp_path, steps=2)["video"]
    assert isinstance(plain, BackboneRun)
    run = replace(plain, joint=Joint(video_probability=1.0), decoded=Decoded(weight=1.0, most=1.0))
    assert all("decoded" in figures for figures in recipes.train(run))
    planned = []
    for one in (run, replace(run, decoded=Decoded())):
        torch.manual_seed(0)
        planned.append(outlines.outline(one, []).passes[-1][1]())
    assert planned[0] > planned[1]  # the same pass of clips, and what D makes of some
    with pytest.raises(UserError, match=r"sizes\.kind"):
        replace(run, sizes=Packed(tokens=64))
