"""A transformer is only taken on by an autoencoder whose latents it knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from videodit import backbone, config, models
from videodit.autoencoder import PerFrame, inflate
from videodit.models import Provenance
from videodit.shapes import UserError
from videodit.train import recipes
from videodit.train.backbone import BackboneRun, starting


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


def test_conversions(world: tiny.World, tmp_path: Path) -> None:
    """What a run makes of an image model: global attention without places in time, or copies that learn beside frozen blocks."""
    run = tiny.runs(world, tmp_path, steps=1)["video"]
    assert isinstance(run, BackboneRun)
    autoencoder = models.load_autoencoder(world.autoencoder)
    flat = starting(replace(run, conversion=replace(run.conversion, branch=False)), autoencoder)["backbone"]
    assert flat.video is None and not flat.settings.video
    beside = starting(replace(run, conversion=replace(run.conversion, layout="beside")), autoencoder)["backbone"]
    trained = {name for name, parameter in beside.named_parameters() if parameter.requires_grad}
    assert beside.settings.layout == "beside" and trained and not any(".spatial." in name for name in trained)


def test_a_shape_stands_in_a_presets_place(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["video"]
    assert isinstance(run, BackboneRun)
    wanted = replace(backbone.PRESETS["latte-xl-v4-tiny"], channels=1, variance=True)
    run = replace(run, start=None, backbone=wanted, preset="none of these")
    autoencoder = models.load_autoencoder(world.autoencoder)
    network = starting(run, autoencoder)
    assert network["backbone"].settings == replace(wanted, channels=autoencoder.channels, variance=False)
    assert network["text"].takes == "nothing" and config.parse(recipes.Recipe, config.write(run)) == run
