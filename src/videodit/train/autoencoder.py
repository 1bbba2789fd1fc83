"""The training of DP-VAE: E_r and D learn beside the frozen image autoencoder (equation 4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from videodit import models
from videodit.autoencoder import DPVAESettings, inflate
from videodit.autoencoder.loss import Weights, dpvae_loss
from videodit.config import setting
from videodit.data import toybox
from videodit.shapes import Size
from videodit.train.step import Job, Run, provenance


@dataclass(frozen=True, kw_only=True)
class AutoencoderRun(Run):
    """Trains a DP-VAE on clips of the toybox."""

    kind: Literal["autoencoder"] = "autoencoder"
    image: Path = setting(doc="folder of the image autoencoder, as diffusers saves it")
    size: Size = setting(Size(16, 64, 64), doc="frames, rows, columns of a sample")
    groups: DPVAESettings = setting(DPVAESettings(), doc="how the image autoencoder is inflated")
    weights: Weights = setting(Weights(), doc="the terms of the loss")


def job(settings: AutoencoderRun) -> Job:
    torch.manual_seed(settings.seed)  # the starting weights of the temporal blocks
    network = inflate(models.load_autoencoder(settings.image).image, settings.groups).to(settings.device)
    latents = (network.channels, *network.latents(settings.size))

    def loss(step: int, video: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        generator = torch.Generator(settings.device).manual_seed(settings.seed * 1_000_003 + step)
        noise = torch.randn(len(video), *latents, generator=generator, device=settings.device)
        return dpvae_loss(network, video.to(settings.device), noise, settings.weights)

    return Job(
        network=network,
        batch=lambda step: clips(settings.seed, step * settings.batch, settings.batch, settings.size),
        loss=loss,
        save=lambda folder: models.save_autoencoder(folder, network, provenance(settings)),
        fresh=network.fresh(),
    )


def clips(seed: int, start: int, count: int, size: Size) -> Tensor:
    """Clips for learning to compress, b c f h w in -1..1: crowds in every second one, speeds from half to all of a motion."""
    videos = []
    for index in range(start, start + count):
        rng = np.random.default_rng([seed, index, 8])
        what = toybox.crowd(seed, index) if index % 2 else toybox.scene(seed, index)
        pace = rng.uniform(0.5, 1.0)
        at = rng.uniform(0, 1 - pace) + pace * toybox.times(size.frames)
        videos.append(torch.from_numpy(toybox.render(what, size, at=at)))
    return torch.stack(videos).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
