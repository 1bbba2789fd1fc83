"""What a plan says of a run, held against the run itself."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import tiny
from videodit import config
from videodit.train import planning
from videodit.train.backbone import BackboneRun, Joint
from videodit.train.recipes import Recipe

STEPS = 30
RUN = "import sys; from videodit.cli.main import main; from videodit.train.progress import held; main(sys.argv[1:]); print(held('cpu'))"


def measured(run: Recipe, folder: Path) -> tuple[float, int]:
    """Steps a second in the median, and the most bytes that the process held."""
    folder.mkdir()
    path = folder / "run.toml"
    path.write_text(config.write(replace(run, output=folder / "run")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JAXTYPING_DISABLE": "1"}
    done = subprocess.run([sys.executable, "-c", RUN, "train", str(path)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    times = [json.loads(line)["time"] for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return 1 / statistics.median(after - before for before, after in pairwise(times)), int(done.stdout)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "unchecked")
def test_memory_and_time_are_those_of_the_run(world: tiny.World, tmp_path: Path) -> None:
    """On cores that other work shares a rate may be off by chance, once."""
    run = tiny.runs(world, tmp_path, steps=STEPS)["video"]
    assert isinstance(run, BackboneRun)
    run = replace(run, batch=16, joint=Joint(video_probability=1.0))  # passes of one kind, whose median is their mean
    for attempt in ("first", "second"):
        planned, (rate, held) = planning.plan(run, whole=True), measured(run, tmp_path / attempt)
        assert planned["memory_bytes"] == pytest.approx(held, rel=0.15)
        if 1 / 1.5 < planned["steps_per_second"] / rate < 1.5:
            return
    raise AssertionError(f"planned {planned['steps_per_second']:.3g} steps/s, measured {rate:.3g}")
