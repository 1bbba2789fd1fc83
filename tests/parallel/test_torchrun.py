"""A run file with [parallel] under torchrun: from the command line to the model, also when a process dies or hangs in a pass of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from videodit import config
from videodit.parallel import Parallel
from videodit.train import checkpoint
from videodit.train.pulse import LOST
from videodit.train.step import Checkpoint

STEPS = 6
SHARD, SEQUENCE = Parallel(shard=2), Parallel(sequence=2)


def launched(run: Path, harm: tuple[str, str] | None = None) -> tuple[int, str]:
    """The status of torchrun, and what was said."""
    many = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    harmed = [str(Path(__file__).with_name("harmed.py")), str(run.with_suffix("")), *(harm or ()), "--"]
    command = [*many, *(["-m", "videodit"] if harm is None else harmed), "train", str(run)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "JAXTYPING_DISABLE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stderr


def weights(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run.with_suffix("") / "model").iterdir() if path.suffix == ".safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "how", "where", "said"),
    [
        (SHARD, "dies", "c10d::_allgather_base_", "Process 1 of 2 died or was stopped"),
        (SEQUENCE, "dies", "c10d::alltoall_base_", "Process 1 of 2 died or was stopped"),
        (SHARD, "hangs", "aten::native_layer_norm", "Process 1 of 2 hangs: the others have waited"),
        (SEQUENCE, "hangs", "aten::native_layer_norm", "Process 1 of 2 hangs: the others have waited"),
    ],
)
def test_a_split_run_ends_and_goes_on_when_a_process_is_lost_in_a_pass(
    split: Parallel, how: str, where: str, said: str, world: tiny.World, tmp_path: Path
) -> None:
    made = replace(tiny.runs(world, tmp_path, steps=STEPS)["video"], batch=2, accumulate=2, parallel=split, checkpoint=Checkpoint(every=2))
    straight, broken = (tmp_path / f"{which}.toml" for which in ("straight", "broken"))
    for path in (straight, broken):
        path.write_text(config.write(replace(made, output=path.with_suffix(""))))
    status, told = launched(straight)
    assert status == 0, told[-3000:]
    status, told = launched(broken, (how, where))
    ends = [path.read_text().split() for path in sorted(tmp_path.glob("broken.ended-*"))]
    assert status != 0 and [int(end[0]) for end in ends] == [LOST, -9 if how == "dies" else LOST], told[-3000:]
    last = json.loads((tmp_path / "broken" / "log.jsonl").read_text().splitlines()[-1])["time"]
    assert max(float(end[1]) for end in ends) - last < 15
    assert said in told and "the same command goes on from it" in told
    assert [path.name for path in checkpoint.found(tmp_path / "broken" / "checkpoints")] == ["step-00000002"]
    status, told = launched(broken)
    assert status == 0, told[-3000:]
    assert weights(broken) == weights(straight) and weights(straight)
