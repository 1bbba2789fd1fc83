"""The image autoencoder's training, for worlds that have none yet: reconstruction and a little KL, on single frames."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from videodit import models
from videodit.autoencoder import PerFrame
from videodit.autoencoder.presets import PRESETS, ImageAutoencoder
from videodit.config import setting
from videodit.data import worlds
from videodit.data.clips import Clips
from videodit.data.sources import Drawn, Filed, Toybox
from videodit.shapes import Size, UserError, latent_size
from videodit.train.pixels import Pixels, check
from videodit.train.step import Job, Run


@dataclass(frozen=True, kw_only=True)
class ImageAutoencoderRun(Run):
    """Trains an `AutoencoderKL` on pictures of a drawn world, on frames and pictures of files, or on both."""

    kind: Literal["image-autoencoder"] = "image-autoencoder"
    start: str = setting("none", doc="autoencoder whose weights are gone on from, a folder or 'toybox' (the bundled one), or none")
    preset: str = setting("toybox", doc="shape of the autoencoder, a name of autoencoder.presets")
    size: Size = setting(Size(1, 64, 64), doc="frames, rows, columns of a sample")
    world: Drawn = setting(Toybox(), doc="what is drawn where no file is read")
    data: Filed | None = setting(None, doc="files to learn from")
    clips: Clips = setting(Clips(), doc="how clips are drawn from them")
    kl: float = setting(2e-4, doc="weight of the divergence from a standard normal, mean over latent elements")
    absolute: float = setting(0.5, doc="weight of the absolute error beside the squared one")
    equivariance: float = setting(
        0.0, doc="part of the steps that decode latents shrunk and turned, to pictures changed alike: such latents are easier to generate"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.data)
        if not 0 <= self.equivariance <= 1 or not 0 <= self.kl < math.inf or not 0 <= self.absolute < math.inf:
            raise UserError("equivariance takes 0 to 1, and kl and absolute weights of 0 or more.")


def job(settings: ImageAutoencoderRun) -> Job:
    torch.manual_seed(settings.seed)  # the starting weights
    network = PerFrame(started(settings)).to(settings.device).train().requires_grad_(True)
    drawn = partial(worlds.moment, worlds.world(settings.world), settings.seed, settings.size)
    pixels = Pixels(settings.seed, settings.size, settings.data, settings.clips, settings.output, drawn)

    def loss(index: int, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = pictures.to(settings.device)
        posterior = network.encode(x)
        generator = torch.Generator(settings.device).manual_seed(settings.seed * 1_000_003 + index)
        z = posterior.sample(generator)
        if torch.rand((), generator=generator, device=settings.device) < settings.equivariance:
            z, x = changed_alike(generator, z, x)
        error = network.decode(z).float() - x
        squared, absolute = error.square().mean(), error.abs().mean()
        mean, std = posterior.mean.float(), posterior.std.float()
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()
        total = squared + settings.absolute * absolute + settings.kl * kl
        return total, {"psnr": 10 * torch.log10(4 / squared.detach()), "absolute": absolute.detach(), "kl": kl.detach()}

    return Job(
        network=network,
        batch=lambda index: pixels.batch(index * settings.batch, settings.batch),
        loss=loss,
        save=lambda folder: normalised(network, settings, pixels).save_pretrained(folder),
    )


def changed_alike(generator: torch.Generator, *grids: Float[Tensor, "b _c 1 _h _w"]) -> list[Tensor]:
    """Grids of any resolution, shrunk to a half, to three quarters or not, and turned by quarters: EQ-VAE's changes (arXiv:2502.09509)."""
    shrink, turns = (int(torch.randint(most, (), generator=generator, device=generator.device)) for most in (3, 4))
    changed = []
    for grid in grids:
        frame = grid[:, :, 0]
        if shrink:
            extent = [side * (4 - shrink) // 4 for side in frame.shape[-2:]]
            frame = F.interpolate(frame.float(), extent, mode="bilinear", antialias=True).to(grid.dtype)
        changed.append(frame.rot90(turns, (-2, -1))[:, :, None])
    return changed


def shape(settings: ImageAutoencoderRun) -> ImageAutoencoder:
    """The preset's, if it fits what is read."""
    if settings.preset not in PRESETS:
        raise UserError(f"There is no image autoencoder {settings.preset!r}: preset takes {', '.join(PRESETS)}.")
    found = PRESETS[settings.preset]
    latents = latent_size(settings.size, space=found.space, time=1)
    if settings.equivariance and (latents.frames > 1 or latents.rows % 4 or latents.columns % 4):
        raise UserError(
            f"equivariance shrinks single frames to three quarters, which {settings.size} cannot be: "
            f"use 1 frame of rows and columns in multiples of {4 * found.space}, or set equivariance=0."
        )
    return found


def started(settings: ImageAutoencoderRun) -> AutoencoderKL:
    """The autoencoder as the first step finds it; its latents are normalised anew when the run ends."""
    image = shape(settings).build()
    if settings.start != "none":
        given = models.load_autoencoder(settings.start).image
        if replace(ImageAutoencoder.of(given), scaling=1.0, shift=0.0) != shape(settings):
            raise UserError(f"start={settings.start} has another shape than the preset {settings.preset!r}: name its own.")
        image.load_state_dict(given.state_dict())
    return image


@torch.no_grad()
def normalised(network: PerFrame, settings: ImageAutoencoderRun, pixels: Pixels) -> AutoencoderKL:
    """Write into the configuration the shift and scaling that give latents mean 0 and deviation 1 on 512 pictures of no training step."""
    start = settings.steps * settings.accumulate * settings.batch
    network.image.register_to_config(shift_factor=0.0, scaling_factor=1.0)  # those of another average may stand there
    parts = (pixels.batch(start + 64 * i, 64).to(settings.device) for i in range(8))
    z = torch.cat([network.encode(part).mean.float() for part in parts])
    network.image.register_to_config(shift_factor=round(z.mean().item(), 6), scaling_factor=round(1 / z.std().item(), 6))
    return network.image
