"""What a transformer's run reads at step n: cached latents, captions or cached features, what is given, times and noise, all functions of
(seed, n)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from videodit import given
from videodit.autoencoder import PerFrame
from videodit.data.buckets import One
from videodit.data.text import TextEncoder
from videodit.data.text_sd3 import SD3Text
from videodit.diffusion import upscaling
from videodit.diffusion.tasks import Given, Mask
from videodit.shapes import Text
from videodit.train.parts import LOW, shown, sight
from videodit.train.pools import Pool, merged, pools
from videodit.train.words import read

if TYPE_CHECKING:
    from videodit.train.backbone import BackboneRun


class Batch(NamedTuple):
    clean: Tensor
    text: Text | list[str]  # features where the encoder is frozen, else captions
    times: Tensor
    noise: Tensor
    given: Given | None = None
    appended: Batch | None = None  # pictures that train along
    names: tuple[str, ...] = ()  # which clips or pictures these are


class Latents:
    """What is drawn from, by kind (False pictures, True clips); the blank's features stand behind those of all captions."""

    def __init__(self, settings: BackboneRun, autoencoder: PerFrame, frozen: TextEncoder | SD3Text | None, takes: str) -> None:
        self.settings = settings
        kinds = settings.joint.kinds
        self.pools = pools(settings, autoencoder, takes, kinds)
        if not isinstance(settings.sizes, One):
            self.pools = dict.fromkeys(kinds, merged(self.pools, settings.joint.video_probability))
        self.autoencoder, self.sight = autoencoder, sight(settings)
        of_each = {} if frozen is None else {id(pool): read(settings, frozen, pool.captions) for pool in self.pools.values()}
        self.features = {kind: of_each[id(pool)] for kind, pool in self.pools.items() if of_each}

    def batch(self, step: int) -> Batch:
        settings = self.settings
        rng, of_step = (np.random.default_rng([settings.seed, n, 9]) for n in (step, step // settings.accumulate))
        rng.random()
        kind = bool(of_step.random() < settings.joint.video_probability)  # the same in all passes of a step, which may be shared
        pool = self.pools[kind]
        mask = self._mask(step, pool.latents.shape("latents", 0)[1])
        told = bool(mask.frames or mask.images)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        indices, text, clean, noise = self._drawn(step, kind, settings.batch, rng, generator, told=told)
        frames, places = clean.shape[2], clean[0, 0].numel()
        times = settings.objective.draw(settings.times, len(clean), frames, places, generator)
        if settings.prior.kind != "independent":
            noise = settings.prior.correlated(noise, torch.randn(clean[:, :, :1].shape, generator=generator))
        given = self._given(pool, mask, settings.size.frames, frames, indices) if told else self._low(kind, indices, generator)
        noise = settings.prior.lent(noise, given.first) if told and given else noise
        appended = self._appended(step, times) if kind and settings.joint.appended else None
        return Batch(clean, text, times, noise, given, appended, pool.names(indices) + (appended.names if appended else ()))

    def _drawn(
        self, step: int, kind: bool, count: int, rng: np.random.Generator, generator: torch.Generator, *, told: bool
    ) -> tuple[np.ndarray, Text | list[str], Tensor, Tensor]:
        """So many of a kind: which, their words, latents and noise."""
        pool = self.pools[kind]
        indices = pool.draw(rng, count, told=told)
        dropped = rng.random(count) < self.settings.text_dropout
        clean = pool.together(indices).float()
        return indices, self._text(step, kind, indices, dropped), clean, torch.randn(clean.shape, generator=generator)

    def _appended(self, step: int, times: Tensor) -> Batch:
        """Pictures for every clip; where frames have times of their own, so have pictures."""
        settings = self.settings
        count, rng = settings.joint.appended * settings.batch, np.random.default_rng([settings.seed, step, 12])
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step + (1 << 62))
        indices, text, clean, noise = self._drawn(step, False, count, rng, generator, told=False)
        if times.ndim == 1:
            times = times.repeat_interleave(settings.joint.appended)
        else:
            times = settings.objective.draw(settings.times, count, 1, clean[0, 0].numel(), generator)
        return Batch(clean, text, times, noise, self._low(False, indices, generator), names=self.pools[False].names(indices))

    def _low(self, kind: bool, indices: np.ndarray, generator: torch.Generator) -> Given | None:
        """They at a lower resolution, each under a share of noise of its own."""
        if not (upscale := self.settings.upscale):
            return None
        low = self.pools[kind].part(f"{LOW} {upscale.factor}", indices)
        return upscaling.told(low, torch.randn(low.shape, generator=generator), upscale.shares(len(low), generator))

    def _mask(self, step: int, frames: int) -> Mask:
        """What is given of clips of so many latent frames."""
        drawn = self.settings.tasks.draw(np.random.default_rng([self.settings.seed, step, 10]), frames)
        return given.placed(self.autoencoder, drawn, frames)

    def _given(self, pool: Pool, mask: Mask, length: int, frames: int, indices: np.ndarray) -> Given | None:
        """Of clips of so many frames, and so many latent ones."""
        made = given.assembled(
            mask,
            frames,
            partial(given.place, self.autoencoder, length),
            run=lambda start, stop: pool.part(f"{start}-{stop}", indices),
            picture=lambda frame: pool.part(f"{frame}", indices),
            hints=self.settings.lone == "channels",
        )
        return made and made._replace(picture=pool.part(shown(self.sight), indices) if self.sight and mask.begins else None)

    def _text(self, step: int, kind: bool, indices: np.ndarray, dropped: np.ndarray) -> Text | list[str]:
        pool = self.pools[kind]
        said = pool.said(np.random.default_rng([self.settings.seed, step, 11]), indices)
        if not self.features:
            return ["" if drop else pool.captions[i] for i, drop in zip(said, dropped, strict=True)]
        return self.features[kind].of(np.where(dropped, len(pool.captions), said))
