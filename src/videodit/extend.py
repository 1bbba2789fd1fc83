"""Videos longer than a model's clip: chunk after chunk, each around the end of the one before, or at once in windows that overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from videodit.autoencoder import PerFrame
from videodit.diffusion import rolling, windows
from videodit.diffusion.guidance import Guidance
from videodit.diffusion.noise import noise, rescheduled
from videodit.diffusion.schedulers import sampler as sampler_of
from videodit.generate import Frames, Generator, Preview, Progress, Watched
from videodit.given import filling
from videodit.shapes import Size, UserError


def extended(
    model: Generator,
    prompts: str | Sequence[str],
    frames: int,
    *,
    video: Frames | None = None,
    known: int | None = None,
    seed: int = 0,
    size: Size | None = None,
    **how: Any,
) -> Iterator[Frames]:
    """A video of so many frames, in parts as they come: what is there (`video`, or a clip of the first prompt), then what follows.

    Each chunk is a clip of the model's length that is given the last `known` frames, the whole groups of half a clip unless told. What
    it makes of them is not quite what they were, so one chunk fades into the next; what was there stays. Several prompts share evenly
    what is made.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    chunk = (size or model.size)._replace(frames=model.size.frames)
    autoencoder = model.model.autoencoder
    known = filling(autoencoder, chunk.frames // 2) if known is None else known
    _check(chunk, frames, known, autoencoder, video)
    model.check(prompts, chunk, seed)
    model.check_given()

    before = 0 if video is None else len(video)

    def words(at: int) -> int:
        return min((at - before) * len(prompts) // (frames - before), len(prompts) - 1)

    _check_heard(prompts, [words(before), *map(words, range(before or chunk.frames, frames, chunk.frames - known))], frames)
    made, start = video if video is not None else model.generate(prompts[0], size=chunk, seed=seed, **how), 0
    while start + len(made) < frames:
        ready, ends = made[:-known], made[-known:]
        if len(ready):
            yield ready
        start += len(ready)
        place = start // autoencoder.time
        clip = model.generate(prompts[words(start + known)], size=chunk, seed=seed, given=dict(enumerate(ends)), at=place, **how)
        there = min(max(before - start, 0), known)
        made = np.concatenate([ends[:there], faded(ends[there:], clip[there:known]), clip[known:]])
    yield made[: frames - start]


def faded(one: Frames, other: Frames) -> Frames:
    """Frames of one clip that become those of another."""
    share = (np.arange(1, len(one) + 1) / (len(one) + 1))[:, None, None, None]
    return np.rint(one * (1 - share) + other * share).astype(np.uint8)


@torch.inference_mode()
def at_once(
    model: Generator,
    prompts: str | Sequence[str],
    frames: int,
    *,
    overlap: int | None = None,
    seed: int = 0,
    first: int = 0,
    size: Size | None = None,
    steps: int | None = None,
    guidance: float | Guidance | None = None,
    negative: str = "",
    sampler: str | None = None,
    shift: float | None = None,
    repeated: bool = True,
    progress: Progress | None = None,
    preview: Preview | None = None,
) -> Frames:
    """A video of so many frames in one pass: windows of the model's length share `overlap` latent frames, half unless told.

    Several prompts share the length evenly, and where windows overlap they blend. `repeated`: the noise of the first window comes again,
    in another order (FreeNoise, which asks nothing of the model: within a window frames are as independent as it was trained).
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    clip = (size or model.size)._replace(frames=model.size.frames)
    _check_moves(clip)
    model.check(prompts, clip._replace(frames=frames), seed)
    how, latents = model.sampling(steps, guidance, sampler), model.model.autoencoder.latents
    grid, window = latents(clip._replace(frames=frames)), latents(clip).frames
    overlap = window // 2 if overlap is None else overlap
    begins = windows.starts(grid.frames, window, overlap)
    which = windows.shared(len(prompts), begins, window, grid.frames)
    _check_heard(prompts, which, frames)
    start = noise(seed, [first], (model.model.autoencoder.channels, *grid), prior=model.model.settings.prior)
    start = (rescheduled(start, window, seed) if repeated else start).to(model.device)
    fields = [model.field([prompts[i]], negative, how.guidance, None) for i in which]
    field = Watched(windows.windowed(fields, begins, window, windows.margin(overlap)))
    times = model.times(shift, how.steps, latents(clip))
    start = model.begun(start, times[0])
    seen = model.seen(field, how.steps, frames, progress, preview)
    whole = sampler_of(how.sampler)(field, start, times, partial(model.fresh, seed, first, start), seen)
    return model.decode(whole, frames)[0]


def infilled(
    model: Generator, prompt: str, video: Frames, factor: int, *, seed: int = 0, progress: Progress | None = None, **how: Any
) -> Frames:
    """The video with `factor` - 1 frames more between any two: clips of the model's length around those that are there, as pictures.

    Their noise is of a level of its own: the video may have been made from that of the same seed.
    """
    _check_filled(model, factor)
    if len(video) < 2:
        raise UserError("One frame has nothing between: fill a video of two or more.")
    known, parts, groups = (model.size.frames - 1) // factor, [], model.model.autoencoder.latents(model.size).frames
    how |= {"size": Size(model.size.frames, *video.shape[1:3]), "seed": seed}
    for number, start in enumerate(range(0, len(video) - 1, known)):
        some = video[start : start + known + 1]
        given = {at * factor: picture for at, picture in enumerate(some)}
        clip = model.generate(prompt, given=given, at=number * groups, level=1, **how)
        clip = clip[: (len(some) - 1) * factor]
        clip[::factor] = some[:-1]
        parts.append(clip)
        if progress:
            progress((start + len(some) - 1) * factor + 1, (len(video) - 1) * factor + 1)
    return np.concatenate([*parts, video[-1:]])


def cascade(
    model: Generator, prompt: str, factor: int, *, size: Size | None = None, progress: Progress | None = None, **how: Any
) -> Frames:
    """A clip of the model's taken as key frames, then filled: `factor` times as long, and as slow."""
    _check_filled(model, factor)
    keys = model.generate(prompt, size=(size or model.size)._replace(frames=model.size.frames), **how)
    return infilled(model, prompt, keys, factor, progress=progress, **how)


def lengths(model: Generator, there: int) -> dict[int, int]:
    """How long a video of so many frames becomes where the model fills it, and how many times."""
    return {(there - 1) * factor + 1: factor for factor in _factors(model)}


def factor_of(model: Generator, there: int, frames: int | None) -> int:
    """How many times a video of so many frames is filled to become as long as asked; the fewest unless told."""
    fits = lengths(model, there)
    if frames is None or there < 2:
        return min(fits.values())
    if frames not in fits:
        nearest = sorted(sorted(fits, key=lambda length: abs(length - frames))[:2])
        times = " or ".join(str(fits[length]) for length in nearest)
        raise UserError(f"{frames} frames do not fit: use {' or '.join(map(str, nearest))} ({there} frames, filled {times} times).")
    return fits[frames]


@torch.inference_mode()
def rolled(
    model: Generator,
    prompt: str,
    frames: int,
    *,
    seed: int = 0,
    first: int = 0,
    size: Size | None = None,
    steps: int | None = None,
    guidance: float | Guidance | None = None,
    negative: str = "",
    sampler: str | None = None,
    shift: float | None = None,
    progress: Progress | None = None,
    preview: Preview | None = None,
) -> Frames:
    """A video of so many frames from a queue of latent frames, each a step nearer to data than the one behind it.

    For models whose frames were trained at times of their own (`times.each`). `steps` and `sampler` make the clip that the queue begins
    with; from there on each step finishes one latent frame.
    """
    if model.model.settings.times.each == "clip":
        raise UserError("This model's frames were trained at one time each clip: a queue is for those with times.each=frame or monotone.")
    clip, autoencoder, prior = (size or model.size)._replace(frames=model.size.frames), model.model.autoencoder, model.model.settings.prior
    _check_moves(clip)
    model.check([prompt], clip, seed)
    latents, count = autoencoder.latents(clip), autoencoder.latents(clip._replace(frames=frames)).frames
    start = noise(seed, [first], (autoencoder.channels, *latents), prior=prior).to(model.device)
    how = model.sampling(steps, guidance, sampler)
    field = model.field([prompt], negative, how.guidance, None)
    seen = model.seen(field, how.steps + count, clip.frames, progress, preview)
    times = model.times(shift, how.steps, latents)
    made = sampler_of(how.sampler)(field, model.begun(start, times[0]), times, partial(model.fresh, seed, first, start), seen)
    levels = model.times(shift, latents.frames, latents).flip(0)
    later, whole = (autoencoder.channels, 1, *latents[1:]), range(latents.frames)  # what comes is behind the middle

    def coming(number: int) -> Tensor:
        fresh = noise(seed, [first], later, start=latents.frames + number, prior=prior, whole=whole)
        return model.begun(fresh, levels[-1])

    parts: list[Tensor] = []
    for frame in islice(rolling.rolling(field, rolling.queued(made, start, levels), levels, coming), count):
        parts.append(frame)
        seen(how.steps + len(parts), frame)
    return model.decode(torch.cat(parts, dim=2), frames)[0]


def _check_moves(clip: Size) -> None:
    if clip.frames == 1:
        raise UserError("This model makes single pictures: use one that makes videos.")


def _factors(model: Generator) -> list[int]:
    """How many times as many steps between frames a clip of the model's length has room for."""
    frames = model.size.frames
    fits = [n for n in range(2, frames) if (frames - 1) % n == 0]
    if not fits:
        raise UserError("This model's clips are too short to have frames between others: use one that makes longer videos.")
    return fits


def _check_filled(model: Generator, factor: int) -> None:
    model.check_given()
    fits = _factors(model)
    if factor not in fits:
        raise UserError(f"Clips of {model.size.frames} frames can be filled {' or '.join(map(str, fits))} times, not {factor}.")


def _check_heard(prompts: list[str], which: Sequence[int], frames: int) -> None:
    """Refuse words that no part of a video has."""
    unheard = [prompt for number, prompt in enumerate(prompts) if number not in which]
    if unheard:
        raise UserError(f"{frames} frames have no part that is made under {unheard[0]!r}: ask for more frames, or fewer prompts.")


def _check(chunk: Size, frames: int, known: int, autoencoder: PerFrame, video: Frames | None) -> None:
    time, missing = autoencoder.time, autoencoder.lead
    if chunk.frames <= time:
        raise UserError("This model's clips are too short to go on from: use one that makes videos.")
    if not 0 < known < chunk.frames or (known + missing) % time:
        most = filling(autoencoder, chunk.frames - 1)
        counted = "each one more than a multiple" if missing else "in multiples"
        raise UserError(f"Each chunk can be given {time - missing} to {most} frames, {counted} of {time}, not {known}.")
    if video is None:
        return
    if len(video) < known:
        raise UserError(f"The video has {len(video)} frames, and each chunk is given {known}: use a longer one, or be content with fewer.")
    if video.shape[1:3] != (chunk.rows, chunk.columns):
        raise UserError(f"The video is {video.shape[1]}x{video.shape[2]}, its continuation {chunk.rows}x{chunk.columns}: resize it.")
    if len(video) >= frames:
        raise UserError(f"The video has {len(video)} frames already: ask for more than that.")


def drift(frames: Frames, chunk: int) -> list[dict[str, float]]:
    """Brightness, contrast and sharpness of each chunk: what changes with its place has drifted."""
    table: list[dict[str, float]] = []
    for _ in drifting([frames], chunk, table):
        pass
    return table


def drifting(parts: Iterable[Frames], chunk: int, table: list[dict[str, float]]) -> Iterator[Frames]:
    """The parts of a video as they come; the drift of each chunk goes into the table when the chunk is whole, or the last."""
    start, held = 0, np.empty(0, np.uint8)
    for part in parts:
        yield part
        held = np.concatenate([held, part]) if len(held) else part
        whole = len(held) // chunk * chunk
        table += [_looks(start + at, held[at : at + chunk]) for at in range(0, whole, chunk)]
        start, held = start + whole, held[whole:].copy()
    if len(held):
        table.append(_looks(start, held))


def _looks(start: int, frames: Frames) -> dict[str, float]:
    part = frames.astype(np.float64) / 255
    edges = np.abs(np.diff(part, axis=1)).mean() + np.abs(np.diff(part, axis=2)).mean()
    row = {"start": start, "brightness": part.mean(), "contrast": part.std(axis=(1, 2)).mean(), "sharpness": edges}
    return {name: round(float(value), 4) for name, value in row.items()}


def seams(frames: Frames, starts: Sequence[int]) -> list[float]:
    """How much more changes from the frame before each start than between other frames: 1 is no jump."""
    steps = np.abs(np.diff(frames.astype(np.float64), axis=0)).mean(axis=(1, 2, 3))
    others = np.delete(steps, [start - 1 for start in starts])
    usual = max(float(np.median(others)), 1e-3)
    return [round(float(steps[start - 1]) / usual, 3) for start in starts]
