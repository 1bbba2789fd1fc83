"""The gauge of what is left of the image model."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import tiny
from videodit import adapters, models
from videodit.adapters import LoRA
from videodit.data import toybox
from videodit.data.sources import Folder
from videodit.shapes import Text
from videodit.train import recipes
from videodit.train.backbone import BackboneRun, Joint
from videodit.train.optimizer import Optimizer
from videodit.train.retention import KEPT, TIMES, Questions, Retention, keep, kept
from videodit.train.step import Figures

pytestmark = pytest.mark.usefixtures("unchecked", "one_thread")
ASKED = Questions(tiny.grid(3, 8, 1, 4, 4), tiny.text([3, 2, 4]))


def test_it_is_zero_at_the_start_and_grows_with_the_weights() -> None:
    network = tiny.transformer()
    gauge = Retention(network, lambda net, x, t, text: net(x, t, text), ASKED)
    assert gauge.drift(network) == 0 and gauge.noisy.shape[0] == 3 * len(TIMES)
    drifts = []
    for size in (1e-3, 1e-2):
        changed = tiny.transformer()
        tiny.randomised(changed, seed=5, size=size)
        drifts.append(float(gauge.drift(changed)))
    assert 0 < drifts[0] < drifts[1]
    silent = tiny.transformer()
    nn.init.zeros_(silent.out.weight)
    nn.init.zeros_(silent.out.bias)
    torch.testing.assert_close(gauge.drift(silent), torch.tensor(1.0))


def test_it_is_the_same_whatever_is_left_out_while_adapters_learn() -> None:
    network = tiny.transformer()
    adapters.attach(network, LoRA(rank=2, dropout=0.5, names=("blocks.*",)))
    gauge = Retention(network.train(), lambda net, x, t, text: net(x, t, text), ASKED)
    tiny.randomised(network)
    assert gauge.drift(network) == gauge.drift(network) > 0 and network.training


def test_a_run_logs_it_and_is_the_same_with_and_without(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=5)["video"]
    assert isinstance(run, BackboneRun)
    fast = replace(run, joint=Joint(video_probability=0.5), optimizer=Optimizer(learning_rate=1e-2, warmup=0))
    told = recipes.train(replace(fast, output=tmp_path / "told", retention=2))
    silent = recipes.train(replace(fast, output=tmp_path / "silent", retention=0))
    drifts = [figures.get("image_drift") for figures in told]
    assert drifts[0] == 0 and drifts[1] is drifts[3] is None and drifts[2] > 0 and drifts[4] > 0
    assert [figures["loss"] for figures in told] == [figures["loss"] for figures in silent]


class CtrlC:
    """In the second step."""

    def step(self, step: int, total: int, figures: Figures) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_it_goes_on_where_a_run_was_stopped(world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the model and the pictures that the run began with, although both are others by then."""
    mine, start = tmp_path / "mine", Path(shutil.copytree(world.image_model, tmp_path / "start"))
    mine.mkdir()
    for number in range(3):
        picture(mine / f"b{number}.png", number)
    run = tiny.runs(world, tmp_path, steps=4)["image"]
    assert isinstance(run, BackboneRun)
    run = replace(run, start=start, data=Folder(path=mine), retention=1, optimizer=Optimizer(learning_rate=1e-2, warmup=0))
    straight = recipes.train(replace(run, output=tmp_path / "straight"))
    cut, later = (replace(run, output=tmp_path / name) for name in ("cut", "later"))
    with pytest.raises(recipes.Interrupted):
        recipes.train(cut, CtrlC())
    for name in ("later", "damaged"):
        shutil.copytree(cut.output, tmp_path / name)
    assert recipes.train(cut) == straight[2:] and straight[3]["image_drift"] > straight[1]["image_drift"] > 0
    assert (cut.output / KEPT).read_bytes() == (tmp_path / "straight" / KEPT).read_bytes()

    other = models.load(world.image_model)
    tiny.randomised(other.backbone, seed=9)
    shutil.rmtree(start)
    models.save(start, other)
    picture(mine / "a.png", 9)  # which comes first of all
    assert recipes.train(later)[0]["image_drift"] == straight[2]["image_drift"]
    (tmp_path / "damaged" / KEPT).write_bytes(b"nothing")
    anew = recipes.train(replace(later, output=tmp_path / "damaged", steps=3))
    assert anew[0]["image_drift"] != straight[2]["image_drift"] and "image_drift is measured anew" in capsys.readouterr().err
    afresh = recipes.train(replace(later, output=tmp_path / "afresh", steps=1))
    assert afresh[0]["image_drift"] == 0


def picture(path: Path, number: int) -> None:
    Image.fromarray(toybox.picture(7, number, tiny.PICTURE).video[0]).save(path)
    path.with_suffix(".txt").write_text(f"a picture {number}\n")


@pytest.mark.parametrize(
    "words", [Text(label=torch.tensor([1, 0, 2])), Text(), tiny.text([3, 2, 4])._replace(mask=None), tiny.text([3, 2, 4])]
)
def test_questions_come_back_as_they_were(words: Text, tmp_path: Path) -> None:
    asked = Questions(tiny.grid(3, 8, 1, 4, 4), words, torch.ones(9))
    assert kept(tmp_path) is None
    keep(asked, tmp_path)
    found = kept(tmp_path)
    assert found is not None
    for one, other in zip((asked.pictures, asked.answers, *words), (found.pictures, found.answers, *found.words), strict=True):
        assert one is other is None or (one is not None and other is not None and one.dtype == other.dtype and torch.equal(one, other))


@pytest.mark.parametrize("preset", ["dit-xl-2-tiny", "latte-xl-v2-tiny"])
def test_models_of_one_stream_are_asked_by_their_labels_or_without(world: tiny.World, tmp_path: Path, preset: str) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["video from nothing"]
    assert isinstance(run, BackboneRun)
    still = replace(run, preset=preset, joint=Joint(video_probability=0.0))
    recipes.train(still)
    told = recipes.train(replace(still, start=run.output / "model", output=tmp_path / "on", retention=1, steps=3))
    assert told[0]["image_drift"] == 0 < told[2]["image_drift"]


def test_the_start_is_asked_in_the_precision_of_the_steps(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["video"]
    (figures,) = recipes.train(replace(run, precision="bf16"))
    assert figures["image_drift"] == 0
