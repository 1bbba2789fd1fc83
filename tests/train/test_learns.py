"""A run whose transformer learns in part: what is named, and nothing else, moves; it resumes bit for bit."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import lives
import tiny
from videodit import models
from videodit.adapters import LoRA
from videodit.shapes import UserError
from videodit.train import planning, recipes, starting
from videodit.train.backbone import BackboneRun
from videodit.train.step import train

pytestmark = pytest.mark.usefixtures("one_thread", "few_sentences", "unchecked")
SOME = ("blocks.*.qkv", "video*", "out.bias")


class CtrlC:
    def step(self, step: int, total: int, figures: dict[str, float]) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)


def run(world: tiny.World, folder: Path, **changes: Any) -> BackboneRun:
    made = tiny.runs(world, folder, steps=6)["video"]
    assert isinstance(made, BackboneRun)
    return replace(made, **{"start": world.video_model, "learns": SOME, **changes})


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(models.load_backbone(folder).state_dict())


def named(name: str) -> bool:
    return ".qkv." in name or name.startswith("video.") or name == "out.bias"


def moved(world: tiny.World, made: BackboneRun) -> set[str]:
    """What is not as it was, in the precision of a model folder."""
    before, after = (weights(folder) for folder in (world.video_model, made.output / "model"))
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not torch.equal(value.half(), after[name].half())}


def test_what_is_named_learns_and_the_rest_stays(world: tiny.World, tmp_path: Path) -> None:
    made = run(world, tmp_path)
    plan = planning.plan(made)
    recipes.train(made)
    wanted = {name: value for name, value in weights(world.video_model).items() if named(name)}
    assert moved(world, made) == wanted.keys() and len(wanted) < len(weights(world.video_model))
    assert plan["trained"] == sum(value.numel() for value in wanted.values()) < plan["parameters"]
    (kept,) = (made.output / "checkpoints").iterdir()
    network, average, moments = (load_file(kept / f"{part}.safetensors") for part in ("network", "average", "optimizer"))
    assert network.keys() == average.keys() == {f"backbone.{name}" for name in wanted}
    assert {name.rpartition("/")[0] for name in moments} == network.keys()


def test_ctrl_c_and_the_same_command_again(world: tiny.World, tmp_path: Path) -> None:
    straight, broken = (run(world, tmp_path / name) for name in ("straight", "broken"))
    figures = recipes.train(straight)
    with pytest.raises(recipes.Interrupted):
        recipes.train(broken, CtrlC())
    with pytest.raises(UserError, match=r"is of another network .* use another output folder"):
        recipes.train(replace(broken, learns=starting.ALL))
    assert recipes.train(broken) == figures[3:]
    one, other = (weights(made.output / "model") for made in (straight, broken))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_names_of_all_are_no_names(world: tiny.World, tmp_path: Path) -> None:
    plain, told = run(world, tmp_path / "plain", learns=starting.ALL), run(world, tmp_path / "told", learns=("*.weight", "*.bias"))
    assert plain == replace(tiny.runs(world, tmp_path / "plain", steps=6)["video"], start=world.video_model)  # type: ignore[call-arg]
    assert recipes.train(plain) == recipes.train(told)
    one, other = (weights(made.output / "model") for made in (plain, told))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learns": ("blocks.*.qkv", "nothing.*")}, r"nothing that could learn is called 'nothing\.\*': it is called blocks\.0\."),
        ({"lora": LoRA()}, "leave learns or lora out"),
        ({"start": None, "preset": "toybox-tiny", "text": tiny.TEXT}, "give its folder by start=FOLDER, or leave learns out"),
        ({"learns": ()}, "leave it out to train all"),
    ],
)
def test_what_cannot_be_is_said(world: tiny.World, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        planning.plan(run(world, tmp_path, **changes))
    with pytest.raises(UserError, match=said):
        recipes.train(run(world, tmp_path, **changes))


def test_what_is_frozen_stays_frozen() -> None:
    """Of the layout `beside` the image model's own blocks."""
    network = tiny.transformer(layout="beside")
    before = {name for name, p in network.named_parameters() if p.requires_grad}
    starting.freeze(network, ["blocks.*.qkv"])
    after = {name for name, p in network.named_parameters() if p.requires_grad}
    every = {name for name, _ in network.named_parameters() if ".qkv." in name}
    assert after == before & every != set() and after < every


def test_muon_may_have_all_that_learns(world: tiny.World, tmp_path: Path) -> None:
    made = run(world, tmp_path, learns=("blocks.*.qkv.weight",), steps=1)
    made = replace(made, optimizer=replace(made.optimizer, muon=2e-3))
    (optimizer,) = made.optimizer.build(recipes.JOBS["backbone"](made).network)
    assert isinstance(optimizer, torch.optim.Muon)
    recipes.train(made)
    assert moved(world, made) == {name for name in weights(world.video_model) if name.endswith("qkv.weight")}


@pytest.mark.parametrize(
    ("learns", "changes", "moves"),
    [
        (("blocks.*.video.norm_k",), {"precision": "bf16"}, "blocks.0.video.norm_k.weight"),  # whose queries ask for no gradient
        (("blocks.*.bias",), {"kernels": "measured"}, "blocks.0.video.qkv.bias"),
    ],
)
def test_what_nothing_before_it_learns_with(
    world: tiny.World, tmp_path: Path, learns: tuple[str, ...], changes: dict[str, Any], moves: str
) -> None:
    made = run(world, tmp_path, learns=learns, steps=2, **changes)
    recipes.train(replace(made, optimizer=replace(made.optimizer, learning_rate=0.05)))
    assert moves in moved(world, made)


def test_a_pass_by_all_that_learns_moves_nothing(tmp_path: Path) -> None:
    made = lives.settings(tmp_path, 4, 9)
    job = lives.job(tmp_path)
    before = {name: value.clone() for name, value in job.network.state_dict().items()}
    figures = train(made, replace(job, loss=lambda index, x: (job.loss(index, x)[0].detach(), {})))
    assert [told["norm"] for told in figures] == [0.0] * 4
    assert all(torch.equal(value, job.network.state_dict()[name]) for name, value in before.items())
