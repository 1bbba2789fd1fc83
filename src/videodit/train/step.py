"""The shared step of every training: what a run file always says, and the loop itself.

A job says what one step's loss is; the loop does the rest. All that happens at step n is a function of (seed, n).
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from videodit import config, models
from videodit.config import setting
from videodit.models import Provenance
from videodit.shapes import UserError
from videodit.train import checkpoint
from videodit.train.average import Average
from videodit.train.launch import Launch
from videodit.train.optimizer import Optimizer

Figures = dict[str, float]
ALONE = Launch()


class Interrupted(KeyboardInterrupt):
    """The user stopped a run; its checkpoint is written."""


@runtime_checkable
class Watch(Protocol):
    """What follows a run: a progress bar, or nothing."""

    def step(self, step: int, total: int, figures: Figures) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    every: int = setting(200, doc="steps between checkpoints")
    keep: int = setting(1, doc="how many of the newest are kept")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every recipe says at its top."""

    output: Path = setting(doc="folder of the run: OUTPUT/checkpoints while it lasts, OUTPUT/model when finished")
    seed: int = setting(0, doc="with the step, decides every sample and all noise")
    steps: int = setting(1000, doc="optimiser steps in all")
    batch: int = setting(32, doc="clips or images a pass")
    accumulate: int = setting(1, doc="passes whose gradients make one step: a step is on batch times accumulate")
    device: str = setting("cpu", doc="cpu, cuda or mps")
    precision: Literal["fp32", "bf16"] = setting("bf16", doc="of activations; weights, their average and the optimiser stay fp32")
    average: float = setting(0.995, doc="decay of the moving average of the weights")
    checkpoint: Checkpoint = setting(Checkpoint(), doc="when the run can be taken up again")
    optimizer: Optimizer = setting(Optimizer(), doc="AdamW, or Muon beside it")


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A second player, such as a discriminator: it learns after each pass of the first, from what that pass left.

    Its own parameters must be out of the first player's graph.
    """

    network: nn.Module
    loss: Callable[[], tuple[Tensor, dict[str, Tensor]]]
    optimizer: Optimizer
    start: int = 0  # the step from which it learns


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained, on what, to what end. A pass is one forward and backward; a step is `accumulate` of them."""

    network: nn.Module
    batch: Callable[[int], Any]  # pass -> what `loss` takes; runs ahead in a thread
    loss: Callable[[int, Any], tuple[Tensor, dict[str, Tensor]]]
    save: Callable[[Path], None]  # writes the model folder, with the averaged weights in the network
    fresh: Sequence[nn.Parameter] = ()  # what an inflated network did not inherit
    rival: Rival | None = None


@dataclass(frozen=True)
class Player:
    """A network that learns: its optimisers, their rate, and the step from which it does."""

    network: nn.Module
    settings: Optimizer
    optimizers: list[torch.optim.Optimizer]
    start: int = 0

    def learn(self, step: int, steps: int) -> float:
        """One step along the gradients; returns their norm."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        rate = self.settings.rate(step, steps)
        for group in groups:
            group["lr"] = rate * group["scale"]
        norm = torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], self.settings.clip)
        if not torch.isfinite(norm):
            raise UserError(f"The gradient of step {step + 1} is not finite: lower the learning rate; the last checkpoint is good.")
        for optimizer in self.optimizers:
            optimizer.step()
        return norm.item()


def train(settings: Run, job: Job, watch: Watch | None = None, launch: Launch = ALONE) -> list[Figures]:
    """Train or take up again; returns the figures of the steps done now."""
    launch.share(settings.accumulate)
    checkpoints, finished = settings.output / "checkpoints", settings.output / "model"
    players = [Player(job.network, settings.optimizer, settings.optimizer.build(job.network, job.fresh))]
    if job.rival:
        players.append(Player(job.rival.network, job.rival.optimizer, job.rival.optimizer.build(job.rival.network), job.rival.start))
    average = Average(job.network, settings.average)
    everything = job.network if not job.rival else nn.ModuleDict({"network": job.network, "rival": job.rival.network})
    optimizers = [optimizer for player in players for optimizer in player.optimizers]
    if launch.first:
        _record(settings)
    done = 0
    if there := checkpoint.found(checkpoints):
        done = checkpoint.restore(there[-1], everything, optimizers, average)
    if done > settings.steps:
        raise UserError(f"{there[-1]} has {done} steps and the run asks for {settings.steps}: raise steps or choose another output.")
    history: list[Figures] = []
    passes = _ahead(job.batch, range(done * settings.accumulate + launch.rank, settings.steps * settings.accumulate, launch.size))

    with _stop_politely() as stopped, _log(settings.output / "log.jsonl", launch) as log:
        for step in range(done, settings.steps):
            figures = _step(settings, job, players, step, passes, launch)
            average.update(job.network, step)
            done = step + 1
            history.append(figures)
            log.write(json.dumps({"step": done, "time": round(time.time(), 2), **{k: round(v, 6) for k, v in figures.items()}}) + "\n")
            if watch:
                watch.step(done, settings.steps, figures)
            stop = any(launch.gathered(bool(stopped)))  # the processes hear of it in different steps
            if launch.first and (stop or done % settings.checkpoint.every == 0 or done == settings.steps):
                checkpoint.save(checkpoints, done, everything, optimizers, average, keep=settings.checkpoint.keep)
            if stop:
                raise Interrupted(f"Stopped at step {done} of {settings.steps}; the same command goes on from there.")
    trained = average.apply(job.network)
    if launch.first:
        job.save(finished)
    job.network.load_state_dict(trained, strict=False)
    return history


def _step(settings: Run, job: Job, players: list[Player], step: int, passes: Iterator[tuple[int, Any]], launch: Launch) -> Figures:
    """All passes of a step, then each player's move; figures are means over the passes that have them."""
    first, *others = players
    rival = others[0] if others and step >= others[0].start else None
    everyone = [first, *([rival] if rival else [])]
    for player in everyone:
        player.network.zero_grad(set_to_none=True)
    told: list[dict[str, Tensor]] = []
    mixed = torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=settings.precision == "bf16")
    for index, batch in islice(passes, launch.share(settings.accumulate)):
        with mixed:
            loss, figures = job.loss(index, batch)
        (loss / settings.accumulate).backward()
        figures = {"loss": loss.detach(), **figures}
        if rival and job.rival:
            with mixed:
                loss, more = job.rival.loss()
            (loss / settings.accumulate).backward()
            figures |= more
        told.append(figures)
    figures = _means(launch.gathered([{name: value.item() for name, value in figures.items()} for figures in told]))
    if not math.isfinite(figures["loss"]):
        raise UserError(f"The loss of step {step + 1} is not finite: lower optimizer.learning_rate; the last checkpoint is good.")
    for player in everyone:
        launch.add(player.network.parameters())
    norms = [player.learn(step, settings.steps) for player in everyone]
    rate = settings.optimizer.rate(step, settings.steps)
    return {**figures, "norm": norms[0], "rate": rate}


def _means(told: list[list[Figures]]) -> Figures:
    """Over all passes of all processes."""
    found: dict[str, list[float]] = {}
    for figures in itertools.chain(*told):
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


def _ahead(batch: Callable[[int], Any], passes: range) -> Iterator[tuple[int, Any]]:
    """(pass, batch), the next batch being made in a thread while this one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(batch, passes.start)
        for at in passes:
            now = coming.result()
            if at + passes.step < passes.stop:
                coming = pool.submit(batch, at + passes.step)
            yield at, now


def _log(path: Path, launch: Launch) -> IO[str]:
    """One process writes it."""
    return path.open("a", buffering=1) if launch.first else open(os.devnull, "w")


def _record(settings: Run) -> None:
    """Make the output folder and leave the whole of the settings in it."""
    try:
        settings.output.mkdir(parents=True, exist_ok=True)
        (settings.output / "run.toml").write_text(config.write(settings))
    except OSError as error:
        raise UserError(
            f"The output folder {settings.output} cannot be written ({error.strerror}): choose another with output=FOLDER."
        ) from error


@contextmanager
def _stop_politely() -> Iterator[list[int]]:
    """Collect Ctrl-C (and a polite kill) so that the step under way is finished; a second Ctrl-C ends at once."""
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever runs us there stops us in another way
        before = {}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def provenance(settings: Run) -> Provenance:
    """Where the weights of a finished run come from; hours are those between log lines, pauses left out."""
    times = [json.loads(line)["time"] for line in (settings.output / "log.jsonl").read_text().splitlines()]
    spent = sum(min(after - before, 60.0) for before, after in itertools.pairwise(times))
    return Provenance(
        commit=_commit(), run=settings.output.name, steps=settings.steps, hours=round(spent / 3600, 3), machine=models.trained_on()
    )


def _commit() -> str:
    """The commit of this checkout, or nothing where the package is installed without one."""
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() if answer.returncode == 0 else ""
