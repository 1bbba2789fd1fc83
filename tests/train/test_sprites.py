"""Runs that draw the sprites, from a folder of generated pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from videodit import config, models
from videodit.data import worlds
from videodit.data.sources import Sprites
from videodit.data.text import TextEncoder
from videodit.data.things import THINGS
from videodit.shapes import UserError
from videodit.train import recipes, starting
from videodit.train.backbone import BackboneRun
from videodit.train.looks import Looks

pytestmark = pytest.mark.usefixtures("two_threads", "unchecked")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sprites:
    monkeypatch.setattr(worlds, "SPOKEN", 60)
    folder = tmp_path / "things"
    folder.mkdir()
    for number, noun in enumerate(THINGS):
        Image.new("RGBA", (9, 9), (number, 200, 255 - number, 255)).save(folder / f"{noun}.png")
    return Sprites(font=folder)


@pytest.mark.parametrize("kind", ["image-autoencoder", "autoencoder"])
def test_autoencoders_learn_from_sprites(kind: str, source: Sprites, world: tiny.World, tmp_path: Path) -> None:
    run = next(run for run in tiny.runs(world, tmp_path, steps=2).values() if run.kind == kind)
    plain, drawn = (recipes.JOBS[kind](settings) for settings in (run, replace(run, world=source)))
    assert not plain.batch(0).equal(drawn.batch(0)) and drawn.batch(1).equal(drawn.batch(1))
    assert drawn.loss(0, drawn.batch(0))[0].isfinite()


def test_a_transformer_learns_from_sprites(source: Sprites, world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=2)["video from nothing"]
    assert isinstance(run, BackboneRun)
    run = replace(run, data=source, clips=4, pictures=4, text=replace(tiny.TEXT, length=128))
    looks = Looks(every=2, clips=2, held=2)
    *_, last = recipes.train(replace(run, looks=looks))
    assert {"judged [object]", "judged [background]", "judged [all]", "held"} <= last.keys() and np.isfinite(last["loss"])
    made = models.load(run.output / "model")
    assert made.settings.provenance.sources == (worlds.origin(source),) and "licence is not known" in worlds.origin(source)
    spoken = made.text
    assert isinstance(spoken, TextEncoder) and spoken.unknown_words("the background") != ["the", "background"]
    with pytest.raises(UserError, match="have no colour each: set labels to motion or shape"):
        starting.names(replace(run, labels="colour"))


def test_a_run_file_names_the_font(tmp_path: Path) -> None:
    text = 'kind = "image-autoencoder"\noutput = "out"\n'
    run = config.parse(recipes.Recipe, text, ["world.kind=sprites", f"world.font={tmp_path}"])
    assert run.world == Sprites(font=tmp_path) and config.parse(recipes.Recipe, config.write(run)) == run
