"""A run file of several stages trains what its stages train one by one, and is stopped and taken up as one run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny
from videodit import config, models
from videodit.cli.main import main
from videodit.shapes import Size, UserError
from videodit.train import planning, prepare, recipes
from videodit.train.backbone import BackboneRun
from videodit.train.progress import Progress
from videodit.train.recipes import Interrupted
from videodit.train.stages import stages
from videodit.train.step import Figures

pytestmark = pytest.mark.usefixtures("one_thread", "few_sentences", "unchecked")
HIGH = ("size=[8, 48, 48]", "batch=2", "steps=3", "optimizer.learning_rate=5e-4")


def low(world: tiny.World, folder: Path, kind: str = "video", **changes: Any) -> Any:
    return replace(tiny.runs(world, folder, steps=2)[kind], **{"then": (HIGH,), **changes})


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "model").iterdir()) if path.suffix == ".safetensors"}


class CtrlC:
    """At one step of one stage."""

    def __init__(self, total: int, step: int) -> None:
        self.at = (step, total)

    def step(self, step: int, total: int, figures: Figures) -> None:
        if (step, total) == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def test_each_stage_is_the_one_before_with_what_changes(world: tiny.World, tmp_path: Path) -> None:
    run = replace(low(world, tmp_path), then=(HIGH, ("steps=7", "tasks.first=0.5", "looks.every=2")))
    one, two, three = stages(run)
    assert one == replace(run, then=(), output=tmp_path / "video-1")
    changed = replace(one, size=Size(8, 48, 48), batch=2, steps=3, optimizer=replace(one.optimizer, learning_rate=5e-4))
    assert two == replace(changed, output=tmp_path / "video-2", start=tmp_path / "video-1" / "model")
    assert three.size == two.size and (three.steps, three.tasks.first, three.looks.every) == (7, 0.5, 2)
    assert three.output == run.output and three.start == two.output / "model" and not three.then
    assert [stage.start for stage in stages(run, ahead=True)] == [run.start] * 3
    assert stages(two) == [two] and config.parse(recipes.Recipe, config.write(run)) == run


@pytest.mark.parametrize("kind", ["video", "autoencoder", pytest.param("image-autoencoder", marks=pytest.mark.slow)])
def test_a_file_of_two_stages_is_two_runs(world: tiny.World, tmp_path: Path, kind: str) -> None:
    """To the bit: weights, log and the record of each."""
    run = low(world, tmp_path, kind)
    run = run if isinstance(run, BackboneRun) else replace(run, then=((f"size=[{run.size.frames}, 48, 48]", "steps=1"),))
    assert len(recipes.train(run)) == sum(stage.steps for stage in stages(run))
    first, second = stages(run)
    alone = replace(first, output=tmp_path / "alone-1")
    recipes.train(alone)
    start = str(alone.output / "model") if isinstance(second.start, str) else alone.output / "model"
    after = replace(second, output=tmp_path / "alone-2", start=start)
    recipes.train(after)
    assert weights(first.output) == weights(alone.output) != weights(run.output) == weights(after.output)
    assert (run.output / "run.toml").read_text() == config.write(second)
    assert not (alone.output / ".finished").exists() and not (run.output / ".finished").exists()
    page = (run.output / "report.html").read_text()
    assert first.output.name in page and first.output.name not in (after.output / "report.html").read_text()


@pytest.mark.parametrize(("total", "step"), [pytest.param(2, 1, marks=pytest.mark.slow), (3, 2)])
def test_it_is_taken_up_in_the_stage_where_it_stopped(world: tiny.World, tmp_path: Path, total: int, step: int) -> None:
    straight, broken = low(world, tmp_path / "straight"), low(world, tmp_path / "broken")
    whole = recipes.train(straight)
    with pytest.raises(Interrupted, match=f"Stopped at step {step} of {total}"):
        recipes.train(broken, CtrlC(total, step))
    done = step if total == 2 else 2 + step
    assert recipes.train(broken) == whole[done:]
    assert weights(broken.output) == weights(straight.output)
    assert weights(tmp_path / "broken" / "video-1") == weights(tmp_path / "straight" / "video-1")
    assert recipes.train(broken) == []


def test_progress_hears_the_precision_of_each_stage(world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(Progress, "begins", lambda self, device, precision: heard.append(precision))
    monkeypatch.setitem(recipes.JOBS, "backbone", lambda settings: None)
    monkeypatch.setattr(recipes, "loop", lambda settings, *rest: [])
    recipes.train(low(world, tmp_path, then=(('precision="bf16"',), ("steps=3",))), Progress())
    assert heard == ["fp32", "bf16", "bf16"]


def test_a_stage_that_others_stand_on_is_not_changed_below_them(world: tiny.World, tmp_path: Path) -> None:
    run = low(world, tmp_path)
    recipes.train(run)
    before = weights(run.output)
    for other in (replace(run, steps=4), replace(run, seed=1), replace(run, then=(("steps=1",), HIGH))):
        with pytest.raises(UserError, match=r"has checkpoints, and .*video-[12], which comes before it, was not trained .* another output"):
            recipes.train(other)
    assert len(recipes.train(replace(run, then=((*HIGH, "steps=4"),)))) == 1  # the last stage is as any run
    assert weights(run.output) != before


@pytest.mark.slow
def test_a_stage_that_is_over_stays_so_elsewhere_and_with_newer_settings(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = replace(low(world, tmp_path), then=(("steps=1",), ("steps=3",)))
    whole = recipes.train(replace(run, output=tmp_path / "whole"))
    with pytest.raises(Interrupted):
        recipes.train(run, CtrlC(3, 1))
    mark = tmp_path / "video-2" / ".finished"
    kept = [line for line in mark.read_text().splitlines() if not line.startswith("retention")]
    mark.write_text("\n".join(kept))  # as a version wrote it that knew of no retention
    monkeypatch.chdir(tmp_path)
    assert recipes.train(replace(run, output=Path("video"))) == whole[-2:]
    recipes.train(replace(run, steps=1, then=(("steps=1",),), output=tmp_path / "other"))
    (tmp_path / "other-1" / ".finished").unlink()
    with pytest.raises(UserError, match=r"other-1, which comes before it, was not trained"):
        recipes.train(replace(run, steps=1, then=(("steps=1",),), output=tmp_path / "other"))


def test_a_later_stage_is_looked_at_before_the_first_is_trained(world: tiny.World, tmp_path: Path) -> None:
    for changes, said in (("size=[8, 36, 36]", "36 rows do not fit"), ("parallel.shard=2", "2")):
        with pytest.raises(UserError, match=said):
            recipes.train(replace(low(world, tmp_path), then=((changes,),)))
    assert not (tmp_path / "video-1" / "log.jsonl").exists()


@pytest.mark.slow
def test_the_folders_of_all_stages_are_locked(world: tiny.World, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(config.write(low(world, tmp_path, then=())))
    other = [sys.executable, "-m", "videodit", "train", str(path)]

    class Another:
        said = ""

        def step(self, step: int, total: int, figures: Figures) -> None:
            self.said = self.said or subprocess.run(other, capture_output=True, text=True, timeout=120, check=False).stderr

    recipes.train(low(world, tmp_path), seen := Another())
    assert "Another run is writing into" in seen.said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["start='x'"], r"then\[0\] changes start, which are of the whole run: leave them out"),
        (["output=x", "device=cuda"], r"then\[0\] changes output and device"),
        (["then=[['steps=1']]"], r"then\[0\] changes then"),
        (["kind=decoder"], r'kind takes "backbone", not "decoder"'),
        (["stepz=4"], "stepz is not a setting; did you mean steps?"),
        (["steps"], "'steps' changes no setting"),
        (["batch=0"], "batch takes 1 or more, not 0"),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(world: tiny.World, tmp_path: Path, changes: list[str], said: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(config.write(replace(low(world, tmp_path), then=(tuple(changes),))))
    with pytest.raises(UserError, match=said):
        recipes.read(path)


def test_what_has_no_stages_says_so(world: tiny.World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="kind=decoder"):
        stages(replace(tiny.runs(world, tmp_path, steps=1)["decoder"], then=(("steps=1",),)))
    with pytest.raises(UserError, match="has no name"):
        stages(low(world, tmp_path, output=Path()))


def test_all_stages_are_planned_and_prepared(world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = low(world, tmp_path)
    one, two = stages(run, ahead=True)
    path = tmp_path / "run.toml"
    path.write_text(config.write(run))
    main(["plan", str(path), "--shapes", "--json"])
    plans = json.loads(capsys.readouterr().out)["stages"]
    assert plans == [json.loads(json.dumps(planning.plan(stage))) for stage in (one, two)] and plans[1]["tokens"] > plans[0]["tokens"]
    assert not plans[1]["assumed"]
    main(["plan", str(path), "--shapes"])
    assert "stage 1 of 2" in (said := capsys.readouterr().out) and "stage 2 of 2" in said
    made = prepare.prepare(run)
    assert made.new == made.entries and made.clips == 24
    before = set((tmp_path / "cache").iterdir())
    assert prepare.prepare(run, clean=True).collected == 0
    recipes.train(run)
    assert set((tmp_path / "cache").iterdir()) == before


def test_stages_from_nothing_are_prepared_but_for_the_words_of_later_ones(world: tiny.World, tmp_path: Path) -> None:
    run = low(world, tmp_path, "image", then=(("joint.video_probability=1.0", "size=[8, 32, 32]", f"autoencoder={world.autoencoder}"),))
    made = prepare.prepare(run)
    assert (made.clips, made.pictures, made.captions) == (12, 12, 0)
    before = set((tmp_path / "cache").iterdir())
    assert len(recipes.train(run)) == 4
    assert before < set((tmp_path / "cache").iterdir())


@pytest.mark.slow
def test_two_processes_go_through_the_stages_together(world: tiny.World, tmp_path: Path) -> None:
    found: list[dict[str, bytes]] = []
    for processes in (1, 2):
        run = low(world, tmp_path, batch=2, accumulate=2, output=tmp_path / f"of-{processes}")
        path = tmp_path / f"{processes}.toml"
        path.write_text(config.write(run))
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
        command = [sys.executable, *launch, "-m", "videodit", "train", str(path)]
        done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stderr.count("Stage 1 of 2") == done.stderr.count("Stage 2 of 2") == 1 and "step 1/3" in done.stderr
        found.append(weights(run.output))
    assert found[0] == found[1] != {}
    assert models.read(tmp_path / "of-2" / "model", models.ModelFolder)[1].size == Size(8, 48, 48)
