"""A run that was interrupted ends with the very weights of one that was not."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lives
import tiny
from videodit import models
from videodit.autoencoder.discriminator import Discriminator
from videodit.autoencoder.loss import Weights
from videodit.shapes import UserError
from videodit.train import checkpoint, recipes
from videodit.train.autoencoder import AutoencoderRun, Critics
from videodit.train.recipes import Interrupted, Recipe
from videodit.train.step import Figures, Run, provenance, train

pytestmark = pytest.mark.usefixtures("one_thread", "few_sentences", "unchecked")
KINDS = ("image-autoencoder", "autoencoder", "image", "video", "decoder")


class Seen:
    """A watch that keeps what it is told, and does something at one step."""

    def __init__(self, at: int = -1, act: Any = None) -> None:
        self.at, self.act = at, act
        self.steps: list[int] = []
        self.figures: list[Figures] = []

    def step(self, step: int, total: int, figures: Figures) -> None:
        self.steps.append(step)
        self.figures.append(figures)
        if step == self.at:
            self.act()


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def power_cut() -> None:
    raise RuntimeError("the power is gone")


def weights(run: Recipe) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run.output / "model").iterdir()) if path.suffix == ".safetensors"}


def muon(run: Recipe) -> Recipe:
    return replace(run, optimizer=replace(run.optimizer, muon=2e-3))


def two_players(run: Recipe) -> Recipe:
    """A discriminator that begins late, and two passes a step."""
    assert isinstance(run, AutoencoderRun)
    critics = Critics(discriminator=Discriminator(width=8, depth=2), start=1)
    return replace(run, critics=critics, weights=Weights(adversarial=0.1, like="random"), accumulate=2)


def variant(runs: dict[str, Recipe], kind: str) -> Recipe:
    return muon(runs["video"]) if kind == "muon" else two_players(runs["autoencoder"]) if kind == "two players" else runs[kind]


@pytest.mark.parametrize("kind", [*KINDS, "muon", "two players"])
def test_ctrl_c_and_the_same_command_again(world: tiny.World, tmp_path: Path, kind: str) -> None:
    straight, broken = (tiny.runs(world, tmp_path / name, steps=4) for name in ("straight", "broken"))
    straight, broken = (variant(runs, kind) for runs in (straight, broken))
    whole, before, after = Seen(), Seen(2, ctrl_c), Seen()
    recipes.train(straight, whole)
    with pytest.raises(Interrupted, match="Stopped at step 2 of 4; the same command goes on from there"):
        recipes.train(broken, before)
    assert not (broken.output / "model").exists()
    assert recipes.train(broken, after) == after.figures
    assert before.steps + after.steps == whole.steps == [1, 2, 3, 4]
    assert before.figures + after.figures == whole.figures
    assert weights(broken) == weights(straight) != {}
    logged = [json.loads(line)["step"] for line in (broken.output / "log.jsonl").read_text().splitlines()]
    assert logged == [1, 2, 3, 4]


def test_a_power_cut_costs_the_steps_since_the_last_checkpoint(world: tiny.World, tmp_path: Path) -> None:
    straight, broken = (tiny.runs(world, tmp_path / name, steps=6, every=2)["image"] for name in ("straight", "broken"))
    before, after = Seen(5, power_cut), Seen()
    recipes.train(straight)
    with pytest.raises(RuntimeError, match="power"):
        recipes.train(broken, before)
    unfinished = broken.output / "checkpoints" / "step-00000005"  # as a killed copy would leave it
    unfinished.mkdir()
    (unfinished / "network.safetensors").write_bytes(b"half")
    recipes.train(broken, after)
    assert after.steps == [5, 6] and after.figures[0] == before.figures[4]
    assert weights(broken) == weights(straight)


def test_a_finished_run_is_left_as_it_is(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=2)["image"]
    recipes.train(run)
    before = weights(run)
    assert recipes.train(run) == [] and weights(run) == before
    assert models.load(run.output / "model").settings.provenance.steps == 2
    with pytest.raises(UserError, match="has 2 steps and the run asks for 1: raise steps"):
        recipes.train(replace(run, steps=1))
    assert "\nsteps = 2\n" in (run.output / "run.toml").read_text()  # what was refused leaves nothing
    longer = Seen()
    recipes.train(replace(run, steps=3), longer)
    assert longer.steps == [3] and weights(run) != before


@pytest.mark.parametrize("part", ["network", "average", "optimizer", "manifest"])
def test_a_truncated_checkpoint_is_said(world: tiny.World, tmp_path: Path, part: str) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["image-autoencoder"]
    recipes.train(run)
    (path,) = (run.output / "checkpoints").glob(f"step-00000001/{part}.*")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"step-00000001 cannot be read .*; remove that folder"):
        recipes.train(replace(run, steps=2))


def test_a_checkpoint_of_another_network_is_said(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["image"]
    recipes.train(run)
    assert isinstance(run, recipes.BackboneRun)
    for other in (replace(run.text, depth=2), replace(run.text, width=32)):
        with pytest.raises(UserError, match=r"is of another network .*: use another output folder"):
            recipes.train(replace(run, text=other, steps=2))


def test_a_checkpoint_of_another_optimiser_is_said(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["image"]
    recipes.train(run)
    with pytest.raises(UserError, match=r"was written with another optimizer.muon: set it as it was"):
        recipes.train(muon(replace(run, steps=2)))


@pytest.mark.parametrize("change", ["seed", "accumulate"])
def test_what_decides_the_samples_of_a_step_stays(tmp_path: Path, change: str) -> None:
    run = lives.settings(tmp_path, 2, 1)
    train(run, lives.job(run.output))
    with pytest.raises(UserError, match=f"was written with {change}={getattr(run, change)}: set it as it was"):
        train(replace(run, steps=4, **{change: 4}), lives.job(run.output))
    slower = replace(run, steps=4, optimizer=replace(run.optimizer, learning_rate=1e-4))
    assert len(train(slower, lives.job(run.output))) == 2


def test_the_newest_are_kept(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=5, every=2)["image"]
    recipes.train(replace(run, checkpoint=replace(run.checkpoint, keep=2)))
    assert [path.name for path in checkpoint.found(run.output / "checkpoints")] == ["step-00000004", "step-00000005"]


def test_an_output_that_cannot_be_written_is_said(world: tiny.World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = tiny.runs(world, tmp_path / "file", steps=1)["image-autoencoder"]
    with pytest.raises(UserError, match=r"cannot be written .*: choose another with output=FOLDER"):
        recipes.train(run)


def test_a_loss_that_explodes_is_said(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=6)["image-autoencoder"]
    with pytest.raises(UserError, match=r"is not finite: lower optimizer.learning_rate"):
        recipes.train(replace(run, optimizer=replace(run.optimizer, learning_rate=1e30, warmup=0)))


def test_hours_are_those_of_long_steps_too_and_not_of_pauses(tmp_path: Path) -> None:
    for name, times in (("short", [0, 36, 72, 9000, 9036]), ("long", [0, 1200, 2400, 90000, 91200])):
        run = Run(output=tmp_path / name)
        run.output.mkdir()
        (run.output / "log.jsonl").write_text("".join(json.dumps({"step": i + 1, "time": at}) + "\n" for i, at in enumerate(times)))
    assert provenance(Run(output=tmp_path / "short")).hours == round((3 * 36 + 108) / 3600, 3)
    assert provenance(Run(output=tmp_path / "long")).hours == 2.0
