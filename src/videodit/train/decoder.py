"""The training of D alone, on latents as the sampler leaves them: no latent changes, so the transformer stays as it is.

A clip's latents are noised to some t and sampled back with the clip's words. What comes out is near the truth, and wrong in the ways in
which the transformer is wrong; D learns to make the clip of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from videodit import models
from videodit.autoencoder import DPVAE
from videodit.config import setting
from videodit.data import worlds
from videodit.data.cache import remembered
from videodit.data.clips import Clips
from videodit.data.rows import Rows
from videodit.data.sources import Drawn, Filed, Toybox
from videodit.diffusion.noise import noise
from videodit.diffusion.schedulers import own_times
from videodit.diffusion.schedulers import sampler as sampler_of
from videodit.generate import Generator
from videodit.models import Provenance
from videodit.shapes import UserError
from videodit.train.pixels import Pixels, check
from videodit.train.pools import digest
from videodit.train.progress import counting
from videodit.train.recompute import DOC, Recompute, recompute
from videodit.train.step import Job, Run, provenance

AT_ONCE = 16  # clips sampled at a time, from one t


@dataclass(frozen=True, kw_only=True)
class Noised:
    """How far clips are noised before they are sampled back."""

    least: float = setting(0.3, doc="least t; each few clips have one of their own")
    most: float = setting(0.65, doc="largest t: where it is too large, what comes back is another clip")

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most < 1:
            raise UserError(f"noised takes 0 <= least <= most < 1, not {self.least} and {self.most}.")


@dataclass(frozen=True, kw_only=True)
class DecoderRun(Run):
    """Trains the decoder of a whole model on what its sampler leaves."""

    kind: Literal["decoder"] = "decoder"
    model: Path = setting(doc="folder of the model whose decoder learns, or toybox for the bundled one")
    clips: int = setting(3000, doc="clips that are sampled back, once, and kept")
    world: Drawn = setting(Toybox(), doc="what is drawn where no file is read")
    data: Filed | None = setting(None, doc="files to learn from, sampled back without words")
    files: Clips = setting(Clips(), doc="how clips are drawn from them")
    noised: Noised = setting(Noised(), doc="how far clips are noised first")
    clean: float = setting(0.25, doc="part of the samples that are the clips' own latents")
    temporal: float = setting(0.0, doc="weight of the squared error of what changes from frame to frame, beside that of the frames")
    recompute: Recompute = setting("none", doc=f"{DOC} (of D)")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.data)
        if self.clips < 1 or not 0 <= self.clean <= 1:
            raise UserError(f"clips takes 1 or more and clean 0 to 1, not {self.clips} and {self.clean}.")
        if not 0 <= self.temporal < math.inf:
            raise UserError(f"temporal takes a weight of 0 or more, not {self.temporal}.")


def job(settings: DecoderRun) -> Job:
    model = models.load(settings.model, settings.device)
    autoencoder = model.autoencoder
    if not isinstance(autoencoder, DPVAE):
        raise UserError(f"{settings.model} decodes frame by frame, by the image model's own decoder: there is nothing to train.")
    autoencoder.requires_grad_(False)
    network = autoencoder.decoder.requires_grad_(True)
    if model.settings.upscale:
        raise UserError(f"{settings.model} makes clips larger and samples none by itself: name the model that it started from.")
    if own_times(name := model.settings.sampling.sampler):
        raise UserError(f"{settings.model} samples by {name}, from noise alone, and here clips are half noise: let it sample by euler.")
    pixels = reader(settings, model)
    latents = sampled(settings, model, pixels)
    recompute(network.stages, settings.recompute)

    def batch(index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([settings.seed, index, 12])
        rows = rng.integers(settings.clips, size=settings.batch)
        kinds = np.where(rng.random(settings.batch) < settings.clean, "clean", "sampled")
        chosen = torch.stack([latents.read(kind, [int(row)])[0] for kind, row in zip(kinds, rows, strict=True)])
        return chosen.float(), torch.cat([pixels.batch(int(row), 1) for row in rows])

    def loss(index: int, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        chosen, video = (x.to(settings.device) for x in batch)
        wrong = autoencoder.decode_step(chosen).float() - autoencoder.whole_groups(video)
        error, changes = wrong.square().mean(), wrong.diff(dim=2).square().mean()
        return error + settings.temporal * changes, {"psnr": 10 * (4 / error.detach()).log10(), "temporal": changes.detach()}

    def save(folder: Path) -> None:
        models.save(folder, replace(model, settings=replace(model.settings, provenance=provenance(settings))))

    return Job(network=network, batch=batch, loss=loss, save=save)


def reader(settings: DecoderRun, model: models.Model) -> Pixels:
    """Clips of the files and of the world, as whole motions."""
    world, size = worlds.world(settings.world), model.settings.size

    def drawn(index: int, rng: np.random.Generator) -> np.ndarray:
        return world.clip(settings.seed, index, size).video

    return Pixels(settings.seed, size, settings.data, settings.files, settings.output, drawn)


def sampled(settings: DecoderRun, model: models.Model, pixels: Pixels) -> Rows:
    """The latents of all clips, and those that came back, in half precision; each few clips are kept as they are made."""
    key = {
        "kind": "sampled back",
        "model": [digest(part) for part in (model.autoencoder, model.text, model.backbone)],
        "settings": repr(replace(model.settings, provenance=Provenance(), digests={})),
        "noised": repr(settings.noised),
        "files": pixels.shots and [pixels.shots.digest, pixels.share],
        "world": worlds.world(settings.world).content(),
        "seed": settings.seed,
        "precision": settings.precision,
    }

    def few(number: int) -> tuple[dict[str, Any], Callable[[], dict[str, Tensor]]]:
        some = range(number * AT_ONCE, min((number + 1) * AT_ONCE, settings.clips))
        return key | {"clips": [some.start, some.stop]}, partial(_back, settings, model, pixels, some)

    folder, count = settings.output.parent / "cache", counting("clips sampled back")
    rows = Rows(folder, lambda number: remembered(folder, *few(number)))
    for number in range(math.ceil(settings.clips / AT_ONCE)):
        rows.add(*few(number))
        count(len(rows), settings.clips)
    return rows


@torch.no_grad()
def _back(settings: DecoderRun, model: models.Model, pixels: Pixels, some: range) -> dict[str, Tensor]:
    generator, autoencoder, size = Generator(model), model.autoencoder, model.settings.size
    how, grid = generator.sampling(None, None, None), autoencoder.latents(size)
    t = np.random.default_rng([settings.seed, some.start, 13]).uniform(settings.noised.least, settings.noised.most)
    times = generator.times(None, how.steps, grid)
    with torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=settings.precision == "bf16"):
        clean = autoencoder.encode(pixels.batch(some.start, len(some)).to(settings.device)).mode().float()
        shape = (autoencoder.channels, *grid)
        start = noise(settings.seed, some, shape, start=0, prior=generator.prior(None)).to(clean)
        field = generator.field([_words(settings, model, pixels, index) for index in some], "", how.guidance, None)
        times = torch.cat([times.new_tensor([t]), times[times < t]])
        fresh: Callable[..., Tensor] = partial(generator.fresh, settings.seed, some.start, start)
        back = sampler_of(how.sampler)(field, clean.lerp(start, t), times, fresh, lambda step, x: None)
    return {"clean": clean.half().cpu(), "sampled": back.half().cpu()}


def _words(settings: DecoderRun, model: models.Model, pixels: Pixels, index: int) -> str:
    """What a drawn clip is told; of files nothing is known."""
    told = model.text.takes == "text" and not pixels.filmed(index)
    return worlds.world(settings.world).sentence(settings.seed, index) if told else ""
