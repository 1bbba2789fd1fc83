"""The gauge of what is left of the image model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from videodit import adapters
from videodit.adapters import LoRA
from videodit.train import recipes
from videodit.train.backbone import BackboneRun, Joint
from videodit.train.optimizer import Optimizer
from videodit.train.retention import TIMES, Retention

pytestmark = pytest.mark.usefixtures("unchecked")


def test_it_is_zero_at_the_start_and_grows_with_the_weights() -> None:
    network = tiny.transformer()
    gauge = Retention(network, lambda net, x, t, text: net(x, t, text), tiny.grid(3, 8, 1, 4, 4), tiny.text([3, 2, 4]))
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
    gauge = Retention(network.train(), lambda net, x, t, text: net(x, t, text), tiny.grid(3, 8, 1, 4, 4), tiny.text([3, 2, 4]))
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
