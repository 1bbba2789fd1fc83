"""Lives of a tiny run: one process imports everything once and forks a child for each, which trains until it is killed.

    python lives.py FOLDER STEPS EVERY
Each line on standard input is `OUTPUT|LIFE`:
    whole | after SECONDS (from its first step on) | inside N (as it enters the N-th call of a save): answered by the exit status and
        the step of the newest checkpoint that it said was written
    signals NUMBER TIMES: sent in its fifth step, on the command line; answered alike
    launch RANK HOW: two processes, one of which comes to harm in its fifth step; answered by the status of the other, and how many
        seconds it outlived that
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videodit.cli import main as cli
from videodit.train import checkpoint, saving
from videodit.train.faults import Faults
from videodit.train.launch import joined
from videodit.train.optimizer import Optimizer
from videodit.train.step import Checkpoint, Job, Run, train

WIDTH = 24


def job(folder: Path) -> Job:
    """A small network with two kinds of moments; what it learns is a function of the pass."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ModuleList([nn.Linear(WIDTH, WIDTH)]), nn.Linear(WIDTH, 1))

    def loss(index: int, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        y = network[2](torch.tanh(network[1][0](torch.tanh(network[0](x)))))
        error = (y[:, 0] - x.sum(1).sin()).square().mean()
        return error, {"half": error.detach() / 2}

    def batch(index: int) -> Tensor:
        return torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(index))

    return Job(network=network, batch=batch, loss=loss, save=lambda path: path.mkdir(exist_ok=True))


def settings(folder: Path, steps: int, every: int) -> Run:
    optimizer = Optimizer(warmup=2, muon=2e-3)
    saved = Checkpoint(every=every)
    return Run(output=folder, steps=steps, accumulate=2, precision="fp32", average=0.9, checkpoint=saved, optimizer=optimizer)


def power_cut() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Pace:
    """Slows a run down, so that a moment falls anywhere in it, and begins the clock of its death."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds

    def step(self, step: int, total: int, figures: dict[str, float]) -> None:
        if self.seconds is not None:
            threading.Timer(self.seconds, power_cut).start()
            self.seconds = None
        time.sleep(0.002)


class Signals:
    """Sends itself as many in the fifth step as it is told to."""

    def __init__(self, number: int, times: int) -> None:
        self.number, self.times = number, times

    def step(self, step: int, total: int, figures: dict[str, float]) -> None:
        for _ in range(self.times if step == 5 else 0):
            os.kill(os.getpid(), self.number)


def counted(number: int) -> None:
    """Die at the `number`-th thing that a save does to the disk."""
    left = [number]

    def dying(act: Any) -> Any:
        def acts(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                power_cut()
            return act(*given, **named)

        return acts

    for name in ("save_file", "synced", "remove", "_sealed"):
        setattr(checkpoint, name, dying(getattr(checkpoint, name)))
    Path.rename = dying(Path.rename)
    checkpoint.shutil.rmtree = dying(checkpoint.shutil.rmtree)


def live(run: Run, life: str, told: int) -> int:
    kind, _, amount = life.partition(" ")
    if kind == "inside":
        counted(int(amount))
    write = checkpoint.write

    def telling(*given: Any) -> Path:
        path = write(*given)
        os.write(told, path.name[-8:].encode())
        return path

    saving.checkpoint.write = telling
    watch = Signals(*map(int, amount.split())) if kind == "signals" else Pace(float(amount) if kind == "after" else None)
    cli.train.run = lambda given: train(run, job(run.output), watch)
    return cli.main(["train", "any.toml"])


class Harm:
    """What one process of a launch does to itself in its fifth step."""

    def __init__(self, output: Path, how: str) -> None:
        self.output, self.how = output, how

    def step(self, step: int, total: int, figures: dict[str, float]) -> None:
        if step == 5:
            (self.output / "harm").touch()
            HARM[self.how]()


def slow() -> None:
    """It works for longer than the others wait for one that does nothing."""
    over = time.monotonic() + 1.5 * Faults().wait
    while time.monotonic() < over:
        pass


def failing() -> None:
    raise ZeroDivisionError("a mistake of one process")


HARM = {
    "killed": power_cut,
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "stuck": lambda: time.sleep(120),
    "slow": slow,
    "failed": failing,
    "told": lambda: os.kill(os.getpid(), signal.SIGTERM),
}


def launched(run: Run, rank: int, how: str) -> tuple[int, float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for mine in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            os.environ.update(shared, RANK=str(mine))
            os.dup2(os.open(run.output.with_suffix(f".{mine}"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)

            def joint(given: Any, mine: int = mine) -> None:
                with joined("cpu") as launch:
                    train(run, job(run.output), Harm(run.output, how) if mine == rank else Pace(None), launch)

            cli.train.run = joint
            status = 1
            try:
                status = cli.main(["train", "any.toml"])
            finally:
                os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(children[1 - rank], 0)[1])
    ended = time.time()
    os.kill(children[rank], signal.SIGKILL)
    os.waitpid(children[rank], 0)
    harm = run.output / "harm"
    return status, ended - harm.stat().st_mtime if harm.exists() else 0.0


def main() -> None:
    run = settings(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    torch.set_num_threads(1)
    for line in sys.stdin:
        output, _, life = line.strip().partition("|")
        if life.startswith("launch"):
            _, rank, how = life.split()
            print(*launched(replace(run, output=Path(output)), int(rank), how), flush=True)
            continue
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = live(replace(run, output=Path(output)), life, told)
            finally:
                os._exit(status)
        os.close(told)
        said = b""
        while more := os.read(heard, 4096):
            said += more
        os.close(heard)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(said[-8:] or b"0"), flush=True)


if __name__ == "__main__":
    main()
