"""A prompt, and whatever is given beside it, becomes a video: text, noise, guidance, sampler, decoder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videodit import given as givens
from videodit import models
from videodit.autoencoder import DPVAE
from videodit.autoencoder.streaming import Windows, decode_in_windows, encode_in_windows
from videodit.backbone import DiT
from videodit.diffusion.guidance import Field, Guidance, Network, guided
from videodit.diffusion.noise import Prior, noise
from videodit.diffusion.objectives import Diffusion
from videodit.diffusion.schedulers import own_times
from videodit.diffusion.schedulers import sampler as sampler_of
from videodit.diffusion.tasks import Given, around, without
from videodit.shapes import Size, Text, UserError, latent_size

Progress = Callable[[int, int], None]
Frames = NDArray[np.uint8]
Preview = Callable[[int, Callable[[], Frames]], None]  # after a step; what is expected, b f h w c, is decoded if it is looked at
GivenFrames = Mapping[int, Frames]  # pictures h w 3 by the number of their frame


@dataclass(frozen=True)
class Generator:
    """A loaded model that generates."""

    model: models.Model

    @property
    def size(self) -> Size:
        return self.model.settings.size

    @property
    def fps(self) -> float:
        return self.model.settings.fps

    @property
    def device(self) -> torch.device:
        return next(self.model.backbone.parameters()).device

    @property
    def takes(self) -> str:
        """What the model is told: text, label or nothing."""
        return self.model.text.takes

    def check_words(self, prompts: list[str]) -> None:
        """Refuse what the model cannot be told: a text that is too long, or what is no label of it."""
        self.model.text.check(prompts)

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt that the model never read."""
        return self.model.text.unknown_words(prompt)

    @torch.inference_mode()
    def generate(
        self,
        prompt: str | Sequence[str] = "",
        *,
        size: Size | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | Guidance | None = None,
        negative: str = "",
        given: GivenFrames | Sequence[GivenFrames] | None = None,
        sampler: str | None = None,
        shift: float | None = None,
        prior: Prior | None = None,
        first: int = 0,
        at: int = 0,
        level: int = 0,
        progress: Progress | None = None,
        preview: Preview | None = None,
    ) -> Frames:
        """Frames f h w c for one prompt, b f h w c for several; clip i has the noise of (seed, first + i), whatever stands beside it.

        A prompt is what the model takes: text, the name of a label, or the empty text where it is told nothing. `given`: pictures that the
        video is made around, by the number of their frame, for all prompts or for each. `at`: the latent frame of a longer video at which
        this one begins, whose noise goes on from there. `level`: other noise, for what is made between the frames of a video. `preview`
        may look at what each step expects.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        size = size or self.size
        self.check(prompts, size, seed)
        how = self.sampling(steps, guidance, sampler)
        told = self._given(given, size, len(prompts))
        grid = self.model.autoencoder.latents(size)
        clips, shape = range(first, first + len(prompts)), (self.model.autoencoder.channels, *grid)
        prior = self.prior(prior)
        start = noise(seed, clips, shape, start=at, prior=prior, level=level).to(self.device)
        field = self.field(prompts, negative, how.guidance, told, start)
        times = self.times(shift, how.steps, grid, how.sampler)
        fresh = partial(self.fresh, seed, first, start, at=at, prior=prior, level=level)

        start = self.begun(start if told is None else prior.lent(start, told.first), times[0])
        start = start if told is None else told.hold(start)
        seen = self.seen(field, how.steps, size.frames, progress, preview)
        latents = sampler_of(how.sampler)(field, start, times, fresh, seen)
        latents = latents if told is None else told.hold(latents)
        frames = self.decode(latents, size.frames)
        return frames[0] if isinstance(prompt, str) else frames

    def sampling(self, steps: int | None, guidance: float | Guidance | None, sampler: str | None) -> models.Sampling:
        """The model's defaults of sampling, with what is said otherwise."""
        how = self.model.settings.sampling
        guidance = replace(how.guidance, scale=guidance) if isinstance(guidance, int | float) else guidance
        if steps is not None and steps < 1:
            raise UserError(f"{steps} steps make no video: use 1 or more.")
        how = replace(how, steps=how.steps if steps is None else steps, guidance=guidance or how.guidance)
        return how if sampler is None else replace(how, sampler=sampler)

    def field(self, prompts: list[str], negative: str, guidance: Guidance, told: Given | None, start: Tensor | None = None) -> Watched:
        """The velocity that the sampler follows, `start` being the noise that it begins with."""
        network = self.model.settings.objective.flow(self.model.backbone)
        text, blank = self._texts(prompts, negative)
        whole: Network = network if told is None else around(network, told)
        untold = network if told is None or start is None else without(network, told, start.to(self.device))
        untold = whole if self.model.settings.upscale else untold  # which never was without a clip to make larger
        return Watched(guided(whole, text, blank, guidance, untold=untold))

    def seen(
        self, field: Watched, steps: int, frames: int, progress: Progress | None, preview: Preview | None
    ) -> Callable[[int, Tensor], None]:
        """What a sampler tells after each step: how far it is, and what is expected by now."""

        def told(step: int, x: Tensor) -> None:
            if progress:
                progress(step, steps)
            if preview:
                preview(step, partial(self.decode, field.expected, frames))

        return told

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of clips, where those longer than the model's own go in windows of that length."""
        autoencoder, windows = self.model.autoencoder, self._windows(pixels.shape[2])
        return (encode_in_windows(autoencoder, pixels, windows) if windows else autoencoder.encode(pixels)).mode()

    def decode(self, latents: Tensor, frames: int) -> Frames:
        """Frames of latents, in windows alike."""
        autoencoder, windows = self.model.autoencoder, self._windows(frames)
        return to_frames(decode_in_windows(autoencoder, latents, windows, frames) if windows else autoencoder.decode(latents, frames))

    def _windows(self, frames: int) -> Windows | None:
        """What memory holds of clips of so many frames; none where they pass as a whole, or in pieces anyway."""
        autoencoder = self.model.autoencoder
        groups = autoencoder.latents(self.size).frames
        longer = isinstance(autoencoder, DPVAE) and autoencoder.settings.reach == "symmetric" and 1 < self.size.frames < frames
        return Windows(groups=groups, overlap=groups // 2) if longer else None

    @torch.inference_mode()
    def rebuilt(self, videos: Frames) -> Frames:
        """Videos, b f h w c, through the autoencoder and back: what the transformer could reach at most."""
        pixels = torch.from_numpy(videos).to(self.device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        return self.decode(self.encode(pixels), videos.shape[1])

    def encode_given(self, pictures: Sequence[GivenFrames], size: Size) -> Given | None:
        """Given pictures, for each clip, as latents: every clip has the same frames."""
        numbers = sorted(pictures[0])
        if any(sorted(one) != numbers for one in pictures):
            raise UserError("Every clip of a call is given the same frames: generate others by a call of their own.")
        if numbers and not 0 <= numbers[0] <= numbers[-1] < size.frames:
            raise UserError(f"Frames {numbers[0]} to {numbers[-1]} are given of a video of {size.frames}: use 0 to {size.frames - 1}.")
        video = torch.zeros(len(pictures), 3, *size)
        for clip, one in enumerate(pictures):
            for number, picture in one.items():
                if picture.dtype != np.uint8 or picture.shape != (size.rows, size.columns, 3):
                    extent = "x".join(map(str, picture.shape[:2]))
                    raise UserError(f"Frame {number} is {extent}, the video {size.rows}x{size.columns}: give uint8 pictures of that size.")
                video[clip, :, number] = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1
        autoencoder, video = self.model.autoencoder, video.to(self.device)
        mask, frames = givens.mask_of(autoencoder, numbers), autoencoder.latents(size).frames
        run, picture = (partial(encode, autoencoder, video) for encode in (givens.encode_run, givens.encode_picture))
        place = partial(givens.place, autoencoder, size.frames)
        given = givens.assembled(mask, frames, place, run, picture, hints=self.model.settings.backbone.hints)
        sight = self.model.sight if mask.begins else None
        return given and given._replace(picture=sight and sight(video[:, :, 0]))

    def _given(self, pictures: GivenFrames | Sequence[GivenFrames] | None, size: Size, clips: int) -> Given | None:
        if not pictures:
            return None
        self.check_given()
        each = [pictures] * clips if isinstance(pictures, Mapping) else list(pictures)
        if len(each) != clips:
            raise UserError(f"{len(each)} clips are given frames, and {clips} are asked for: give as many.")
        return self.encode_given(each, size)

    def check_given(self) -> None:
        """Whether this model goes on from given frames."""
        if self.model.settings.backbone.given == "refused":
            raise UserError("This model was not trained to go on from given frames: use one that was, by the run file's tasks.")

    def prior(self, prior: Prior | None) -> Prior:
        trained = self.model.settings.prior
        if prior is not None and prior != trained:
            names = [field.name for field in fields(Prior) if getattr(prior, field.name) != getattr(trained, field.name)]
            was, now = (", ".join(f"{name}={str(getattr(one, name)).lower()}" for name in names) for one in (trained, prior))
            _warn(f"This model was trained on noise with {was} and samples from noise with {now}.")
        return prior or trained

    def times(self, shift: float | None, steps: int, grid: Size, sampler: str = "euler") -> Tensor:
        settings = self.model.settings
        if shift is not None and not 0 < shift < float("inf"):
            raise UserError(f"A shift of {shift:g} is out of range: use a number above 0, such as {settings.times.shift:g}.")
        times = settings.times if shift is None else replace(settings.times, shift=shift)
        if shift is not None and isinstance(settings.objective, Diffusion):
            raise UserError("This model visits the levels of its diffusion, which no shift changes: leave it out.")
        if shift is not None and own_times(sampler):
            _warn(f"{sampler} visits times of its own, so a shift of {shift:g} changes nothing: leave it out, or sample by euler.")
        elif times != settings.times:
            _warn(f"This model was trained with times shifted by {settings.times.shift:g} and samples with {times.shift:g}.")
        return settings.objective.schedule(times, steps, grid.count)

    def begun(self, noise: Tensor, t: Tensor) -> Tensor:
        """Where sampling begins with some noise at its first time."""
        return self.model.settings.objective.begin(noise.to(self.device), t)

    def fresh(self, seed: int, first: int, like: Tensor, step: int, at: int = 0, prior: Prior | None = None, level: int = 0) -> Tensor:
        """Noise of a step, for samplers that add some: as alike, frame by frame, as the first noise is."""
        clips, shape = range(first, first + len(like)), tuple(like.shape[1:])
        drawn = noise(seed, clips, shape, start=at, prior=prior or self.model.settings.prior, draw=step + 1, level=level)
        return drawn.to(like.device, non_blocking=True)

    def check(self, prompts: list[str], size: Size, seed: int, *, larger: bool = False) -> None:
        """Refuse what cannot be made; `larger`: of a clip at a lower resolution."""
        if self.model.settings.upscale and not larger:
            raise UserError(
                "This model makes a clip larger that is there, and none of its own: name one by --task upscale --video CLIP, "
                "or name this model by --upscale beside one that makes clips."
            )
        takes, empty = self.takes, not prompts or not all(prompt.strip() for prompt in prompts)
        if takes == "text" and empty:
            raise UserError("The prompt is empty: say what moves and how, such as 'a red circle moves right'.")
        if takes != "nothing":
            self.check_words(prompts)
        if takes == "label" and empty:
            raise UserError("This model is told a label: give the name of one.")
        if takes == "nothing" and (not prompts or any(prompts)):
            raise UserError("This model is told nothing: leave the prompt out.")
        if not 0 <= seed < 2**63:
            raise UserError(f"A seed of {seed} is out of range: use 0 to {2**63 - 1}.")
        shape, autoencoder = self.model.settings.backbone, self.model.autoencoder
        tube = shape.tube if isinstance(shape, DiT) else 1
        groups = autoencoder.latents(size).frames if autoencoder.lead and size.frames > 1 else 0  # of which the last may be cut
        size = size._replace(frames=groups * autoencoder.time) if groups else size
        latent_size(size, space=autoencoder.space * shape.patch, time=autoencoder.time * tube)  # whole tokens fit

    def _texts(self, prompts: list[str], negative: str) -> tuple[Text, Text]:
        """Features of the prompts and of as many blanks (or of what is not wanted), of equal length."""
        if negative and self.takes != "text":
            raise UserError(f"A negative prompt is for models that take text; this one takes {self.takes}: leave it out.")
        both = self.model.text([*prompts, *[negative] * len(prompts)])
        return both.map(lambda x: x[: len(prompts)]), both.map(lambda x: x[len(prompts) :])


class Watched:
    """A field that remembers what clean latents its last answer means."""

    def __init__(self, field: Field) -> None:
        self.field, self.expected = field, torch.empty(0)

    def __call__(self, noisy: Tensor, t: Tensor) -> Tensor:
        answer = self.field(noisy, t)
        self.expected = noisy - t.view(len(t), 1, -1, 1, 1).to(noisy, non_blocking=True) * answer[:, : noisy.shape[1]]
        return answer


def _warn(what: str) -> None:
    warnings.warn(what, stacklevel=3)


def to_frames(video: Tensor) -> Frames:
    """b c f h w in -1..1 to b f h w c in 0..255."""
    return ((video.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()


def load(name: str | Path = "toybox", device: str = "cpu") -> Generator:
    """A model by its folder, or the bundled one."""
    return Generator(models.load(name, device))
