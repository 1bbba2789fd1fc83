"""What the training of the image autoencoder does to latents and pictures alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from videodit import models
from videodit.shapes import Size, UserError
from videodit.train import recipes
from videodit.train.image_autoencoder import ImageAutoencoderRun, changed_alike, shape, started


def test_a_picture_and_its_own_shrunken_copy_change_alike() -> None:
    """A smooth picture and its means over 2x2 places stay what they are to each other."""
    ramp = torch.linspace(-1, 1, 32)
    picture = (ramp[:, None] + 0.5 * ramp).expand(1, 3, 1, 32, 32).contiguous()
    means = torch.nn.functional.avg_pool2d(picture[:, :, 0], 4)[:, :, None]
    seen = set()
    for seed in range(60):
        large, small = changed_alike(torch.Generator().manual_seed(seed), picture, means)
        extent = small.shape[-1]
        assert large.shape[-2:] == (4 * extent, 4 * extent)
        pooled = torch.nn.functional.avg_pool2d(large[:, :, 0], 4)[:, :, None]
        torch.testing.assert_close(pooled[..., 1:-1, 1:-1], small[..., 1:-1, 1:-1], rtol=0, atol=0.02)
        seen.add((extent, bool(small[0, 0, 0, 0, 0] < small[0, 0, 0, -1, -1]), bool(small[0, 0, 0, 0, -1] < small[0, 0, 0, -1, 0])))
    assert {extent for extent, *_ in seen} == {4, 6, 8} and len(seen) == 12  # every size, every turn


@pytest.mark.usefixtures("one_thread", "unchecked")
def test_it_is_a_part_of_the_steps(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=4)["image-autoencoder"]
    assert isinstance(run, ImageAutoencoderRun)
    plain, half, always = (
        [figures["loss"] for figures in recipes.train(replace(run, equivariance=part, output=tmp_path / str(part)))]
        for part in (0.0, 0.5, 1.0)
    )
    assert plain != half != always != plain and all(loss > 0 for loss in plain + half + always)


def test_it_goes_on_from_weights_that_are_there(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["image-autoencoder"]
    assert isinstance(run, ImageAutoencoderRun)
    bundled = models.load_autoencoder("toybox").image.state_dict()
    image = started(replace(run, start="toybox", preset="toybox"))
    assert all(torch.equal(value, bundled[name]) for name, value in image.state_dict().items())
    assert (image.config["scaling_factor"], image.config["shift_factor"]) == (1.0, 0.0)  # as the run leaves them to be found
    assert not all(torch.equal(value, bundled[name]) for name, value in started(replace(run, preset="toybox")).state_dict().items())
    with pytest.raises(UserError, match="another shape than the preset 'tiny'"):
        started(replace(run, start="toybox", preset="tiny"))


@pytest.mark.usefixtures("one_thread", "unchecked")
def test_the_latents_of_every_average_are_normalised_by_their_own_moments(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["image-autoencoder"]
    for name, averages in (("one", ()), ("two", (0.5,))):
        recipes.train(replace(run, averages=averages, output=tmp_path / name))
    alone, beside = (models.load_autoencoder(tmp_path / name / "model").image.config for name in ("one", "two"))
    assert beside["scaling_factor"] == alone["scaling_factor"] != 1 and beside["shift_factor"] == alone["shift_factor"]


def test_sizes_that_do_not_fit_are_said_before_the_first_step(tmp_path: Path) -> None:
    run = ImageAutoencoderRun(output=tmp_path, preset="tiny", size=Size(1, 24, 32))
    shape(run)
    for size in (Size(1, 24, 32), Size(3, 32, 32)):
        with pytest.raises(UserError, match="multiples of 32, or set equivariance=0"):
            shape(replace(run, size=size, equivariance=0.5))
    with pytest.raises(UserError, match="20 rows do not fit: use 16 or 24"):
        shape(replace(run, size=Size(1, 20, 32)))
