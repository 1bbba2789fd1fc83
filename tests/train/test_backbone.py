"""A transformer is only taken on by an autoencoder whose latents it knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from videodit import models
from videodit.autoencoder import PerFrame, inflate
from videodit.models import Provenance
from videodit.shapes import UserError
from videodit.train import recipes
from videodit.train.backbone import BackboneRun


def test_a_latent_space_is_that_of_the_image_autoencoder(world: tiny.World) -> None:
    """Whatever was trained beside it, and however it was saved."""
    spaces = {models.latent_space(models.load_autoencoder(folder)) for folder in (world.image_autoencoder, world.autoencoder)}
    spaces |= {models.latent_space(models.load(folder).autoencoder) for folder in (world.image_model, world.video_model)}
    spaces.add(models.latent_space(PerFrame(tiny.image_autoencoder())))
    assert len(spaces) == 1
    other = tiny.image_autoencoder()
    with torch.no_grad():
        other.encoder.conv_in.weight[0, 0, 0, 0] += 0.01
    assert models.latent_space(inflate(other)) not in spaces
    assert models.latent_space(inflate(tiny.image_autoencoder(scaling=0.9))) not in spaces


def test_latents_of_another_autoencoder_are_refused(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["video"]
    assert isinstance(run, BackboneRun)
    other = tiny.image_autoencoder(shift=0.2)
    models.save_autoencoder(tmp_path / "other", inflate(other), Provenance())
    with pytest.raises(UserError, match="have other latents: convert a model of the same image autoencoder"):
        recipes.train(replace(run, autoencoder=tmp_path / "other"))
