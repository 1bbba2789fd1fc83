"""The shared step of every training: what a run file always says, and the loop itself.

A job says what one step's loss is; the loop does the rest. All that happens at step n is a function of (seed, n).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from videodit import config, models, parallel
from videodit.config import setting
from videodit.data.worlds import origin
from videodit.models import Provenance
from videodit.parallel import Parallel, sharding
from videodit.shapes import UserError
from videodit.train import checkpoint
from videodit.train.average import Average
from videodit.train.checkpoint import Position, Snapshot
from videodit.train.faults import Faults, Interrupted, broken, is_finite, layer, sentence, stopping
from videodit.train.launch import Launch
from videodit.train.log import Log, means
from videodit.train.optimizer import Optimizer
from videodit.train.progress import note
from videodit.train.saving import Saver, newest
from videodit.train.track import Track, tracked

Figures = dict[str, float]
Tell = Callable[[int, Figures], None]
ALONE = Launch()


@runtime_checkable
class Watch(Protocol):
    """What follows a run: a progress bar, or nothing."""

    def step(self, step: int, total: int, figures: Figures) -> None: ...


@runtime_checkable
class Look(Protocol):
    """What is seen of a run now and then, with the averaged weights in the network: figures for the log, files in its output."""

    def due(self, step: int) -> bool: ...

    def __call__(self, step: int) -> Figures: ...


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    every: int = setting(200, doc="steps between checkpoints")
    keep: int = setting(2, doc="how many of the newest are kept, each verified")

    def __post_init__(self) -> None:
        if self.every < 1 or self.keep < 1:
            raise UserError(f"checkpoint.every and checkpoint.keep take 1 or more, not {self.every} and {self.keep}")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every recipe says at its top."""

    inflates: ClassVar[bool] = False  # whether some of what learns was not inherited
    output: Path = setting(doc="folder of the run: OUTPUT/checkpoints while it lasts, OUTPUT/model when finished")
    seed: int = setting(0, doc="with the step, decides every sample and all noise")
    steps: int = setting(1000, doc="optimiser steps in all")
    batch: int = setting(32, doc="clips or images a pass")
    accumulate: int = setting(1, doc="passes whose gradients make one step: a step is on batch times accumulate")
    device: str = setting("cpu", doc="cpu, cuda or mps")
    precision: Literal["fp32", "bf16"] = setting("bf16", doc="of activations; weights, their average and the optimiser stay fp32")
    then: tuple[tuple[str, ...], ...] = setting((), doc="stages that follow on its weights, each a list of the settings that change")
    average: float = setting(0.995, doc="decay of the moving average of the weights, which OUTPUT/model has")
    averages: tuple[float, ...] = setting((), doc="decays of others, which are left in OUTPUT/model-DECAY")
    checkpoint: Checkpoint = setting(Checkpoint(), doc="when the run can be taken up again")
    optimizer: Optimizer = setting(Optimizer(), doc="AdamW, or Muon beside it")
    parallel: Parallel = setting(Parallel(), doc="what the processes of a launch share beside passes")
    faults: Faults = setting(Faults(), doc="what the run bears")
    track: Track = setting("nothing", doc="who else is told the figures of the log: nothing else, or TensorBoard, in OUTPUT/tensorboard")

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch", 1), ("accumulate", 1)):
            if (value := getattr(self, name)) < least:
                raise UserError(f"{name} takes {least} or more, not {value}.")
        if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", self.device):
            raise UserError(f"device takes cpu, cuda or mps, not {self.device}.")
        if bad := [decay for decay in (self.average, *self.averages) if not 0 <= decay < 1]:
            raise UserError(f"average and averages take decays from 0 up to, not including, 1, not {bad[0]}.")
        if self.average in self.averages:
            raise UserError(f"OUTPUT/model has the average of decay {self.average} already: leave it out of averages.")
        if self.optimizer.fresh != 1 and not self.inflates:
            raise UserError("optimizer.fresh is for what an inflated autoencoder did not inherit (kind=autoencoder): leave it out.")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"A seed of {self.seed} is out of range: use 0 to {2**32 - 1}.")
        if self.parallel.offload and self.device in ("cpu", "mps"):
            raise UserError(f"With device={self.device} all is in main memory already: leave parallel.offload out, or set device=cuda.")

    @property
    def digest(self) -> str:
        """Of all that decides what a step does; how long, where and how safely the run goes is left out."""
        same = replace(
            self, output=Path(), steps=0, device="cpu", checkpoint=Checkpoint(), parallel=Parallel(), faults=Faults(), track="nothing"
        )
        return hashlib.sha256(config.write(same).encode()).hexdigest()


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
    named: Callable[[Any], Sequence[str]] = lambda batch: ()  # the clips or files of what `batch` made
    fresh: Sequence[nn.Parameter] = ()  # what an inflated network did not inherit
    rival: Rival | None = None
    look: Look | None = None
    keep: Callable[[Path], None] = lambda output: None  # leaves there what a run is taken up with beside checkpoints


@dataclass(frozen=True)
class Player:
    """A network that learns: its optimisers, their rate, and the step from which it does."""

    network: nn.Module
    settings: Optimizer
    optimizers: list[torch.optim.Optimizer]
    start: int = 0

    @property
    def groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def norm(self) -> Tensor:
        """Of the whole gradient."""
        return sharding.norm([p.grad for group in self.groups for p in group["params"] if p.grad is not None])

    def learn(self, step: int, steps: int, norm: Tensor) -> None:
        """One step along the gradients, whose norm this is."""
        rate = self.settings.rate(step, steps)
        for group in self.groups:
            group["lr"] = rate * group["scale"]
        sharding.clip([p for group in self.groups for p in group["params"]], self.settings.clip, norm)
        for optimizer in self.optimizers:
            optimizer.step()


@dataclass(frozen=True)
class Told:
    """What a step tells: its figures, and what was not finite, if it was left out for that."""

    figures: Figures
    fault: str | None = None


def train(settings: Run, job: Job, watch: Watch | None = None, launch: Launch = ALONE) -> list[Figures]:
    """Train or take up again; returns the figures of the steps done now."""
    if job.look and settings.parallel.splits:
        raise UserError("looks need whole weights in one process: set looks.every=0, or leave parallel.shard and parallel.sequence at 1.")
    launch = _split(settings, job.network, launch)
    launch.share(settings.accumulate)
    players = [Player(job.network, settings.optimizer, settings.optimizer.build(job.network, job.fresh))]
    if job.rival:
        players.append(Player(job.rival.network, job.rival.optimizer, job.rival.optimizer.build(job.rival.network), job.rival.start))
    average = Average(job.network, settings.average, settings.averages)
    everything = job.network if not job.rival else nn.ModuleDict({"network": job.network, "rival": job.rival.network})
    optimizers = [optimizer for player in players for optimizer in player.optimizers]
    position = _taken_up(settings, launch, lambda path: checkpoint.restore(path, everything, optimizers, average, settings.seed))
    if launch.first:
        _record(settings, job)
    history: list[Figures] = []
    first, end = position.step * settings.accumulate + launch.reader, settings.steps * settings.accumulate
    passes = _ahead(job.batch, range(first, end, launch.readers))

    with stopping() as signals, launch.stepping(settings.faults.wait), _keeper(settings, launch, position.step) as keeper:
        for step in range(position.step, settings.steps):
            told = _step(settings, job, players, step, passes, launch)
            if not told.fault:
                average.update(job.network, step)
            skipped = position.skipped + 1 if told.fault else 0
            position = Position(step=step + 1, passes=(step + 1) * settings.accumulate, skipped=skipped)
            if job.look and launch.first and job.look.due(position.step):
                with launch.busy():
                    told.figures.update(_looked(job.look, job.network, average, position.step))
            history.append(told.figures)
            if watch:
                watch.step(position.step, settings.steps, told.figures)
            stop = max(launch.gathered(signals[0] if signals else 0))  # the processes hear of it in different steps
            with launch.busy():
                taken = partial(checkpoint.snapshot, network=everything, optimizers=optimizers, average=average, keep=launch.first)
                keeper.step(position, told, stop, taken)
            if skipped >= settings.faults.skip:
                raise UserError(broken(skipped, told.fault))
            if stop:
                saved = launch.gathered(keeper.saver.saved if keeper.saver else None)[0]
                raise _stopped(stop, position.step, settings.steps, saved)
    _leave(settings, job, average, launch)
    return history


def _leave(settings: Run, job: Job, average: Average, launch: Launch) -> None:
    """A model folder for each average, the first one's last; the network keeps the weights that learnt."""
    trained: dict[str, Tensor] = {}
    for decay, end in reversed(average.ends.items()):
        before = average.apply(job.network, decay)
        trained = trained or before
        with sharding.gathered(job.network, keep=launch.first):
            if launch.first:
                job.save(settings.output / f"model{end.replace('@', '-')}")
    job.network.load_state_dict(trained, strict=False)


def _split(settings: Run, network: nn.Module, launch: Launch) -> Launch:
    """The launch as the settings share its processes out, the network being split among them."""
    settings.parallel.copies(launch.size)
    if settings.parallel.splits:
        mesh = parallel.build(settings.parallel, launch.size, settings.device)
        parallel.wrap(network, settings.parallel, mesh, half=settings.precision == "bf16")
    return replace(launch, sequence=settings.parallel.sequence, shared=settings.parallel.splits)


def _taken_up(settings: Run, launch: Launch, restore: Callable[[Path], Position]) -> Position:
    """Where the run stands, after what the first process found whole was put back in all of them."""
    there = launch.gathered(newest(settings.output / "checkpoints") if launch.first else None)[0]
    position = restore(there) if there else Position(step=0)
    if position.passes != position.step * settings.accumulate:
        was = position.passes // position.step
        raise UserError(f"{there} was written with accumulate={was}: set it as it was, or choose another output.")
    if position.step > settings.steps:
        raise UserError(f"{there} has {position.step} steps and the run asks for {settings.steps}: raise steps or choose another output.")
    return position


def _step(settings: Run, job: Job, players: list[Player], step: int, passes: Iterator[tuple[int, Any]], launch: Launch) -> Told:
    """All passes of a step, then each player's move, unless a number is not finite; figures are means over the passes that have them."""
    first, *others = players
    rival = others[0] if others and step >= others[0].start else None
    everyone = [first, *([rival] if rival else [])]
    for player in everyone:
        player.network.zero_grad(set_to_none=True)
    told: list[tuple[int, dict[str, Tensor], Sequence[str]]] = []
    mixed = torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=settings.precision == "bf16")
    for index, batch in islice(passes, launch.share(settings.accumulate)):
        with launch.together():
            with mixed:
                loss, figures = job.loss(index, batch)
            if loss.requires_grad:  # a picture may pass by all that learns
                (loss / settings.accumulate / launch.sequence).backward()
        figures = {"loss": loss.detach(), **figures}
        if rival and job.rival:
            with mixed:
                loss, more = job.rival.loss()
            (loss / settings.accumulate).backward()
            figures |= more
        told.append((index, figures, job.named(batch)))
    with launch.together():  # on a GPU it is here that a pass is waited for
        mine = {index: {name: value.item() for name, value in of.items()} for index, of, _ in told}
    every = sorted({index: of for theirs in launch.gathered(mine) for index, of in theirs.items()}.items())
    figures = means([of for _, of in every])
    for player in everyone:
        launch.add(player.network.parameters())
    norms = [player.norm() for player in everyone]
    figures |= {"norm": norms[0].item(), "rate": settings.optimizer.rate(step, settings.steps)}
    if not is_finite([figures["loss"]], [norm.item() for norm in norms]):
        bad = [index for index, of in every if not math.isfinite(of["loss"])] or [index for index, _ in every]
        named = {index: names for theirs in launch.gathered({index: names for index, _, names in told}) for index, names in theirs.items()}
        return Told(figures, sentence(step, {index: named[index] for index in bad}, layer([player.network for player in everyone])))
    for player, norm in zip(everyone, norms, strict=True):
        player.learn(step, settings.steps, norm)
    return Told(figures)


def _looked(look: Look, network: nn.Module, average: Average, step: int) -> Figures:
    """With the averaged weights, which then give place again."""
    learning = average.apply(network)
    try:
        return look(step)
    finally:
        network.load_state_dict(learning, strict=False)


def _ahead(batch: Callable[[int], Any], passes: range) -> Iterator[tuple[int, Any]]:
    """(pass, batch), the next batch being made in a thread while this one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(batch, passes.start)
        for at in passes:
            now = coming.result()
            if at + passes.step < passes.stop:
                coming = pool.submit(batch, at + passes.step)
            yield at, now


class Keeper:
    """What the first process writes as the run goes: the log, and checkpoints, for which others bring their shards."""

    def __init__(self, settings: Run, log: Log | None = None, saver: Saver | None = None, tell: Tell = lambda step, figures: None) -> None:
        self.settings, self.log, self.saver, self.tell = settings, log, saver, tell
        self._due = False

    def step(self, position: Position, told: Told, stop: int, taken: Callable[[Position], Snapshot]) -> None:
        """A step is done; a checkpoint that is due waits for a step that was not left out."""
        self.tell(position.step, told.figures)
        if self.log:
            self.log.write(position.step, told.figures, told.fault)
        if self.log and told.fault:
            note(f"Not finite: {told.fault}; the step is left out.")
        last = (stop or position.step == self.settings.steps) and position.skipped < self.settings.faults.skip
        self._due = self._due or position.step % self.settings.checkpoint.every == 0
        if last or (self._due and not position.skipped):
            self._due = False
            if self.saver:
                self.saver.wait()
                self.saver.save(taken(position))
            elif self.settings.parallel.shard > 1:
                taken(position)
        if last and self.saver:
            self.saver.wait()


@contextmanager
def _keeper(settings: Run, launch: Launch, done: int) -> Iterator[Keeper]:
    """One process writes."""
    if not launch.first:
        yield Keeper(settings)
        return
    facts = {"seed": settings.seed, "settings": settings.digest, "code": {"videodit": models.commit(), "torch": torch.__version__}}
    checkpoints, keep = settings.output / "checkpoints", settings.checkpoint.keep
    with Log(settings.output / "log.jsonl", done) as log, Saver(checkpoints, keep, facts, log) as saver:
        yield Keeper(settings, log, saver, tracked(settings.track, settings.output, done))


def _stopped(number: int, step: int, steps: int, saved: int | None) -> BaseException:
    if saved == step:
        return Interrupted(f"Stopped at step {step} of {steps}; the same command goes on from there.", number=number)
    return UserError(
        f"Stopped at step {step} of {steps}, whose checkpoint could not be written; the same command goes on from the last one."
    )


def _record(settings: Run, job: Job) -> None:
    """Make the output folder and leave the whole of the settings in it."""
    try:
        settings.output.mkdir(parents=True, exist_ok=True)
        (settings.output / "run.toml").write_text(config.write(settings))
        job.keep(settings.output)
    except OSError as error:
        raise UserError(
            f"The output folder {settings.output} cannot be written ({error.strerror}): choose another with output=FOLDER."
        ) from error


def provenance(settings: Run) -> Provenance:
    """Where the weights of a finished run come from; hours are those between log lines, pauses left out."""
    times = [json.loads(line)["time"] for line in (settings.output / "log.jsonl").read_text().splitlines()]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    most = max(60.0, 3 * statistics.median(gaps or [0.0]))  # what lasts longer is a pause
    spent = sum(min(gap, most) for gap in gaps)
    return Provenance(
        commit=models.commit(),
        run=settings.output.name,
        steps=settings.steps,
        hours=round(spent / 3600, 3),
        machine=models.trained_on(),
        sources=tuple(origin(x) for x in (getattr(settings, "data", None), getattr(settings, "world", None)) if x is not None),
    )
