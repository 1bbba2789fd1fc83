"""The image autoencoder's training, for worlds that have none yet: reconstruction and a little KL, on single frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

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
    equivariance: float = setting(
        0.0, doc="part of the steps that decode latents shrunk and turned, to pictures changed alike: such latents are easier to generate"
    )


def job(settings: ImageAutoencoderRun) -> Job:
    torch.manual_seed(settings.seed)  # the starting weights
    network = PerFrame(shape(settings).build()).to(settings.device).train().requires_grad_(True)

    def loss(step: int, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = pictures.to(settings.device)
        posterior = network.encode(x)
        generator = torch.Generator(settings.device).manual_seed(settings.seed * 1_000_003 + step)
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
        batch=lambda step: pictures(settings.seed, step * settings.batch, settings.batch, settings.size),
        loss=loss,
        save=lambda folder: normalised(network, settings).save_pretrained(folder),
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
