"""A launch whose process was killed is started again by torchrun, by itself, and ends as one in which nothing happened."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from videodit import config

STEPS, EVERY = 150, 10
BOUND = 15  # seconds in which the others have to end, as docs/train.md promises


def started(world: tiny.World, folder: Path) -> subprocess.Popen[str]:
    """Two processes that share a run, which may be started again once; their words are in a file beside its folder."""
    path, run = folder.with_suffix(".toml"), tiny.runs(world, folder, steps=STEPS, every=EVERY)["video"]
    path.write_text(config.write(replace(run, batch=2, accumulate=2, output=folder)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "JAXTYPING_DISABLE": "1"}
    with said(folder).open("w") as told:
        return subprocess.Popen([*command, "-m", "videodit", "train", str(path)], env=environment, stderr=told, stdout=told, text=True)


def said(folder: Path) -> Path:
    return folder.with_suffix(".said")


def processes(launcher: int) -> dict[int, int]:
    """Those of a launch, by their rank."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and (rank := re.search(rb"\0RANK=(\d)\0", (entry / "environ").read_bytes())):
                found[int(rank[1])] = int(entry.name)
        except (OSError, ValueError, IndexError):  # no process, or one that has just ended
            continue
    return found


def lines(folder: Path) -> list[dict[str, float]]:
    log = folder / "log.jsonl"
    return [{**json.loads(line), "time": 0} for line in log.read_text().splitlines() if line.endswith("}")] if log.is_file() else []


def gone(process: int, within: float) -> bool:
    over = time.monotonic() + within
    while time.monotonic() < over:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "model").iterdir()) if path.suffix == ".safetensors"}


@pytest.fixture(scope="module")
def straight(world: tiny.World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run to which nothing happens."""
    folder = tmp_path_factory.mktemp("launches") / "straight"
    assert started(world, folder).wait(600) == 0, said(folder).read_text()[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 0])
def test_a_launch_goes_on_by_itself_after_a_kill(rank: int, world: tiny.World, straight: Path) -> None:
    killed = straight.with_name(f"killed-{rank}")
    launch = started(world, killed)
    try:
        while len(lines(killed)) < STEPS // 3:
            assert launch.poll() is None, said(killed).read_text()[-3000:]
            time.sleep(0.02)
        before = processes(launch.pid)
        os.kill(before[rank], signal.SIGKILL)
        assert gone(before[1 - rank], BOUND)
        reached = len(lines(killed))
        assert STEPS // 3 <= reached < STEPS
        assert launch.wait(600) == 0, said(killed).read_text()[-3000:]
    finally:
        launch.terminate()
        launch.wait(60)
    told = said(killed).read_text()
    assert f"Process {rank} of 2 died or was stopped" in told and told.count("the same command goes on from it") == 1
    assert weights(killed) and weights(killed) == weights(straight) and lines(killed) == lines(straight)
    assert "Process" not in said(straight).read_text()
