"""What is encoded of clips and pictures: themselves, and what tasks and models may be told of them, each from its own pixels alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from videodit import given, models
from videodit.autoencoder import PerFrame
from videodit.data.sight import Sight
from videodit.data.sight import load as load_sight
from videodit.shapes import Size

if TYPE_CHECKING:
    from videodit.train.backbone import BackboneRun

ENCODE = 8  # clips encoded at a time
LOW = "low"  # whole clips at a lower resolution, among the parts, by its factor
Part = Callable[[Tensor], Tensor]


def mode(autoencoder: PerFrame, pixels: Tensor) -> Tensor:
    return autoencoder.encode(pixels).mode()


def parts_of(settings: BackboneRun, autoencoder: PerFrame, size: Size, video: bool) -> dict[str, Part]:
    """The latents of clips or pictures of an extent, and what may be told of them."""
    return {"latents": partial(mode, autoencoder)} | told_of(settings, autoencoder, size, video)


def told_of(settings: BackboneRun, autoencoder: PerFrame, size: Size, video: bool) -> dict[str, Part]:
    """All that a task may give of clips: runs of groups by their span, pictures by their frame, each encoded alone; or clips and pictures
    at a lower resolution."""
    if settings.upscale:
        factor = settings.upscale.factor
        return {f"{LOW} {factor}": partial(given.encode_low, autoencoder, factor=factor)}
    if not (video and settings.tasks.gives):
        return {}
    frames = autoencoder.latents(size).frames
    masks = [given.placed(autoencoder, mask, frames) for mask in settings.tasks.all(frames)]
    runs, pictures = sorted({run for mask in masks for run in mask.runs}), sorted({frame for mask in masks for frame in mask.images})
    parts: dict[str, Part] = {f"{start}-{stop}": partial(given.encode_run, autoencoder, start=start, stop=stop) for start, stop in runs}
    parts |= {f"{frame}": partial(given.encode_picture, autoencoder, frame=frame) for frame in pictures}
    seer = sight(settings) if any(mask.begins for mask in masks) else None
    return parts | ({shown(seer): partial(_shown, seer)} if seer else {})


@torch.no_grad()
def encoded(
    settings: BackboneRun,
    frames: Callable[[int, int], Sequence[np.ndarray]],
    count: int,
    parts: dict[str, Any],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Tensor]:
    """What each part makes of so many clips or pictures, in half precision."""
    precision = torch.bfloat16 if settings.precision == "bf16" else torch.float32  # which decides how pixels are laid out
    found: dict[str, list[Tensor]] = {name: [] for name in parts}
    for start in range(0, count, ENCODE):
        some = torch.stack([torch.from_numpy(np.ascontiguousarray(x)) for x in frames(start, min(start + ENCODE, count))])
        pixels = (some.permute(0, 4, 1, 2, 3).float().to(settings.device) / 127.5 - 1).to(precision)
        with torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=settings.precision == "bf16"):
            for name, part in parts.items():
                found[name].append(part(pixels).half().cpu())
        progress(min(start + ENCODE, count), count)
    return {name: torch.cat(latents) for name, latents in found.items()}


def sight(settings: BackboneRun) -> Sight | None:
    """What tells the transformer what a given first frame shows: the run's own, or that of the model it starts from."""
    if settings.sight:
        return _sight(settings.sight, settings.device)
    start = settings.start and models.read(settings.start, models.ModelFolder)
    return _sight(start[0] / models.SIGHT, settings.device) if start and start[1].backbone.picture else None


def shown(sight: Sight) -> str:
    """The part that says what first frames show, by what sees it."""
    return f"shown {sight.content}"


@lru_cache(maxsize=1)
def _sight(folder: Path, device: str) -> Sight:
    return load_sight(folder).to(device)


def _shown(sight: Sight, video: Tensor) -> Tensor:
    """Of first frames."""
    return sight(video[:, :, 0])
