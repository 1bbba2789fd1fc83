"""Models that are told a label or nothing are whole models: they train, are saved, load and generate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import tiny
import videodit
from videodit import models
from videodit.cli.main import main
from videodit.data import toybox
from videodit.data.labels import Labels, LabelSettings
from videodit.shapes import Text, UserError
from videodit.train import planning, recipes
from videodit.train.backbone import BackboneRun

pytestmark = pytest.mark.usefixtures("unchecked")


def trained(world: tiny.World, folder: Path, preset: str, **changes: object) -> Path:
    """The model that two steps leave."""
    run = tiny.runs(world, folder, steps=2)["video from nothing"]
    assert isinstance(run, BackboneRun)
    run = replace(run, preset=preset, output=folder / preset, **changes)
    assert planning.plan(run)["trained"] == models.parameters(recipes.JOBS["backbone"](run).network)
    recipes.train(run)
    return run.output / "model"


def test_a_model_that_is_told_nothing(world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(world, tmp_path, "latte-xl-v2-tiny")
    model = videodit.load(folder)
    assert model.takes == models.read(folder, models.ModelFolder)[1].takes == "nothing"
    one, other = model.generate(seed=1), model.generate(seed=2)
    assert one.shape == (*tiny.CLIP, 3) and (one != other).any() and (one == model.generate("", seed=1)).all()
    with pytest.raises(UserError, match="told nothing: leave the prompt out"):
        model.generate("a red circle")
    assert main(["generate", "--model", str(folder), "-o", str(tmp_path / "a.mp4"), "--num", "2"]) == 0
    assert (tmp_path / "a-001.mp4").is_file()
    assert main(["generate", "--model", str(folder), "--label", "left", "-o", str(tmp_path / "b.mp4")]) == 2
    assert "--label is for models that take labels; this one takes nothing" in capsys.readouterr().err


def test_a_model_that_is_told_a_label(world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(world, tmp_path, "dit-xl-2-tiny", labels="shape")
    model = videodit.load(folder)
    settings = models.read(folder, models.ModelFolder)[1]
    assert model.takes == "label" and settings.text == LabelSettings(names=tuple(toybox.SHAPES))
    tiny.randomised(model.model.backbone)
    one, other = (model.generate(name, seed=1) for name in ("circle", "star"))
    assert one.shape == (*tiny.CLIP, 3) and (one != other).any()
    for wrong, said in (("a red circle", "There is no label 'a red circle': use one of circle, square"), ("", "give the name of one")):
        with pytest.raises(UserError, match=said):
            model.generate(wrong)
    assert main(["generate", "--model", str(folder), "--label", "star", "-o", str(tmp_path / "a.mp4")]) == 0
    assert main(["generate", "--model", str(folder), "--label", "sun", "-o", str(tmp_path / "b.mp4")]) == 2
    assert "There is no label 'sun'" in capsys.readouterr().err


def test_a_text_model_wants_a_prompt(world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for said, words in (([], "The prompt is empty"), (["--label", "star"], "this one takes text")):
        assert main(["generate", "--model", str(world.video_model), *said, "-o", str(tmp_path / "a.mp4")]) == 2
        assert words in capsys.readouterr().err


def test_labels_and_the_blank() -> None:
    labels = Labels(LabelSettings(names=("up", "down")))
    told = labels(["down", "", "up"]).label
    assert told is not None and told.tolist() == [1, 2, 0]
    assert Labels(LabelSettings())(["", ""]) == Text()
