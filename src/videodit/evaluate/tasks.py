"""What a task is given of rendered scenes, and how near the rest comes to what was rendered, beside copies that need no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from videodit.data.worlds import World
from videodit.diffusion.tasks import MASKS
from videodit.evaluate.asked import Task
from videodit.extend import extended, seams
from videodit.generate import Generator
from videodit.given import encode_picture, filling, frames_of
from videodit.shapes import UserError

SEED = 0  # of which groups are given
LONG = 4  # clips long is a video that is extended
Videos = UInt8[np.ndarray, "b f h w 3"]


@dataclass(frozen=True)
class Made:
    """Videos to be judged, and what was measured of each."""

    judged: Videos
    figures: list[dict[str, float]]


def make(task: Task, model: Generator, world: World, wanted: Sequence[Any], first: int, **how: Any) -> Made:
    """A video of each scene: from its words, and from what the task gives of its rendering."""
    if task not in ("t2v", "t2i") and model.size.frames == 1:
        raise UserError(f"This model makes pictures, of which {task} gives nothing: use --task t2v, or a model of videos.")
    prompts = [world.prompt(what) for what in wanted]
    if task in ("t2v", "t2i"):
        size = model.size._replace(frames=1) if task == "t2i" else model.size
        return Made(model.generate(prompts, size=size, first=first, **how), [{} for _ in wanted])
    truth = np.stack([world.render(what, model.size) for what in wanted])
    if task == "extend":
        return _extended(model, prompts, truth, first, how)
    known = [given_frames(task, model, first + i) for i in range(len(wanted))]
    given = [{at: one[at] for at in frames} for one, frames in zip(truth, known, strict=True)]
    alike = all(frames == known[0] for frames in known)  # clips of a call are given the same frames
    calls = [slice(None)] if alike else [slice(i, i + 1) for i in range(len(wanted))]
    videos = np.concatenate([model.generate(prompts[i], given=given[i], first=first + (i.start or 0), **how) for i in calls])
    return Made(videos, [_measured(model, *one) for one in zip(videos, truth, known, strict=True)])


def given_frames(task: Task, model: Generator, scene: int) -> list[int]:
    """Which frames of a clip a task gives; which groups `complete` gives is drawn for each scene."""
    size, autoencoder = model.size, model.model.autoencoder
    if task in ("suffix", "complete"):
        groups = autoencoder.latents(size).frames
        if groups < 2:
            raise UserError(f"This model's clips are one group of frames, and {task} gives some of several: use --task i2v.")
        some = MASKS["random"](np.random.default_rng([SEED, scene]), groups).frames
        return frames_of(autoencoder, some if task == "complete" else range(groups - groups // 2, groups), size.frames)
    return {"i2v": [0], "interpolate": [0, size.frames - 1], "predict": list(range(size.frames // 2))}[task]


def _measured(model: Generator, video: np.ndarray, truth: np.ndarray, known: list[int]) -> dict[str, float]:
    """Squared errors of what was not given: the model's, the nearest given frame repeated, a blend of those around."""
    rest = np.array([at for at in range(len(truth)) if at not in known])
    frames = truth.astype(np.float64)
    before = np.array([max((k for k in known if k < at), default=known[0]) for at in rest])
    after = np.array([min((k for k in known if k > at), default=known[-1]) for at in rest])
    nearest = np.where(abs(after - rest) < abs(rest - before), after, before)
    share = np.where(after > before, (rest - before) / np.maximum(after - before, 1), 0)[:, None, None, None]
    figures = {
        "model": squared(video[rest], truth[rest]),
        "repeat": squared(frames[nearest], truth[rest]),
        "blend": squared(frames[before] * (1 - share) + frames[after] * share, truth[rest]),
    }
    return figures | {"given": float(np.mean([squared(video[at], _as_image(model, truth[at])) for at in known]))}


def _as_image(model: Generator, picture: np.ndarray) -> np.ndarray:
    """A picture as the image autoencoder leaves it: what a key frame can be met by."""
    with torch.inference_mode():
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None, :, None].float().to(model.device) / 127.5 - 1
        return model.decode(encode_picture(model.model.autoencoder, pixels, 0), 1)[0, 0]


def _extended(model: Generator, prompts: list[str], truth: np.ndarray, first: int, how: dict[str, Any]) -> Made:
    """The whole groups of half a clip extended to four clips: the last is judged, and the jumps where chunks meet are measured; what truth
    goes on with is the rest of the first clip, with which the next chunk begins."""
    frames = model.size.frames
    known = filling(model.model.autoencoder, frames // 2)
    videos = []
    for i, (prompt, one) in enumerate(zip(prompts, truth, strict=True)):
        videos.append(np.concatenate(list(extended(model, prompt, LONG * frames, video=one[:known], known=known, first=first + i, **how))))
    starts = list(range(known, LONG * frames, frames - known))
    figures = [_measured(model, video[:frames], one, list(range(known))) for video, one in zip(videos, truth, strict=True)]
    jumps = [{"seam": float(np.median(seams(video, starts)))} for video in videos]
    return Made(np.stack([video[-frames:] for video in videos]), [one | jump for one, jump in zip(figures, jumps, strict=True)])


def squared(video: np.ndarray, truth: np.ndarray) -> float:
    """The mean squared error, of 255."""
    return float(np.square(video.astype(np.float64) - truth).mean())


def psnr(error: float) -> float:
    """Of a squared error, in dB."""
    return float(10 * np.log10(255**2 / max(error, 1e-4)))


def summary(figures: Sequence[dict[str, float]]) -> dict[str, Any]:
    """PSNR of the errors' means, not the mean of PSNRs, in which a scene that stands still outweighs all others."""
    means = {name: float(np.mean([one[name] for one in figures])) for name in (figures[0] if figures else {})}
    seam = {"seam": round(means.pop("seam"), 3)} if "seam" in means else {}
    if not means:
        return seam
    found = {name: round(psnr(value), 3) for name, value in means.items()}
    references = {name: found[name] for name in ("repeat", "blend")}
    return {
        "psnr": found["model"],
        "reference_psnr": max(references.values()),
        "references": references,
        "given_psnr": found["given"],
    } | seam
