"""Run files by kind: read one, plan it, train it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videodit import adapters, backbone, config, models
from videodit.autoencoder import inflate
from videodit.autoencoder.discriminator import PatchDiscriminator
from videodit.autoencoder.presets import PRESETS
from videodit.backbone import Transformer
from videodit.data.text import TextEncoder, TextSettings
from videodit.evaluate import report
from videodit.shapes import latent_size, token_size
from videodit.train import autoencoder, image_autoencoder
from videodit.train import backbone as transformer
from videodit.train.autoencoder import AutoencoderRun
from videodit.train.backbone import BackboneRun
from videodit.train.image_autoencoder import ImageAutoencoderRun
from videodit.train.launch import joined
from videodit.train.step import Figures, Interrupted, Job, Watch
from videodit.train.step import train as loop

__all__ = ["TEMPLATES", "Interrupted", "plan", "read", "train"]

Recipe = ImageAutoencoderRun | AutoencoderRun | BackboneRun
JOBS: dict[str, Callable[[Any], Job]] = {
    "image-autoencoder": image_autoencoder.job,
    "autoencoder": autoencoder.job,
    "backbone": transformer.job,
}
TEMPLATES: dict[str, Recipe] = {
    "image-autoencoder": ImageAutoencoderRun(output=Path("out/image-autoencoder")),
    "autoencoder": AutoencoderRun(output=Path("out/autoencoder"), image=Path("out/image-autoencoder/model")),
    "backbone": BackboneRun(output=Path("out/backbone"), autoencoder=Path("toybox")),
}


def read(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The settings of a run file, with `a.b=value` overrides on top."""
    return config.read(Recipe, Path(path), overrides)


def train(settings: Recipe, progress: Watch | None = None) -> list[Figures]:
    """Train a recipe, or take it up again where it stopped."""
    with joined(settings.device) as launch:
        with launch.in_turn():
            job = JOBS[settings.kind](settings)
        history = loop(settings, job, progress, launch)
    if launch.first:
        report.written(settings.output / "report.html", report.page(settings.output.name, report.columns([settings.output])))
    return history


def plan(settings: Recipe) -> dict[str, Any]:
    """What a run holds and handles, from the meta device: no weights are loaded."""
    assumed: list[str] = []
    with torch.device("meta"):
        network, extent = _META[settings.kind](settings, assumed)
    parameters = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return {
        "kind": settings.kind,
        "parameters": parameters,
        "trained": trained,
        **extent,
        "steps": settings.steps,
        "samples": settings.steps * settings.accumulate * settings.batch,
        # fp32: weights, and of what is trained gradient, average and two moments; activations come on top
        "state_bytes": 4 * (parameters + 4 * trained),
        "checkpoint_bytes": 16 * trained * settings.checkpoint.keep,
        "assumed": assumed,
    }


def _image_autoencoder(settings: ImageAutoencoderRun, assumed: list[str]) -> tuple[nn.Module, dict[str, Any]]:
    shape = image_autoencoder.shape(settings)
    return shape.build(), {"latents": list(latent_size(settings.size, space=shape.space, time=1))}


def _autoencoder(settings: AutoencoderRun, assumed: list[str]) -> tuple[nn.Module, dict[str, Any]]:
    network = inflate(_described(settings.image, assumed).image.build(), settings.groups)
    extent: dict[str, Any] = {"latents": list(network.latents(settings.size))}
    if not settings.weights.adversarial:
        return network, extent
    critic = PatchDiscriminator(settings.critics.discriminator)
    extent["discriminator"] = sum(p.numel() for p in critic.parameters())
    return nn.ModuleList([network, critic]), extent


def _backbone(settings: BackboneRun, assumed: list[str]) -> tuple[nn.Module, dict[str, Any]]:
    autoencoder = _described(settings.autoencoder, assumed).build()
    shape, text = transformer.shape(settings, autoencoder.channels), settings.text
    if settings.start is not None and (str(settings.start) == "toybox" or (settings.start / "model.toml").is_file()):
        folder = models.read(settings.start, models.ModelFolder)[1]
        shape, text = replace(folder.backbone, video=settings.size.frames > 1), folder.text
    elif settings.start is not None:
        assumed.append(f"{settings.start} is not there yet; the preset {settings.preset} is assumed")
    shape, latents = transformer.telling(shape, settings), autoencoder.latents(settings.size)
    network = nn.ModuleDict({"backbone": (built := backbone.build(shape))})
    if settings.lora:
        adapters.attach(built, settings.lora)
    # the features of encoders as large as SD3's are cached before the run, and labels are in the transformer
    if isinstance(shape, Transformer) and isinstance(text, TextSettings):
        network["text"] = TextEncoder(None, text).requires_grad_(settings.start is None)
    return network, {"latents": list(latents), "tokens": token_size(latents, (getattr(shape, "tube", 1), shape.patch, shape.patch)).count}


def _described(folder: Path, assumed: list[str]) -> models.DPVAEFile | models.PerFrameFile:
    """The autoencoder that a folder holds, or the toybox's where an earlier stage has still to make it."""
    if folder.is_dir() or str(folder) == "toybox":
        return models.describe(folder)
    assumed.append(f"{folder} is not there yet; the toybox's autoencoder is assumed")
    return models.DPVAEFile(image=PRESETS["toybox"])


_META: dict[str, Callable[[Any, list[str]], tuple[nn.Module, dict[str, Any]]]] = {
    "image-autoencoder": _image_autoencoder,
    "autoencoder": _autoencoder,
    "backbone": _backbone,
}
