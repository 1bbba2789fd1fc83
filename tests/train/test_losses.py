"""The losses of tiny runs are those that were stored: bit for bit on a machine like one that stored them, to 1e-4 elsewhere.

A refactor leaves them alone. A change of mathematics stores them anew with a line in docs/log.md:
    pytest tests/train/test_losses.py --update-losses
"""

from __future__ import annotations

import json
import platform
import warnings
from pathlib import Path

import pytest
import torch

import tiny
from videodit.train import recipes
from videodit.train.step import Figures

STORED = Path(__file__).with_name("losses.json")
STEPS = 20


class Enough(Exception):
    pass


class Until:
    """A watch that keeps losses and ends a run early; its schedule is the whole run's."""

    def __init__(self, last: int) -> None:
        self.last, self.losses = last, []

    def step(self, step: int, total: int, figures: Figures) -> None:
        self.losses.append(figures["loss"])
        if step == self.last:
            raise Enough


def machine() -> str:
    """What decides the last bits: kernels are chosen by the processor's model, too."""
    threads = f"{torch.get_num_threads()} threads"
    return " | ".join((torch.__version__, torch.backends.cpu.get_cpu_capability(), threads, _processor()))


def _processor() -> str:
    """Its name, family and model: a name alone may stand for several generations."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        return platform.processor() or platform.machine()
    told = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    return ", ".join(told[key] for key in ("model name", "cpu family", "model") if key in told) or platform.machine()


@pytest.mark.usefixtures("two_threads", "few_sentences", "unchecked")
@pytest.mark.parametrize("kind", ["image-autoencoder", "autoencoder", "image", "video", "decoder"])
@pytest.mark.parametrize("steps", [8, pytest.param(STEPS, marks=pytest.mark.slow)])
def test_losses(world: tiny.World, tmp_path: Path, request: pytest.FixtureRequest, kind: str, steps: int) -> None:
    update = request.config.getoption("--update-losses")
    steps = STEPS if update else steps
    watch = Until(steps)
    with pytest.raises(Enough):
        recipes.train(tiny.runs(world, tmp_path, steps=STEPS)[kind], watch)
    losses = watch.losses
    assert len(set(losses)) == steps
    stored = json.loads(STORED.read_text())
    here = stored.get(machine(), {})
    if update:
        stored[machine()] = dict(sorted({**here, kind: losses}.items()))
        STORED.write_text(json.dumps(stored, indent=1) + "\n")
    elif kind in here:
        assert losses == here[kind][:steps], "bit for bit: nothing in the training may have changed"
    else:
        assert stored, "no losses are stored at all"
        name, reference = next((name, entry[kind]) for name, entry in stored.items() if kind in entry)
        warnings.warn(f"No losses are stored for {machine()}: compared to 1e-4 with those of {name}.", stacklevel=1)
        assert losses == pytest.approx(reference[:steps], rel=1e-4)
