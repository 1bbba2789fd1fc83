"""A run that learns adapters alone: it resumes bit for bit, and leaves them beside the whole model."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from videodit import adapters, models
from videodit.adapters import LoRA
from videodit.diffusion.tasks import Tasks
from videodit.shapes import UserError
from videodit.train import planning, recipes
from videodit.train.backbone import BackboneRun

pytestmark = pytest.mark.usefixtures("one_thread", "few_sentences", "unchecked")


class CtrlC:
    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: int, total: int, figures: dict[str, float]) -> None:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def run(world: tiny.World, folder: Path, **changes: Any) -> BackboneRun:
    made = tiny.runs(world, folder, steps=6)["video"]
    assert isinstance(made, BackboneRun)
    lora = LoRA(rank=4, dropout=0.2, names=("blocks.*",))
    return replace(made, **{"start": world.video_model, "lora": lora, **changes})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix == ".safetensors"}


def test_ctrl_c_and_the_same_command_again(world: tiny.World, tmp_path: Path) -> None:
    straight, broken = (run(world, tmp_path / name) for name in ("straight", "broken"))
    figures = recipes.train(straight)
    with pytest.raises(recipes.Interrupted):
        recipes.train(broken, CtrlC(3))
    assert recipes.train(broken) == figures[3:]
    for part in ("lora", "model"):
        assert files(straight.output / part) == files(broken.output / part) != {}


def test_the_adapters_are_what_was_learnt(world: tiny.World, tmp_path: Path) -> None:
    """The base and its adapters are the model that is left, whose other weights are the base's."""
    made = run(world, tmp_path)
    plan = planning.plan(made)
    recipes.train(made)
    base, whole = models.load_backbone(world.video_model), models.load(made.output / "model").backbone
    changed = [name for name, value in base.state_dict().items() if not torch.equal(value, whole.state_dict()[name])]
    assert changed and all(name.startswith("blocks.") and name.endswith(".weight") for name in changed)
    assert adapters.load(base, made.output / "lora") == len(changed)
    for name, value in base.state_dict().items():
        assert torch.equal(value.half(), whole.state_dict()[name].half())
    kept = adapters.read(made.output / "lora").values()
    assert plan["trained"] == sum(change.down.numel() + change.up.numel() for change in kept)


def test_a_plan_follows_what_lives(world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_free", lambda device: 0)
    made, move = run(world, tmp_path), torch.nn.Module.to
    with_, without = (planning.plan(replace(made, lora=lora), whole=True) for lora in (made.lora, None))
    assert 0 < with_["state_bytes"] < with_["training_bytes"] < without["training_bytes"] and torch.nn.Module.to is move


def test_factors_are_left_to_adamw(world: tiny.World, tmp_path: Path) -> None:
    made = run(world, tmp_path)
    made = replace(made, steps=1, optimizer=replace(made.optimizer, muon=2e-3))
    (optimizer,) = made.optimizer.build(recipes.JOBS["backbone"](made).network)
    assert isinstance(optimizer, torch.optim.AdamW)


def test_adapters_need_a_model(world: tiny.World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lora changes a model that is there: give its folder by start=FOLDER"):
        recipes.train(run(world, tmp_path, start=None, preset="toybox-tiny", text=tiny.TEXT))


def test_a_layer_that_would_learn_nothing_is_refused(world: tiny.World, tmp_path: Path) -> None:
    told = {"given": "channels", "tasks": Tasks(none=0.0, prefix=1.0, clips=8)}
    with pytest.raises(UserError, match="lacks that of given=channels: set given=time, or leave lora out"):
        recipes.train(run(world, tmp_path, **told))
    recipes.train(run(world, tmp_path / "told", steps=1, lora=None, **told))
    assert len(recipes.train(run(world, tmp_path, steps=1, start=tmp_path / "told" / "video" / "model", **told))) == 1
