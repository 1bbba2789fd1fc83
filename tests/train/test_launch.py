"""Two processes of one launch train what one process trains, to the bit, and stop and go on together."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from videodit import config
from videodit.shapes import UserError
from videodit.train import checkpoint, recipes
from videodit.train.launch import Launch, joined
from videodit.train.pulse import Lost, Pulse, Sign
from videodit.train.recipes import Recipe

STEPS = 6


def written(run: Recipe, folder: Path) -> Path:
    """The run file of a run of two passes a step; runs side by side share their cached latents."""
    shared = replace(run, batch=2, accumulate=2, steps=STEPS, output=folder)
    path = folder.with_suffix(".toml")
    path.write_text(config.write(shared))
    return path


def started(run: Path, processes: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "videodit"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, "train", str(run)], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finished(run: Path, processes: int) -> dict[str, bytes]:
    if processes == 1:
        recipes.train(recipes.read(run))
    else:
        process = started(run, processes)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]
    return {path.name: path.read_bytes() for path in (run.with_suffix("") / "model").iterdir() if path.suffix == ".safetensors"}


@pytest.mark.usefixtures("one_thread", "unchecked")
@pytest.mark.parametrize("kind", ["video", pytest.param("autoencoder", marks=pytest.mark.slow)])
def test_two_processes_train_what_one_does(kind: str, world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=STEPS)[kind]
    one, two = (finished(written(run, tmp_path / f"of-{n}"), n) for n in (1, 2))
    assert one and one == two
    logs = [[json.loads(line) for line in (tmp_path / f"of-{n}" / "log.jsonl").read_text().splitlines()] for n in (1, 2)]
    assert [line["step"] for line in logs[1]] == list(range(1, STEPS + 1))  # written by one of them
    assert [{**line, "time": 0} for line in logs[0]] == [{**line, "time": 0} for line in logs[1]]


@pytest.mark.slow
def test_ctrl_c_stops_both_at_one_step(world: tiny.World, tmp_path: Path) -> None:
    run = written(replace(tiny.runs(world, tmp_path, steps=STEPS)["video"], output=tmp_path), tmp_path / "cut")
    run.write_text(run.read_text().replace(f"steps = {STEPS}\n", "steps = 4000\n", 1))
    process = started(run, 2)
    log = tmp_path / "cut" / "log.jsonl"
    while process.poll() is None and not (log.is_file() and log.read_text()):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    (there,) = checkpoint.found(tmp_path / "cut" / "checkpoints")
    assert 0 < int(there.name.removeprefix("step-")) < 4000


def test_passes_that_cannot_be_shared_are_said() -> None:
    assert Launch(1, 2).share(4) == 2 and Launch().share(1) == 1
    with pytest.raises(UserError, match=r"2 processes cannot share .* accumulate=1 .* set accumulate to a multiple of 2"):
        Launch(0, 2).share(1)


def test_what_no_process_has_a_gradient_of_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the optimiser leaves it as it is, as in one process."""
    mine, theirs, nobodys = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    mine.grad = torch.tensor([1.0, 2.0])
    others = torch.tensor([0.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 1.0, 0.0])  # of each, and whether there is one
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda whole: whole.add_(others))
    Launch(0, 2).add([mine, theirs, nobodys])
    assert mine.grad.tolist() == [1, 2] and theirs.grad is not None and theirs.grad.tolist() == [3, 4] and nobodys.grad is None


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *given, **named: 1 / 0)
    for device in ("cuda", "cuda:1", "cpu"):
        with pytest.raises(ZeroDivisionError), joined(device):
            pass
    assert chosen == [3]


def test_a_connection_that_closes_within_a_pass_is_the_loss_of_another_process() -> None:
    class Silent(Pulse):
        def __init__(self) -> None:
            self.wait = None

        def lost(self) -> Lost:
            return Lost("gone")

    launch = Launch(0, 2, Silent(), shared=True)
    with pytest.raises(Lost, match="gone"), launch.stepping(1.0):
        raise RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1")
    with pytest.raises(RuntimeError, match="shapes"), launch.stepping(1.0):
        raise RuntimeError("shapes do not fit")


FAR, NEAR = Sign(9, 4, 9.0, 0.0, 99.0, 9.0), Sign(9, 3, 0.0, 0.0, 99.0, 99.0)  # in the next exchange; still before it
WAITS, STUCK = Sign(9, 4, 9.0, 9.0, 99.0, 9.0), Sign(9, 4, 9.0, 0.0, 99.0, 99.0)  # in one pass: in an exchange that others do not come to


@pytest.mark.parametrize(
    ("signs", "hangs"),
    [
        ([FAR, NEAR], 1),
        ([NEAR, FAR], 0),
        ([FAR, NEAR._replace(free=0.0)], None),
        ([FAR._replace(inside=40.0), NEAR._replace(free=0.1)], None),  # it comes from a look or a save, to where the other waits
        ([FAR._replace(inside=40.0), NEAR._replace(free=9.0)], 1),
        ([WAITS._replace(still=40.0), STUCK._replace(free=0.1)], None),
        ([NEAR._replace(still=9.0), NEAR, FAR, FAR], 1),  # the first two share a pass
        ([FAR._replace(inside=7.0), NEAR], None),
        ([WAITS, STUCK], 1),
        ([STUCK, WAITS, WAITS], 0),
        ([WAITS, STUCK._replace(free=0.0)], None),
        ([WAITS._replace(still=7.0), STUCK], None),
        ([STUCK, STUCK], None),
        ([WAITS, WAITS._replace(still=0.5)], None),
        ([FAR, NEAR._replace(idle=0.5)], None),  # it works, on a core that others use as well
        ([FAR._replace(inside=63.0), NEAR._replace(idle=7.0)], None),
        ([FAR._replace(inside=65.0), NEAR._replace(idle=0.0)], 1),  # and never comes
        ([WAITS, STUCK._replace(idle=0.5)], None),
    ],
)
def test_who_does_not_come_is_named(signs: list[Sign], hangs: int | None) -> None:
    pulse = object.__new__(Pulse)
    pulse.size, pulse.wait, pulse._heard = len(signs), 8.0, {rank: (json.dumps(sign), 0.0) for rank, sign in enumerate(signs)}
    said = pulse._behind()
    waited = 65 if signs[0].inside == 65 else 9
    assert said is None if hangs is None else said == f"Process {hangs} of {len(signs)} hangs: the others have waited {waited} s for it"


def test_a_thread_is_still_where_an_exchange_does_not_return(monkeypatch: pytest.MonkeyPatch) -> None:
    pulse = object.__new__(Pulse)
    begun, over = threading.Event(), threading.Event()

    def exchange() -> None:
        begun.set()
        over.wait()

    waiting = threading.Thread(target=exchange)
    waiting.start()
    begun.wait()
    pulse._thread, pulse._spent, pulse._moved, pulse._worked = waiting.ident, 0.0, 0.0, 0.0
    assert pulse._rests()[0] == 0  # it waits, but not for another process
    monkeypatch.setattr("videodit.train.pulse._EXCHANGES", threading.__file__)
    pulse._rests()
    time.sleep(0.2)
    still, idle = pulse._rests()
    assert 0.2 <= still < 10 and still <= idle
    over.set()
    waiting.join()


@pytest.mark.parametrize(
    ("wait", "silence", "most"), [(None, math.inf, 8.0), (2.0, math.inf, 2.0), (60.0, math.inf, 60.0), (60.0, 3.0, 3.0)]
)
def test_who_gives_no_sign_is_waited_for_as_faults_say(wait: float | None, silence: float, most: float) -> None:
    """Less once a connection was found closed."""
    pulse = object.__new__(Pulse)
    pulse.rank, pulse.size, pulse.wait, pulse._silence, pulse._heard = 0, 2, wait, silence, {1: ("", 0.0)}
    assert pulse._silent([1], most - 0.1) is None and "Process 1 of 2 died" in (pulse._silent([1], most + 0.1) or "")
