"""A prompt becomes a video: text, noise, guidance, sampler, decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videodit import models
from videodit.backbone import DiT
from videodit.diffusion.guidance import guided
from videodit.diffusion.noise import noise
from videodit.diffusion.samplers import SAMPLERS
from videodit.shapes import Size, Text, UserError, latent_size

Progress = Callable[[int, int], None]


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
        guidance: float | None = None,
        first: int = 0,
        progress: Progress | None = None,
    ) -> NDArray[np.uint8]:
        """Frames f h w c for one prompt, b f h w c for several; clip i has the noise of (seed, first + i), whatever stands beside it.

        A prompt is what the model takes: text, the name of a label, or the empty text where it is told nothing.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        steps, guidance = self._checked(prompts, steps, guidance, seed)
        size = size or self.size
        autoencoder = self.model.autoencoder
        shape = self.model.settings.backbone
        tube = shape.tube if isinstance(shape, DiT) else 1
        latent_size(size, space=autoencoder.space * shape.patch, time=autoencoder.time * tube)  # whole tokens fit
        grid = autoencoder.latents(size)
        text, blank = self._texts(prompts)
        start = noise(seed, range(first, first + len(prompts)), (autoencoder.channels, *grid)).to(self.device)
        field = guided(self.model.backbone, text, blank, guidance)
        times = self.model.settings.times.schedule(steps).to(self.device)
        sampler = SAMPLERS[self.model.settings.sampling.sampler]
        latents = sampler(field, start, times, lambda step: progress(step, steps) if progress else None)
        frames = to_frames(autoencoder.decode(latents, frames=size.frames))
        return frames[0] if isinstance(prompt, str) else frames

    def _checked(self, prompts: list[str], steps: int | None, guidance: float | None, seed: int) -> tuple[int, float]:
        defaults = self.model.settings.sampling
        steps, guidance = defaults.steps if steps is None else steps, defaults.guidance if guidance is None else guidance
        self._check_prompts(prompts)
        if steps < 1:
            raise UserError(f"{steps} steps make no video: use 1 or more.")
        if not 0 <= guidance <= 100:
            raise UserError(f"A guidance of {guidance} is out of range: use 0 to 100.")
        if not 0 <= seed < 2**63:
            raise UserError(f"A seed of {seed} is out of range: use 0 to {2**63 - 1}.")
        return steps, guidance

    def _check_prompts(self, prompts: list[str]) -> None:
        takes, empty = self.model.text.takes, not prompts or not all(prompt.strip() for prompt in prompts)
        if takes == "text" and empty:
            raise UserError("The prompt is empty: say what moves and how, such as 'a red circle moves right'.")
        if takes == "label":
            self.model.text(prompts)  # says which labels there are
        if takes == "label" and empty:
            raise UserError("This model is told a label: give the name of one.")
        if takes == "nothing" and (not prompts or any(prompts)):
            raise UserError("This model is told nothing: leave the prompt out.")

    def _texts(self, prompts: list[str]) -> tuple[Text, Text]:
        """Features of the prompts and of as many blanks, of equal length."""
        both = self.model.text([*prompts, *[""] * len(prompts)])
        return both.map(lambda x: x[: len(prompts)]), both.map(lambda x: x[len(prompts) :])


def to_frames(video: Tensor) -> NDArray[np.uint8]:
    """b c f h w in -1..1 to b f h w c in 0..255."""
    return ((video.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()


def load(name: str | Path = "toybox", device: str = "cpu") -> Generator:
    """A model by its folder, or the bundled one."""
    return Generator(models.load(name, device))
