"""Compiled blocks learn what plain ones learn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from videodit.shapes import Text, UserError
from videodit.train import backbone, recipes
from videodit.train.compiling import WORDS, compile_blocks, evened, excused

RUN = Path(__file__).parents[2] / "runs/toybox_tiny.toml"


@pytest.mark.slow
def test_losses_are_those_of_plain_blocks(tmp_path: Path) -> None:
    """In processes of their own: the checks of shapes are Python that cannot be traced."""
    losses = {}
    for compiled in ("false", "true"):
        output = tmp_path / compiled
        changes = [f"output={output}", "steps=4", "batch=4", "clips=16", "pictures=16", f"compiled={compiled}", "precision=fp32"]
        environment = os.environ | {"JAXTYPING_DISABLE": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
        command = [sys.executable, "-m", "videodit", "train", str(RUN), *changes]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        losses[compiled] = [json.loads(line)["loss"] for line in (output / "log.jsonl").read_text().splitlines()]
    assert any((tmp_path / "inductor").rglob("*.so"))
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-4)


def test_every_length_of_sentences_is_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, compiling = [], nn.Module.compile

    class Block(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: compiling(self, backend=backend, **how))
    compile_blocks([block := Block()], "cpu", alike=True)
    for length in range(2, 22):
        block(torch.zeros(length))
    assert len(compiled) == 20


def test_more_words_that_nobody_attends_to_change_nothing(world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: None)
    monkeypatch.setattr(backbone, "evened", lambda words: (lengths.append(words.mask.shape[1]), evened(words))[1])
    run = tiny.runs(world, tmp_path, steps=4)["video"]
    plain, compiled = (recipes.train(replace(run, output=tmp_path / str(way), compiled=way)) for way in (False, True))
    assert [step["loss"] for step in compiled] == pytest.approx([step["loss"] for step in plain], rel=1e-5)
    assert len(lengths) == 4 and any(length % WORDS for length in lengths)


def test_sentences_are_as_long_as_multiples() -> None:
    for length, longer in ((1, 8), (8, 8), (9, 16)):
        words = evened(Text(sequence=torch.ones(2, length, 3), mask=torch.ones(2, length, dtype=torch.bool)))
        assert words.sequence is not None and words.mask is not None
        assert words.sequence.shape == (2, longer, 3) and words.mask.sum(1).tolist() == [length, length]
    assert evened(Text(pooled=torch.ones(2, 3))).sequence is None


def test_who_compiles_is_busy_from_the_beginning_to_the_end_of_it() -> None:
    busy: list[str] = []

    @contextmanager
    def noted() -> Iterator[None]:
        busy.append("begins")
        yield
        busy.append("ends")

    def backend(graph: Any, inputs: Any) -> Any:
        busy.append("compiles")
        return graph.forward

    with excused(noted):
        compiled = torch.compile(lambda x: x + 1, backend=backend, dynamic=False)
        compiled(torch.zeros(2))
        compiled(torch.ones(2))
        assert busy == ["begins", "compiles", "ends"]
        compiled(torch.zeros(3))
        assert busy == ["begins", "compiles", "ends"] * 2
    torch.compile(lambda x: x + 2, backend=backend)(torch.zeros(2))
    assert busy == ["begins", "compiles", "ends"] * 2 + ["compiles"]


def test_without_a_compiler_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="no-such-compiler, which is not there: install it, or leave compiled out"):
        compile_blocks([], "cpu", alike=True)


def test_measured_kernels_and_compiled_blocks_exclude_each_other() -> None:
    with pytest.raises(UserError, match="kernels=fixed"):
        recipes.read(RUN, ["compiled=true", "kernels=measured"])


@pytest.mark.slow
def test_several_processes_wait_for_one_that_compiles(tmp_path: Path) -> None:
    """Longer than faults.wait, which says how long a process may be behind."""
    changes = [f"output={tmp_path}/out", "steps=2", "accumulate=2", "batch=4", "clips=16", "pictures=16", "compiled=true", "faults.wait=2"]
    environment = os.environ | {"JAXTYPING_DISABLE": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "videodit", "train"]
    done = subprocess.run([*launch, str(RUN), *changes], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out/model").is_dir()
