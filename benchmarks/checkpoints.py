"""What saving every 100 steps costs of the throughput over 300 steps.

    OMP_NUM_THREADS=1 python benchmarks/checkpoints.py [--width 256] [--every 100] [--steps 300] [--repeats 3]

A transformer of 8 blocks learns from noise through the loop that all recipes share; runs with and without checkpoints take turns. Each
step counts at its fastest over the repeats, so that what else the machine does is left out but a pause at a save is not. Beside it: the
processor's time, of both threads, and how long the training waited for copies and for the thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from videodit.train import checkpoint
from videodit.train.saving import Saver
from videodit.train.step import Checkpoint, Job, Run, train


class Clock:
    """The wall and the processor's time of every step."""

    def __init__(self) -> None:
        self.wall, self.processor = [time.perf_counter()], [time.process_time()]

    def step(self, step: int, total: int, figures: dict[str, float]) -> None:
        self.wall.append(time.perf_counter())
        self.processor.append(time.process_time())


def job(width: int) -> Job:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
    network = nn.TransformerEncoder(layer, 8, enable_nested_tensor=False)

    def loss(index: int, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return (network(x) - x.flip(1)).square().mean(), {}

    def batch(index: int) -> Tensor:
        return torch.randn(4, 64, width, generator=torch.Generator().manual_seed(index))

    return Job(network=network, batch=batch, loss=loss, save=lambda folder: None)


def timed(folder: Path, width: int, every: int, steps: int) -> Clock:
    run = Run(output=folder, steps=steps + 1, checkpoint=Checkpoint(every=every), precision="fp32")  # the last save is waited for
    clock = Clock()
    train(run, job(width), clock)
    return clock


def least(clocks: list[Clock], kind: str, steps: int) -> float:
    """Each step at its fastest, summed."""
    times = torch.tensor([getattr(clock, kind)[: steps + 1] for clock in clocks], dtype=torch.float64).diff(dim=1)
    return times.min(0).values[1:].sum().item()  # the first step builds what all use


class Waited:
    """Adds up how long the training thread is held."""

    def __init__(self) -> None:
        self.seconds, self.saves = 0.0, 0
        for owner, name in ((checkpoint, "snapshot"), (Saver, "wait")):
            setattr(owner, name, self.clocked(getattr(owner, name)))

    def clocked(self, act):
        def acts(*given, **named):
            start = time.perf_counter()
            done = act(*given, **named)
            self.seconds += time.perf_counter() - start
            return done

        return acts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 256), ("every", 100), ("steps", 300), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    clocks: dict[str, list[Clock]] = {"with": [], "without": []}
    for repeat in range(given.repeats):
        for kind in ("with", "without") if repeat % 2 else ("without", "with"):
            with tempfile.TemporaryDirectory() as folder:
                every = given.every if kind == "with" else 10 * given.steps
                clocks[kind].append(timed(Path(folder), given.width, every, given.steps))
                size = sum(path.stat().st_size for path in (Path(folder) / "checkpoints").glob(f"step-{given.steps + 1:08d}/*"))
    for kind in ("wall", "processor"):
        with_, without = (least(clocks[name], kind, given.steps) for name in ("with", "without"))
        print(f"{kind}: {without:.2f} s without, {with_:.2f} s with, {100 * (with_ / without - 1):+.2f} %")
    waited = Waited()
    with tempfile.TemporaryDirectory() as folder:
        clock = timed(Path(folder), given.width, given.every, given.steps)
    spent = clock.wall[given.steps] - clock.wall[1]
    print(f"training waited {waited.seconds:.2f} s of {spent:.1f} s, the last save included ({size / 2**20:.0f} MiB a checkpoint)")


if __name__ == "__main__":
    main()
