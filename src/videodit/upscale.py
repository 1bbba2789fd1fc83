"""A video becomes larger: a model that was trained to (`upscale`) makes it anew, told of it at its lower resolution."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from videodit.diffusion import upscaling, windows
from videodit.diffusion.guidance import Field, Guidance
from videodit.diffusion.noise import noise
from videodit.diffusion.schedulers import sampler as sampler_of
from videodit.generate import Frames, Generator, Preview, Progress, Watched
from videodit.given import enlarged
from videodit.shapes import Size, UserError

OVER = 2**33  # the frame from which on noise is drawn that lies over what is told


@torch.inference_mode()
def upscaled(
    model: Generator,
    video: Frames,
    prompt: str | Sequence[str] = "",
    *,
    then: Sequence[str] = (),
    there: int = 0,
    softened: float | None = None,
    overlap: int | None = None,
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
    """The video f h w c with as many times its rows and columns as the model was trained for; several, b f h w c, with a prompt each.

    `softened`: the share of noise over what is told of it. One that is longer than the model's clips goes through in windows that share
    `overlap` latent frames, half unless told; with words for what it shows `then`, each has as long as the prompt, after the frames that
    were `there` before any was made.
    """
    prompts, clips = ([prompt], video[None]) if isinstance(prompt, str) else (list(prompt), video)
    if clips.ndim != 5 or len(clips) != len(prompts):
        raise UserError("Give one prompt with one video, f h w c, or as many prompts as videos, b f h w c.")
    size = checked(model, [*prompts, *then], Size(*clips.shape[1:4]), seed, softened, negative)
    how, upscale = model.sampling(steps, guidance, sampler), model.model.settings.upscale
    assert upscale
    latents = model.model.autoencoder.latents
    grid = latents(size)
    window = min(latents(model.size).frames, grid.frames)
    overlap = window // 2 if overlap is None else overlap
    begins = windows.starts(grid.frames, window, overlap)
    before = latents(size._replace(frames=there)).frames if there else 0
    words = [[then[which - 1]] * len(prompts) if which else prompts for which in _shared(then, begins, window, grid.frames, before)]
    times, sample = model.times(shift, how.steps, grid._replace(frames=window), how.sampler), sampler_of(how.sampler)

    pixels = torch.from_numpy(np.array(clips)).permute(0, 4, 1, 2, 3).float().to(model.device) / 127.5 - 1
    low = model.encode(enlarged(pixels, upscale.factor))  # after all that may be refused
    shape, share = (range(first, first + len(low)), tuple(low.shape[1:])), upscale.softened if softened is None else softened
    told = upscaling.told(low, noise(seed, *shape, start=OVER).to(low), torch.full((len(low),), share))
    parts = [told.map(lambda x, start=start: x[:, :, start : start + window]) for start in begins]
    fields: list[Field] = [model.field(said, negative, how.guidance, part) for said, part in zip(words, parts, strict=True)]
    field = Watched(fields[0] if len(fields) == 1 else windows.windowed(fields, begins, window, windows.margin(overlap)))

    start = model.begun(noise(seed, *shape, prior=model.model.settings.prior), times[0])
    seen = model.seen(field, how.steps, size.frames, progress, preview)
    made = sample(field, start, times, partial(model.fresh, seed, first, start), seen)
    frames = model.decode(made, size.frames)
    return frames[0] if isinstance(prompt, str) else frames


def _shared(then: Sequence[str], begins: list[int], window: int, frames: int, before: int) -> list[int]:
    """Which words each window has, by its middle: they share what comes after so many latent frames."""
    count, made = 1 + len(then), 2 * (frames - before)
    late = [min(max(2 * (at - before) + window, 0) * count // made, count - 1) for at in begins] if 0 < before < frames else []
    which = late or windows.shared(count, begins, window, frames)
    unheard = [words for number, words in enumerate(then, start=1) if number not in which]
    if unheard:
        warnings.warn(
            f"The model that makes the clip larger hears nothing of {unheard[0]!r}: its clips are too long for that.", stacklevel=3
        )
    return which


def checked(model: Generator, prompts: list[str], low: Size, seed: int, softened: float | None, negative: str) -> Size:
    """The extent that a video of this one becomes; what cannot be is said."""
    upscale, autoencoder = model.model.settings.upscale, model.model.autoencoder
    if upscale is None:
        raise UserError("This model makes clips of its own and none larger: name one that was trained with upscale.factor.")
    if softened is not None and not 0 <= softened <= upscale.most:
        raise UserError(f"The model knows clips under shares of noise of 0 to {upscale.most:g}, not {softened:g}: soften by one of them.")
    size = Size(low.frames, low.rows * upscale.factor, low.columns * upscale.factor)
    step = autoencoder.space * model.model.settings.backbone.patch
    if size.rows % step or size.columns % step:
        fits = step // math.gcd(step, upscale.factor)
        raise UserError(
            f"A video of {low.rows}x{low.columns} does not fit, {upscale.factor} times larger: use one whose rows and columns are "
            f"multiples of {fits}."
        )
    whole = -(-low.frames // autoencoder.time) * autoencoder.time if low.frames > 1 else 1  # its last group repeats the last frame
    model.check(prompts, size._replace(frames=whole), seed, larger=True)
    if negative and model.takes != "text":
        raise UserError(f"A negative prompt is for models that take text; the one that makes it larger takes {model.takes}: leave it out.")
    if negative:
        model.check_words([negative])
    return size
