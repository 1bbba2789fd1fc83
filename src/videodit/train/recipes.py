"""Run files by kind: read one, train it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from videodit import config
from videodit.backbone.attention import choosing
from videodit.evaluate import report
from videodit.folders import run_file
from videodit.shapes import UserError
from videodit.train import autoencoder, decoder, image_autoencoder, stages
from videodit.train import backbone as transformer
from videodit.train.autoencoder import AutoencoderRun
from videodit.train.backbone import BackboneRun
from videodit.train.decoder import DecoderRun
from videodit.train.faults import alone
from videodit.train.image_autoencoder import ImageAutoencoderRun
from videodit.train.launch import Launch, joined, there
from videodit.train.outlines import Recipe, outline
from videodit.train.progress import Progress, note
from videodit.train.step import Figures, Interrupted, Job, Watch
from videodit.train.step import train as loop

__all__ = ["TEMPLATES", "Interrupted", "Recipe", "read", "train"]

JOBS: dict[str, Callable[[Any], Job]] = {
    "image-autoencoder": image_autoencoder.job,
    "autoencoder": autoencoder.job,
    "backbone": transformer.job,
    "decoder": decoder.job,
}
TEMPLATES: dict[str, Recipe] = {
    "image-autoencoder": ImageAutoencoderRun(output=Path("out/image-autoencoder")),
    "autoencoder": AutoencoderRun(output=Path("out/autoencoder"), image=Path("out/image-autoencoder/model")),
    "backbone": BackboneRun(output=Path("out/backbone"), autoencoder=Path("toybox")),
    "decoder": DecoderRun(output=Path("out/decoder"), model=Path("out/backbone/model")),
}


def read(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The settings of a run file, or of one of the package's by its name, with `a.b=value` overrides on top."""
    return _sound(config.read(Recipe, run_file(path), overrides))


def read_text(text: str, overrides: Sequence[str]) -> Recipe:
    """The settings of a run that has no file."""
    return _sound(config.parse(Recipe, text, overrides, name="the command line"))


def _sound(settings: Recipe) -> Recipe:
    stages.stages(settings)  # which says what is wrong with a later one
    return settings


def train(settings: Recipe, progress: Watch | None = None) -> list[Figures]:
    """Train a recipe, stage after stage, or take it up again where it stopped."""
    there(settings.device)
    runs, history = stages.stages(settings), list[Figures]()
    with joined(settings.device, offload=settings.parallel.offload) as launch, ExitStack() as locks:
        if launch.first:
            for run in runs:
                locks.enter_context(alone(run.output))
        done = stages.done(runs)
        if len(runs) > 1:
            _sound_ahead(settings, launch)
        for number, run in enumerate(runs[done:], done + 1):
            if launch.first and len(runs) > 1:
                stages.begin(run)
                note(f"Stage {number} of {len(runs)}, in {run.output}.")
            history += _stage(run, progress, launch)
            if launch.first:
                _report(runs[:number])
            if launch.first and number < len(runs):
                stages.finish(run)
    return history


def _sound_ahead(settings: Recipe, launch: Launch) -> None:
    """Say what is wrong with a stage before those that come first are trained."""
    for run in stages.stages(settings, ahead=True):
        run.parallel.copies(launch.size)
        replace(launch, sequence=run.parallel.sequence).share(run.accumulate)
        with torch.device("meta"):
            outline(run, [])


def _stage(settings: Recipe, progress: Watch | None, launch: Launch) -> list[Figures]:
    if isinstance(progress, Progress):
        progress.begins(settings.device, settings.precision)
    with choosing():
        with launch.in_turn():
            job = JOBS[settings.kind](settings)
        return loop(settings, job, progress, launch)


def _report(runs: Sequence[Recipe]) -> None:
    """Of the last run its own page, with those before beside it."""
    last = runs[-1].output
    if not report.curves(last / "log.jsonl"):
        return
    (page := last / "report.html").unlink(missing_ok=True)
    try:
        report.written(page, report.page(last.name, report.columns([run.output for run in runs])))
    except UserError as error:  # the run is whole without it
        note(f"There is no report: {error}")
