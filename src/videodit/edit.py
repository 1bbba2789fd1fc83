"""A video that is there already becomes another: noised in part and sampled again, or led back to its noise first, in parts or whole."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.backbone import DualTransformer
from videodit.diffusion.editing import inverted, kept, later, noised, sharing
from videodit.diffusion.guidance import Guidance
from videodit.diffusion.noise import noise
from videodit.diffusion.samplers import SAMPLERS, rf_solver
from videodit.diffusion.schedulers import own_times
from videodit.diffusion.schedulers import sampler as sampler_of
from videodit.generate import Frames, Generator, Preview, Progress, Watched
from videodit.shapes import Size, UserError

Change = Bool[np.ndarray, "f h w"]


@torch.inference_mode()
def edit(
    model: Generator,
    video: Frames,
    prompt: str,
    *,
    strength: float = 0.6,
    change: Change | None = None,
    seed: int = 0,
    first: int = 0,
    steps: int | None = None,
    guidance: float | Guidance | None = None,
    negative: str = "",
    sampler: str | None = None,
    shift: float | None = None,
    progress: Progress | None = None,
    preview: Preview | None = None,
) -> Frames:
    """The video as the prompt says: `strength` 0 leaves it, 1 forgets it. Where `change` is not, every pixel stays what it was.

    The noise is that of clip `first` of the seed.
    """
    size = _checked(model, video, prompt, strength, seed)
    if change is not None and (change.shape != size or not change.any()):
        raise UserError(f"What is to change is {change.shape} and marks {int(change.sum())} pixels: mark some of a video of {size}.")
    how, grid = model.sampling(steps, guidance, sampler), model.model.autoencoder.latents(size)
    sample, whole = sampler_of(how.sampler), model.times(shift, how.steps, grid, how.sampler)
    times = later(whole, strength)
    if len(times) < len(whole) and own_times(how.sampler):
        raise UserError(
            f"{how.sampler} begins at noise alone, and an edit with a clip that is noised in part: "
            f"use {', '.join(SAMPLERS)}, UniPCMultistep, or a strength of 1."
        )
    field = model.field([prompt], negative, how.guidance, None)
    clean = encoded(model, video)  # after all that may be refused
    start = noise(seed, [first], tuple(clean.shape[1:]), prior=model.model.settings.prior).to(clean)
    marks = None if change is None else _latent_mask(change, grid, model.model.autoencoder.lead, model.model.autoencoder.time).to(clean)
    moved = field if marks is None else Watched(kept(field, marks, clean, start))
    seen = model.seen(moved, len(times) - 1, size.frames, progress, preview)
    latents = sample(moved, noised(clean, start, times), times, partial(model.fresh, seed, first, clean), seen)
    frames = model.decode(latents, size.frames)[0]
    return frames if change is None else np.where(change[..., None], frames, video)


@torch.inference_mode()
def reworded(
    model: Generator,
    video: Frames,
    before: str,
    after: str,
    *,
    steps: int | None = None,
    guidance: float | Guidance | None = None,
    shift: float | None = None,
    shared: int = 3,
    blocks: int = 2,
    progress: Progress | None = None,
    preview: Preview | None = None,
) -> Frames:
    """The video with other words: led back to its noise under `before` (RF-Solver), and sampled from there under `after` (RF-Edit).

    In the first `shared` steps from noise the last `blocks` blocks find the values they had at the same times of the way back.
    """
    size = _checked(model, video, after, 1.0, 0)
    how, within = model.sampling(steps, guidance, None), _own_blocks(model.model.backbone)
    times = model.times(shift, how.steps, model.model.autoencoder.latents(size))
    backwards = model.field([before or after], "", Guidance(scale=1.0), None)
    forwards = model.field([after], "", replace(how.guidance, batched=True), None)  # values are handed to both at once
    clean = encoded(model, video)
    with sharing(within[-blocks:]) as attentions:
        back = model.seen(backwards, 2 * how.steps, size.frames, progress, None)
        start = rf_solver(backwards, clean, times.flip(0), _nothing, back)
        for attention in attentions:
            attention.hand_on(2 * shared)  # two looks a step
        seen = model.seen(forwards, 2 * how.steps, size.frames, progress, preview)
        latents = rf_solver(forwards, start, times, _nothing, lambda step, x: seen(how.steps + step, x))
    return model.decode(latents, size.frames)[0]


@torch.inference_mode()
def led_back(model: Generator, video: Frames, prompt: str, *, steps: int, sampler: str = "rf-solver") -> Frames:
    """The video led back to its noise and sampled again: what the sampler loses on the way."""
    size = _checked(model, video, prompt, 1.0, 0)
    times = model.times(None, steps, model.model.autoencoder.latents(size))
    field, sample = model.field([prompt], "", Guidance(scale=1.0), None), sampler_of(sampler)
    clean = encoded(model, video)
    latents = sample(field, inverted(sample, field, clean, times, _nothing), times, _nothing, lambda step, x: None)
    return model.decode(latents, size.frames)[0]


def encoded(model: Generator, video: Frames) -> Tensor:
    """The latents of one video."""
    pixels = torch.from_numpy(np.array(video)).permute(3, 0, 1, 2)[None].float().to(model.device)
    return model.encode(pixels / 127.5 - 1)


def _checked(model: Generator, video: Frames, prompt: str, strength: float, seed: int) -> Size:
    size = Size(*video.shape[:3])
    model.check([prompt], size, seed)
    if not 0 < strength <= 1:
        raise UserError(f"A strength of {strength:g} is out of range: use a number above 0, which changes little, up to 1.")
    return size


def _latent_mask(change: Change, grid: Size, lead: int, time: int) -> Tensor:
    """1 for every latent of which a pixel may change, where `lead` frames stand before the first to make a group of it."""
    marks = torch.from_numpy(change).float()[None, None]
    if len(change) > 1:
        marks = F.pad(marks, (0, 0, 0, 0, lead, grid.frames * time - lead - len(change)))
    return F.adaptive_max_pool3d(marks, tuple(grid))


def _own_blocks(network: nn.Module) -> list[nn.Module]:
    if not isinstance(network, DualTransformer) or network.settings.layout != "global":
        raise UserError("Sharing features is for transformers of two streams with global attention: edit by strength instead.")
    return list(network.blocks)


def _nothing(step: int) -> Tensor:
    raise AssertionError("a sampler that adds noise cannot lead back")
