"""Run files by kind: read one, train it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from videodit import config
from videodit.evaluate import report
from videodit.folders import run_file
from videodit.shapes import UserError
from videodit.train import autoencoder, decoder, image_autoencoder
from videodit.train import backbone as transformer
from videodit.train.autoencoder import AutoencoderRun
from videodit.train.backbone import BackboneRun
from videodit.train.decoder import DecoderRun
from videodit.train.faults import alone
from videodit.train.image_autoencoder import ImageAutoencoderRun
from videodit.train.launch import joined, there
from videodit.train.outlines import Recipe
from videodit.train.progress import note
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
    return config.read(Recipe, run_file(path), overrides)


def read_text(text: str, overrides: Sequence[str]) -> Recipe:
    """The settings of a run that has no file."""
    return config.parse(Recipe, text, overrides, name="the command line")


def train(settings: Recipe, progress: Watch | None = None) -> list[Figures]:
    """Train a recipe, or take it up again where it stopped."""
    there(settings.device)
    with (
        joined(settings.device, offload=settings.parallel.offload) as launch,
        alone(settings.output) if launch.first else nullcontext(),
    ):
        with launch.in_turn():
            job = JOBS[settings.kind](settings)
        history = loop(settings, job, progress, launch)
    if launch.first and report.curves(settings.output / "log.jsonl"):
        (page := settings.output / "report.html").unlink(missing_ok=True)
        try:
            report.written(page, report.page(settings.output.name, report.columns([settings.output])))
        except UserError as error:  # the run is whole without it
            note(f"There is no report: {error}")
    return history
