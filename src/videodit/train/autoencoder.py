"""The training of DP-VAE: E_r and D learn beside the frozen image autoencoder (equation 4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import torch
from einops import rearrange
from torch import Tensor

from videodit import models
from videodit.autoencoder import DPVAE, DPVAESettings, inflate, perceptual
from videodit.autoencoder.discriminator import Discriminator, PatchDiscriminator, fools, tells
from videodit.autoencoder.loss import Critic, Distance, Draw, Weights, dpvae_loss
from videodit.config import setting
from videodit.data import worlds
from videodit.data.clips import Clips
from videodit.data.sources import Drawn, Filed, Toybox
from videodit.shapes import Size, UserError
from videodit.train.optimizer import Optimizer
from videodit.train.pixels import Pixels, check
from videodit.train.recompute import DOC, Recompute, recompute
from videodit.train.step import Job, Rival, Run, provenance


@dataclass(frozen=True, kw_only=True)
class Critics:
    """Networks that judge what D makes, beside the plain difference."""

    discriminator: Discriminator = setting(Discriminator(), doc="its shape; it is there where weights.adversarial is not 0")
    optimizer: Optimizer = setting(Optimizer(learning_rate=1e-4, beta1=0.5), doc="how the discriminator learns")
    start: int = setting(0, doc="step from which the discriminator learns and is heard")
    perceptual: Path | None = setting(None, doc="file of a perceptual network's weights; needed where weights.perceptual is not 0")

    def __post_init__(self) -> None:
        if self.optimizer.fresh != 1:
            raise UserError("critics.optimizer.fresh has nothing to be for, as a discriminator inherits nothing: leave it out.")


@dataclass(frozen=True, kw_only=True)
class AutoencoderRun(Run):
    """Trains a DP-VAE on clips of a drawn world, of files, or of both."""

    inflates: ClassVar[bool] = True
    kind: Literal["autoencoder"] = "autoencoder"
    image: Path = setting(doc="folder of the image autoencoder, as diffusers saves it")
    start: Path | None = setting(
        None, doc="folder of a video autoencoder on that image autoencoder, whose E_r and D learn on; none: they start as its copies"
    )
    size: Size = setting(Size(16, 64, 64), doc="frames, rows, columns of a sample")
    world: Drawn = setting(Toybox(), doc="what is drawn where no file is read")
    data: Filed | None = setting(None, doc="files to learn from")
    clips: Clips = setting(Clips(), doc="how clips are drawn from them")
    groups: DPVAESettings = setting(DPVAESettings(), doc="how the image autoencoder is inflated")
    weights: Weights = setting(Weights(), doc="the terms of the loss")
    critics: Critics = setting(Critics(), doc="the discriminator and the perceptual network")
    recompute: Recompute = setting("none", doc=f"{DOC} (of E_r and D)")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.data)
        if self.critics.perceptual and not self.weights.perceptual:
            raise UserError("critics.perceptual is heard as loudly as weights.perceptual says, which is 0: set that too, or leave it out.")
        least = self.critics.discriminator.least
        if self.weights.adversarial and min(self.size[1:]) < least:
            raise UserError(
                f"A discriminator of depth {self.critics.discriminator.depth} sees frames of {least}x{least} or more, not "
                f"{self.size.rows}x{self.size.columns}: make size larger, or critics.discriminator.depth smaller."
            )


def job(settings: AutoencoderRun) -> Job:
    torch.manual_seed(settings.seed)  # the starting weights of the temporal blocks
    network = _begun(settings).to(settings.device)
    for part in (network.encoder, network.decoder):
        recompute(part.stages, settings.recompute)
    drawn = partial(worlds.paced, worlds.world(settings.world), settings.seed, settings.size)
    pixels = Pixels(settings.seed, settings.size, settings.data, settings.clips, settings.output, drawn)
    distance = _perceptual(settings)
    critic = PatchDiscriminator(settings.critics.discriminator).to(settings.device) if settings.weights.adversarial else None
    latents = (network.channels, *network.latents(settings.size))
    left: dict[str, Tensor] = {}  # what the discriminator learns from

    def loss(index: int, video: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        generator = torch.Generator(settings.device).manual_seed(settings.seed * 1_000_003 + index)
        noise = torch.randn(len(video), *latents, generator=generator, device=settings.device)
        frame = int(torch.randint(network.time, (), generator=generator, device=settings.device))
        heard = _frozen(critic) if critic and index // settings.accumulate >= settings.critics.start else None
        real = network.whole_groups(video.to(settings.device))
        out = dpvae_loss(network, real, Draw(noise, frame), settings.weights, perceptual=distance, critic=heard)
        left.update(real=real, rebuilt=out.rebuilt.detach())
        return out.total, out.figures

    def rival_loss() -> tuple[Tensor, dict[str, Tensor]]:
        assert critic is not None
        told = tells(critic, left["real"], left["rebuilt"])
        return told, {"discriminator": told.detach()}

    rival = Rival(network=critic, loss=rival_loss, optimizer=settings.critics.optimizer, start=settings.critics.start) if critic else None
    return Job(
        network=network,
        batch=lambda index: pixels.batch(index * settings.batch, settings.batch),
        loss=loss,
        save=lambda folder: models.save_autoencoder(folder, network, provenance(settings)),
        fresh=[] if settings.start else network.fresh(),
        rival=rival,
    )


def _begun(settings: AutoencoderRun) -> DPVAE:
    """The image autoencoder inflated, or as another run left it."""
    network = inflate(models.load_autoencoder(settings.image).image, settings.groups)
    if settings.start is None:
        return network
    given = models.load_autoencoder(settings.start)
    if models.latent_space(given) != models.latent_space(network):
        raise UserError(f"{settings.start} was trained on another image autoencoder than {settings.image}: name its own by image.")
    goes_on(settings, models.describe_autoencoder(given))
    network.load_state_dict(given.state_dict())
    return network


def goes_on(settings: AutoencoderRun, start: models.DPVAEFile | models.PerFrameFile) -> None:
    """Whether a run can go on from an autoencoder, by how that was inflated."""
    if not isinstance(start, models.DPVAEFile) or start.groups != replace(settings.groups, step=start.groups.step):
        raise UserError(f"{settings.start} was inflated otherwise than this run says: set [groups] as in its model.toml.")


def _frozen(critic: PatchDiscriminator) -> Critic:
    """The discriminator as the autoencoder hears it: gradients pass through it and none stays."""

    def says(rebuilt: Tensor) -> Tensor:
        critic.requires_grad_(False)
        value = fools(critic, rebuilt)
        critic.requires_grad_(True)
        return value

    return says


def _perceptual(settings: AutoencoderRun) -> Distance | None:
    if not settings.weights.perceptual:
        return None
    if settings.critics.perceptual is None:
        raise UserError("weights.perceptual needs a network: name its file by critics.perceptual=FILE, or set weights.perceptual=0.")
    network = perceptual.load(settings.critics.perceptual).to(settings.device)
    return lambda one, other: network(_pictures(one), _pictures(other)).mean()


def _pictures(video: Tensor) -> Tensor:
    return rearrange(video, "b c f h w -> (b f) c h w")
