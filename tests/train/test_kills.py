"""A run that is killed again and again ends as one that never was, and no checkpoint that was written is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lives as nursery
from videodit.train import checkpoint
from videodit.train.faults import ABORTED
from videodit.train.pulse import LOST
from videodit.train.saving import newest

STEPS, EVERY = 90, 3
CALLS = 24  # of one save, and some of the next


class Lives:
    def __init__(self, folder: Path) -> None:
        command = [sys.executable, nursery.__file__, str(folder), str(STEPS), str(EVERY)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "JAXTYPING_DISABLE": "1"}
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def one(self, output: Path, life: str) -> tuple[int, float]:
        """Exit status, and what else is told."""
        assert self.process.stdin and self.process.stdout
        print(f"{output}|{life}", file=self.process.stdin, flush=True)
        status, step = self.process.stdout.readline().split()
        return int(status), float(step)


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    made = Lives(tmp_path_factory.mktemp("lives"))
    yield made
    assert made.process.stdin
    made.process.stdin.close()
    made.process.wait(30)


def curve(output: Path) -> list[dict[str, float]]:
    return [{**json.loads(line), "time": 0} for line in (output / "log.jsonl").read_text().splitlines()]


def digests(output: Path) -> dict[str, str]:
    """Of the final weights, their average and the optimisers' state."""
    path = newest(output / "checkpoints")
    assert path and path.name == f"step-{STEPS:08d}"
    return {name: said["sha256"] for name, said in checkpoint.verified(path)["files"].items()}


@pytest.mark.parametrize("kills", [12, pytest.param(1000, marks=pytest.mark.slow)])
def test_kills_change_nothing(kills: int, lives: Lives, tmp_path: Path) -> None:
    chance = random.Random(kills)
    straight = tmp_path / "straight"
    assert lives.one(straight, "whole") == (0, STEPS)
    expected, runs, killed = (curve(straight), digests(straight)), 0, {"inside": 0, "after": 0}
    assert len(expected[0]) == STEPS and len({line["loss"] for line in expected[0]}) > STEPS // 2
    while sum(killed.values()) < kills:
        runs += 1
        broken, status, reached = tmp_path / f"broken-{runs}", 1, 0
        while status:
            inside = 3 * killed["inside"] <= sum(killed.values())
            life = f"inside {chance.randint(1, CALLS)}" if inside else f"after {chance.uniform(0, 0.15):.4f}"
            done = sum(killed.values()) >= kills
            status, said = lives.one(broken, "whole" if done else life)
            assert status in (0, -signal.SIGKILL)
            killed[life.split()[0]] += status != 0
            there = newest(broken / "checkpoints")
            step = int(there.name[-8:]) if there else 0
            assert step >= max(reached, said), f"{life}: a checkpoint is lost"
            assert not list((broken / "checkpoints").glob("damaged-*"))
            reached = step
        assert (curve(broken), digests(broken)) == expected
        assert len(checkpoint.found(broken / "checkpoints")) <= 2
    assert killed["inside"] >= kills // 3


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_status_says_so(number: int, status: int, lives: Lives, tmp_path: Path) -> None:
    assert lives.one(tmp_path, f"signals {int(number)} 1") == (status, 5)
    there = newest(tmp_path / "checkpoints")
    assert there and there.name == "step-00000005" and len(curve(tmp_path)) == 5
    assert (there / "manifest.json").stat().st_mtime - (tmp_path / "log.jsonl").stat().st_mtime < 5  # seconds after the step's end
    assert lives.one(tmp_path, "whole") == (0, STEPS) and len(curve(tmp_path)) == STEPS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_one_aborts(number: int, lives: Lives, tmp_path: Path) -> None:
    status, _ = lives.one(tmp_path, f"signals {int(number)} 2")
    there = newest(tmp_path / "checkpoints")
    assert status == ABORTED and (there is None or there.name == "step-00000003")  # which may not have been written yet


@pytest.mark.parametrize(
    ("rank", "how", "said"),
    [
        (1, "killed", "Process 1 of 2 died or was stopped"),
        (0, "killed", "process 0, is gone"),
        pytest.param(1, "stopped", "Process 1 of 2 died or was stopped", marks=pytest.mark.slow),
        pytest.param(0, "stopped", "process 0, was stopped", marks=pytest.mark.slow),
        pytest.param(1, "stuck", "Process 1 of 2 hangs", marks=pytest.mark.slow),
        pytest.param(0, "stuck", "Process 0 of 2 hangs", marks=pytest.mark.slow),
        (1, "failed", "Process 1 of 2 failed (ZeroDivisionError: a mistake of one process)"),
    ],
)
def test_a_process_that_is_lost_is_named(rank: int, how: str, said: str, lives: Lives, tmp_path: Path) -> None:
    output = tmp_path / "run"
    status, seconds = lives.one(output, f"launch {rank} {how}")
    told = output.with_suffix(f".{1 - rank}").read_text()
    assert status == LOST and said in told and "the same command goes on from it" in told
    assert seconds < 15
    assert lives.one(output, "whole")[0] == 0
    assert lives.one(tmp_path / "straight", "whole")[0] == 0
    assert (curve(output), digests(output)) == (curve(tmp_path / "straight"), digests(tmp_path / "straight"))


@pytest.mark.slow
def test_a_process_that_works_is_waited_for(lives: Lives, tmp_path: Path) -> None:
    assert lives.one(tmp_path / "run", "launch 1 slow")[0] == 0
    assert lives.one(tmp_path / "straight", "whole")[0] == 0
    assert (curve(tmp_path / "run"), digests(tmp_path / "run")) == (curve(tmp_path / "straight"), digests(tmp_path / "straight"))


def test_a_signal_to_one_process_stops_both(lives: Lives, tmp_path: Path) -> None:
    status, _ = lives.one(tmp_path / "run", "launch 1 told")
    there = newest(tmp_path / "run" / "checkpoints")
    assert status == 143 and there and there.name == "step-00000005"
