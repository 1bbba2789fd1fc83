"""The training of DP-VAE: its two players, passes that add up, and activations that are computed again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from videodit import models
from videodit.autoencoder.discriminator import Discriminator
from videodit.autoencoder.loss import Weights
from videodit.data import video, worlds
from videodit.data.clips import Clips
from videodit.data.sources import Folder
from videodit.shapes import UserError
from videodit.train import autoencoder, planning, recipes
from videodit.train.autoencoder import AutoencoderRun, Critics
from videodit.train.optimizer import Optimizer
from videodit.train.pixels import Pixels
from videodit.train.step import Checkpoint

CRITICS = Critics(discriminator=Discriminator(width=8, depth=2), start=1)
pytestmark = pytest.mark.usefixtures("one_thread", "unchecked")


@pytest.fixture
def run(world: tiny.World, tmp_path: Path) -> AutoencoderRun:
    run = tiny.runs(world, tmp_path, steps=3)["autoencoder"]
    assert isinstance(run, AutoencoderRun)
    return run


def test_frames_too_small_for_the_discriminator_are_said(run: AutoencoderRun) -> None:
    with pytest.raises(UserError, match="A discriminator of depth 4 sees frames of 48x48 or more, not 32x32"):
        replace(run, weights=Weights(adversarial=0.5), critics=Critics(discriminator=Discriminator(depth=4)))


def test_the_discriminator_is_heard_from_its_start_on(run: AutoencoderRun) -> None:
    first, *rest = recipes.train(replace(run, weights=Weights(adversarial=0.5), critics=CRITICS))
    assert "adversarial" not in first and "discriminator" not in first
    assert all({"adversarial", "discriminator"} <= figures.keys() for figures in rest)
    told = [figures["discriminator"] for figures in rest]
    assert told[0] == pytest.approx(1, abs=0.5) and told[0] != told[1]


def test_the_players_learn_from_their_own_side_alone(run: AutoencoderRun) -> None:
    job = autoencoder.job(replace(run, weights=Weights(adversarial=0.5), critics=replace(CRITICS, start=0)))
    assert job.rival
    job.loss(0, job.batch(0))[0].backward()
    assert all(p.grad is None and p.requires_grad for p in job.rival.network.parameters())
    before = {name: p.grad.clone() for name, p in job.network.named_parameters() if p.grad is not None}
    job.rival.loss()[0].backward()
    assert all(p.grad is not None and p.grad.any() for p in job.rival.network.parameters() if p.ndim > 1)
    assert all(torch.equal(p.grad, before[name]) for name, p in job.network.named_parameters() if p.grad is not None)


def test_passes_add_up_to_a_batch(run: AutoencoderRun) -> None:
    """Only the reconstruction, whose mean over two halves is the mean over the whole, and no noise."""
    plain = replace(run, steps=2, weights=Weights(regulariser=0.0, deviation=0.0))
    whole = recipes.train(replace(plain, batch=2, output=run.output / "whole"))
    halves = recipes.train(replace(plain, batch=1, accumulate=2, output=run.output / "halves"))
    assert [figures["loss"] for figures in halves] == pytest.approx([figures["loss"] for figures in whole], rel=1e-4)
    assert [figures["norm"] for figures in halves] == pytest.approx([figures["norm"] for figures in whole], rel=1e-3)


def test_recomputed_activations_change_nothing(run: AutoencoderRun) -> None:
    causal = replace(run, groups=replace(run.groups, reach="causal"))
    for kind in (replace(run, steps=2), replace(causal, steps=2)):
        kept = recipes.train(replace(kind, output=run.output / "kept" / kind.groups.reach))
        again = recipes.train(replace(kind, output=run.output / "again" / kind.groups.reach, recompute="all"))
        assert kept == again


def test_no_steps_leave_the_start(run: AutoencoderRun) -> None:
    """Every frame of a group is what the image decoder makes of its key frame: a baseline of the table."""
    assert recipes.train(replace(run, steps=0)) == []
    trained = models.load_autoencoder(run.output / "model")
    clip = tiny.grid(1, 3, 8, 32, 32).clamp(-1, 1)
    with torch.no_grad():
        still = trained.decode_image(trained.encode_image(clip[:, :, ::4]).mean).repeat_interleave(4, dim=2)
        torch.testing.assert_close(trained.decode(trained.encode(clip).mean), still, rtol=0, atol=1e-4)


def test_a_discriminator_that_is_not_finite_stops_the_run(run: AutoencoderRun) -> None:
    critics = replace(CRITICS, optimizer=Optimizer(learning_rate=1e30, warmup=0), start=0)
    run = replace(run, weights=Weights(adversarial=0.01), critics=critics, checkpoint=Checkpoint(every=99), steps=6)  # three in a row
    with pytest.raises(UserError, match="not finite"):
        recipes.train(run)
    assert not (run.output / "model").exists()


def test_a_perceptual_weight_needs_a_file(run: AutoencoderRun) -> None:
    with pytest.raises(UserError, match=r"critics.perceptual=FILE, or set weights.perceptual=0"):
        recipes.train(replace(run, weights=Weights(perceptual=0.1)))
    with pytest.raises(UserError, match=r"as loudly as weights.perceptual says, which is 0"):
        replace(run, critics=replace(run.critics, perceptual=Path("lpips.safetensors")), weights=Weights(perceptual=0.0))


def test_files_and_the_toybox_share_the_samples(run: AutoencoderRun, tmp_path: Path) -> None:
    frames = np.full((12, 48, 64, 3), 200, np.uint8)
    (tmp_path / "mine").mkdir()
    video.write(tmp_path / "mine" / "grey.mp4", frames, 8)
    mixed = replace(run, data=Folder(path=tmp_path / "mine"), clips=Clips(share=0.3, side=48))
    drawn = partial(worlds.paced, worlds.world(mixed.world), 0, mixed.size)
    pixels = Pixels(0, mixed.size, mixed.data, mixed.clips, mixed.output, drawn)
    clips = pixels.batch(0, 200)
    grey = (clips - (200 / 127.5 - 1)).abs().amax((1, 2, 3, 4)) < 0.05
    assert 0.2 < grey.float().mean() < 0.4
    assert torch.equal(pixels.batch(7, 1)[0], clips[7])
    assert len(recipes.train(replace(mixed, batch=2, steps=1))) == 1


# --- From another run's ---


def test_a_run_goes_on_from_another_runs_end(run: AutoencoderRun, world: tiny.World, tmp_path: Path) -> None:
    recipes.train(run)
    left = models.load_autoencoder(run.output / "model")
    again = replace(run, start=run.output / "model", output=tmp_path / "again")
    job = autoencoder.job(again)
    assert all(torch.equal(value, left.state_dict()[name]) for name, value in job.network.state_dict().items())
    assert not job.fresh and autoencoder.job(run).fresh  # nothing is new any more
    recipes.train(replace(again, steps=0))
    assert models.load_autoencoder(tmp_path / "again" / "model").state_dict().keys() == left.state_dict().keys()
    for act in (autoencoder.job, planning.plan):
        with pytest.raises(UserError, match=r"set \[groups\] as in its model\.toml"):
            act(replace(again, groups=replace(run.groups, reach="causal")))
        with pytest.raises(UserError, match="was inflated otherwise"):
            act(replace(again, start=world.image_model))
    other = tmp_path / "other"
    tiny.randomised(image := tiny.image_autoencoder())
    image.save_pretrained(other)
    with pytest.raises(UserError, match="another image autoencoder"):
        autoencoder.job(replace(again, image=other))
