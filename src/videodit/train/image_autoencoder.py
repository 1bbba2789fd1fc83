"""The image autoencoder's training, for worlds that have none yet: reconstruction and a little KL, on single frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from videodit.autoencoder import PerFrame
from videodit.autoencoder.presets import PRESETS, ImageAutoencoder
from videodit.config import setting
from videodit.data import toybox
from videodit.shapes import Size, UserError
from videodit.train.step import Job, Run


@dataclass(frozen=True, kw_only=True)
class ImageAutoencoderRun(Run):
    """Trains an `AutoencoderKL` on pictures of the toybox."""

    kind: Literal["image-autoencoder"] = "image-autoencoder"
    preset: str = setting("toybox", doc="shape of the autoencoder, a name of autoencoder.presets")
    size: Size = setting(Size(1, 64, 64), doc="frames, rows, columns of a sample")
    kl: float = setting(2e-4, doc="weight of the divergence from a standard normal, mean over latent elements")
    absolute: float = setting(0.5, doc="weight of the absolute error beside the squared one")


def job(settings: ImageAutoencoderRun) -> Job:
    torch.manual_seed(settings.seed)  # the starting weights
    network = PerFrame(shape(settings).build()).to(settings.device).train().requires_grad_(True)

    def loss(step: int, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = pictures.to(settings.device)
        posterior = network.encode(x)
        generator = torch.Generator(settings.device).manual_seed(settings.seed * 1_000_003 + step)
        error = network.decode(posterior.sample(generator)).float() - x
        squared, absolute = error.square().mean(), error.abs().mean()
        mean, std = posterior.mean.float(), posterior.std.float()
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()
        total = squared + settings.absolute * absolute + settings.kl * kl
        return total, {"psnr": 10 * torch.log10(4 / squared.detach()), "absolute": absolute.detach(), "kl": kl.detach()}

    return Job(
        network=network,
        batch=lambda step: pictures(settings.seed, step * settings.batch, settings.batch, settings.size),
        loss=loss,
        save=lambda folder: normalised(network, settings).save_pretrained(folder),
    )


def shape(settings: ImageAutoencoderRun) -> ImageAutoencoder:
    if settings.preset not in PRESETS:
        raise UserError(f"There is no image autoencoder {settings.preset!r}: preset takes {', '.join(PRESETS)}.")
    return PRESETS[settings.preset]


def pictures(seed: int, start: int, count: int, size: Size) -> Tensor:
    """Single frames of crowded scenes, b c f h w in -1..1."""
    moments = np.random.default_rng([seed, start, 7]).random(count, np.float32)
    frames = [torch.from_numpy(toybox.render(toybox.crowd(seed, start + i), size, at=moments[i : i + 1])) for i in range(count)]
    return torch.stack(frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


@torch.no_grad()
def normalised(network: PerFrame, settings: ImageAutoencoderRun) -> AutoencoderKL:
    """Write into the configuration the shift and scaling that give latents mean 0 and deviation 1 on 512 pictures of no training step."""
    x = pictures(settings.seed + 1, 0, 512, settings.size).to(settings.device)
    z = torch.cat([network.encode(part).mean.float() for part in x.split(64)])
    network.image.register_to_config(shift_factor=round(z.mean().item(), 6), scaling_factor=round(1 / z.std().item(), 6))
    return network.image
