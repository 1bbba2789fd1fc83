"""Signals end a run as they should, and numbers that are not finite leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lives
from videodit.shapes import UserError
from videodit.train import checkpoint, recipes
from videodit.train.faults import ABORTED, Faults, alone, sentence
from videodit.train.saving import newest
from videodit.train.step import Job, train


def test_a_second_one_aborts_inside_a_kernel(tmp_path: Path) -> None:
    """Where Python hears nothing any more, a thread hears; a lock that is taken twice stands for the kernel."""
    code = """
import ctypes, os, signal, threading, time
from videodit.train.faults import stopping
def twice():
    for _ in range(2):
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)
with stopping():
    threading.Thread(target=twice).start()
    lock = ctypes.create_string_buffer(128)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(lock)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == ABORTED, done.stderr


def test_a_folder_that_another_run_writes_into_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the other run ends its hold of it, even what leaves it no time to clean up."""
    code = f"""
import sys, time
from pathlib import Path
from videodit.train.faults import alone
with alone(Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=r"Another run is writing into .*: wait until it ends"), alone(tmp_path):
        pytest.fail("the folder was held")
    monkeypatch.setitem(recipes.JOBS, "backbone", lambda settings: pytest.fail("it was begun, and would have encoded everything"))
    with pytest.raises(UserError, match="Another run is writing into"):
        recipes.train(replace(recipes.TEMPLATES["backbone"], output=tmp_path))
    other.kill()
    other.wait()
    with alone(tmp_path):
        assert not (tmp_path / "checkpoints").exists()


def poisoned(job: Job, at: Callable[[int], bool], where: str, value: float = float("nan")) -> Job:
    """The same job, with a number that is not finite in the loss, or in one parameter's gradient, of some passes."""
    bad = [False]
    if where != "loss":
        p = dict(job.network.named_parameters())[where]
        p.register_hook(lambda gradient: gradient * value if bad[0] else gradient)

    def loss(index: int, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        error, figures = job.loss(index, batch)
        bad[0] = at(index)
        return (error * value if bad[0] and where == "loss" else error), figures

    return replace(job, loss=loss)


def state(folder: Path, step: int) -> dict[str, str]:
    files = checkpoint.verified(folder / "checkpoints" / f"step-{step:08d}")["files"]
    return {name: said["sha256"] for name, said in files.items()}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["loss", "1.0.weight", "0.bias"])
def test_a_step_that_is_not_finite_is_left_out(where: str, value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = replace(lives.settings(tmp_path, 3, 1), checkpoint=lives.Checkpoint(every=1, keep=9))
    train(run, poisoned(lives.job(run.output), lambda index: False, where))
    before = state(tmp_path, 3)
    history = train(replace(run, steps=4), poisoned(lives.job(run.output), lambda index: index == 7, where, value))
    assert state(tmp_path, 4) == before, "parameters, average or optimiser moved"
    said = capsys.readouterr().err
    passes = "pass 7" if where == "loss" else "passes 6, 7"
    assert f"Not finite: step 4, {passes}, " in said and "the step is left out" in said
    if where != "loss":
        assert f"first in the gradient of {where};" in said
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 4 and "step 4" in last["fault"] and last["norm"] is None and len(history) == 1
    train(replace(run, steps=5), lives.job(run.output))
    assert all(torch.isfinite(torch.tensor(f["loss"])) for f in train(replace(run, steps=6), lives.job(run.output)))


def test_names_are_few() -> None:
    passes = {6: ["a.mp4", "b.mp4"], 7: ["b.mp4", "c.mp4", "d.mp4", "e.mp4", "f.mp4"]}
    assert sentence(2, passes, None) == "step 3, passes 6, 7 (a.mp4, b.mp4, c.mp4, d.mp4 and 2 more), in the loss alone"
    assert sentence(0, {0: []}, "out.bias") == "step 1, pass 0, first in the gradient of out.bias"


def test_so_many_in_a_row_stop_the_run(tmp_path: Path) -> None:
    run = replace(lives.settings(tmp_path, 30, 2), faults=Faults(skip=3))
    bad = {4, 5, 10, 12, 14}  # passes: steps 3, then 6, 7 and 8
    with pytest.raises(UserError, match=r"3 steps in a row is not finite: lower optimizer.learning_rate.*step 8, pass 14,"):
        train(run, poisoned(lives.job(run.output), bad.__contains__, "loss"))
    steps = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "fault" in line] == [3, 6, 7, 8]
    there = newest(tmp_path / "checkpoints")
    assert there and there.name == "step-00000004"  # the one due at step 6 waits for a step that was not left out


def test_a_run_that_breaks_in_its_last_steps_is_not_finished(tmp_path: Path) -> None:
    run = lives.settings(tmp_path, 4, 1)
    for _ in range(2):
        with pytest.raises(UserError, match=r"3 steps in a row is not finite: lower optimizer.learning_rate"):
            train(run, poisoned(lives.job(run.output), lambda index: index >= 2, "loss"))
        assert not (tmp_path / "model").exists()
    assert len(train(run, lives.job(run.output))) == 3 and (tmp_path / "model").exists()


def test_how_many_in_a_row_outlives_a_kill(tmp_path: Path) -> None:
    """Counted on from the checkpoint, so a run that was stopped in between stops at the same step."""
    run = replace(lives.settings(tmp_path, 30, 2), faults=Faults(skip=3))

    class Watch:
        def step(self, step: int, total: int, figures: dict[str, float]) -> None:
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    bad = poisoned(lives.job(run.output), lambda index: index >= 2, "loss")
    with pytest.raises(KeyboardInterrupt):
        train(run, bad, Watch())
    with pytest.raises(UserError, match="3 steps in a row"):
        train(run, poisoned(lives.job(run.output), lambda index: index >= 2, "loss"))
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4
