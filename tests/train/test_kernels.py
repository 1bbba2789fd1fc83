"""A run whose kernels are measured keeps what was chosen, and resumes bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from videodit import kernels
from videodit.backbone import attention
from videodit.train import recipes
from videodit.train.backbone import BackboneRun

pytestmark = pytest.mark.usefixtures("one_thread", "few_sentences", "unchecked")


class CtrlC:
    def step(self, step: int, total: int, figures: dict[str, float]) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def unchosen() -> Iterator[None]:
    with attention.choosing():
        yield


def test_what_one_run_chose_is_not_the_next_ones(world: tiny.World, tmp_path: Path) -> None:
    """In one process: choices of another run, and of a measured one, leave a fixed run's losses as they are, to the bit."""
    first, measured, last = (tiny.runs(world, tmp_path / name, steps=2)["video"] for name in ("first", "measured", "last"))
    assert isinstance(measured, BackboneRun)
    figures = recipes.train(first)
    output = measured.output
    output.mkdir(parents=True)
    with attention.noted() as cases:
        recipes.train(replace(first, output=tmp_path / "noted"))
    plain = {case.name: "plain" for case in cases if case.learning}
    (output / "kernels.json").write_text(json.dumps(plain))
    other = recipes.train(replace(measured, kernels="measured"))
    assert attention.CHOSEN == {}
    attention.CHOSEN.update(plain)
    assert recipes.train(last) == figures
    assert plain and plain == attention.CHOSEN
    assert other != figures, "the other kernels sum as these do: this shows nothing"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resume_uses_what_was_chosen(world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    runs = [tiny.runs(world, tmp_path / name, steps=4)["video"] for name in ("straight", "broken")]
    straight, broken = (replace(run, kernels="measured", precision=precision) for run in runs if isinstance(run, BackboneRun))
    figures = recipes.train(straight)
    record = kernels.read(straight.output / "kernels.json")
    assert record and {precision for name in record if f" {'bfloat16' if precision == 'bf16' else 'float32'} " in name}
    broken.output.mkdir(parents=True)
    shutil.copy(straight.output / "kernels.json", broken.output)
    monkeypatch.setattr(kernels, "measured", lambda *given, **more: pytest.fail("it was measured again"))
    with pytest.raises(recipes.Interrupted):
        recipes.train(broken, CtrlC())
    assert recipes.train(broken) == figures[2:]
    one, other = ((run.output / "model" / "backbone.safetensors").read_bytes() for run in (straight, broken))
    assert one == other
