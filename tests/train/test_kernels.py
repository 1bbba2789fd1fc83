"""A run whose kernels are measured keeps what was chosen, and resumes bit for bit."""

from __future__ import annotations

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
    before = dict(attention.CHOSEN)
    yield
    attention.CHOSEN.clear()
    attention.CHOSEN.update(before)


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
