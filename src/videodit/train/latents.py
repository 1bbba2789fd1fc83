"""What a transformer's run reads at step n: cached latents, captions or cached features, what is given, times and noise, all functions of
(seed, n)."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from videodit import given
from videodit.autoencoder import PerFrame
from videodit.data import toybox
from videodit.data.cache import remembered
from videodit.data.text import TextEncoder
from videodit.data.text_sd3 import SD3Text
from videodit.diffusion.tasks import Given, Mask
from videodit.shapes import Text

if TYPE_CHECKING:
    from videodit.train.backbone import BackboneRun

ENCODE = 8  # clips encoded at a time
Part = Callable[[Tensor], Tensor]


class Batch(NamedTuple):
    clean: Tensor
    text: Text | list[str]  # features where the encoder is frozen, else captions
    times: Tensor
    noise: Tensor
    given: Given | None = None


class Latents:
    """Latents by kind (False pictures, True clips) with their captions; the blank's features stand behind all others."""

    def __init__(self, settings: BackboneRun, autoencoder: PerFrame, frozen: TextEncoder | SD3Text | None, takes: str) -> None:
        self.settings = settings
        video = settings.joint.video_probability
        kinds = [kind for kind, used in ((False, video < 1), (True, video > 0)) if used]
        self.captions = {kind: _captions(settings, kind, takes) for kind in kinds}
        folder = settings.output.parent / "cache"
        key = {"seed": settings.seed, "toybox": hashlib.sha256(inspect.getsource(toybox).encode()).hexdigest()}
        encoded = key | {"size": settings.size, "autoencoder": digest(autoencoder)}
        self.clean = {
            kind: remembered(folder, encoded | {"video": kind, "count": len(captions)}, partial(_encode, settings, autoencoder, kind))
            for kind, captions in self.captions.items()
        }
        self.parts = _parts(settings, autoencoder, folder, encoded) if settings.tasks.gives and True in kinds else {}
        self.place = partial(given.place, autoencoder, settings.size.frames)
        self.features: dict[bool, dict[str, Tensor]] = {}
        if frozen is not None:
            read = key | {"text": digest(frozen), "tokenizer": frozen.spelling()}
            self.features = {
                kind: remembered(folder, read | {"video": kind, "captions": len(captions)}, partial(_read, frozen, captions))
                for kind, captions in self.captions.items()
            }

    def batch(self, step: int) -> Batch:
        settings = self.settings
        rng, of_step = (np.random.default_rng([settings.seed, n, 9]) for n in (step, step // settings.accumulate))
        rng.random()
        kind = bool(of_step.random() < settings.joint.video_probability)  # the same in all passes of a step, which may be shared
        mask = settings.tasks.draw(np.random.default_rng([settings.seed, step, 10]), self.clean[kind]["latents"].shape[2])
        told = bool(mask.frames or mask.images)
        indices = rng.integers(min(settings.tasks.clips, settings.clips) if told else len(self.captions[kind]), size=settings.batch)
        dropped = rng.random(settings.batch) < settings.text_dropout
        clean = self.clean[kind]["latents"][torch.from_numpy(indices)].float()
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        noise = torch.randn(clean.shape, generator=generator)
        frames, places = clean.shape[2], clean[0, 0].numel()
        times = settings.objective.draw(settings.times, len(clean), frames, places, generator)
        if settings.prior.kind != "independent":
            noise = settings.prior.correlated(noise, torch.randn(clean[:, :, :1].shape, generator=generator))
        given = self._given(mask, clean.shape[2], indices) if told else None
        return Batch(clean, self._text(kind, indices, dropped), times, noise, given)

    def _given(self, mask: Mask, frames: int, indices: np.ndarray) -> Given | None:
        rows = torch.from_numpy(indices)
        return given.assembled(
            mask,
            frames,
            self.place,
            run=lambda start, stop: self.parts[f"{start}-{stop}"][rows].float(),
            picture=lambda frame: self.parts[f"{frame}"][rows].float(),
        )

    def _text(self, kind: bool, indices: np.ndarray, dropped: np.ndarray) -> Text | list[str]:
        if not self.features:
            return ["" if drop else self.captions[kind][i] for i, drop in zip(indices, dropped, strict=True)]
        features = self.features[kind]
        rows = torch.from_numpy(np.where(dropped, len(self.captions[kind]), indices))
        mask = features["mask"][rows] if "mask" in features else None
        longest = None if mask is None else int(mask.sum(1).max())
        sequence, pooled = features["sequence"][rows, :longest].float(), features["pooled"][rows].float()
        return Text(sequence=sequence, pooled=pooled, mask=None if mask is None else mask[:, :longest])


def digest(module: nn.Module) -> str:
    """The content of a network's weights."""
    content = hashlib.sha256()
    for name, value in module.state_dict().items():
        content.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def _captions(settings: BackboneRun, video: bool, takes: str) -> list[str]:
    if takes != "text":
        count = settings.clips if video else settings.pictures
        scenes = (toybox.scene(settings.seed, i) for i in range(count))
        return [getattr(what.things[0], settings.labels) if takes == "label" else "" for what in scenes]
    if video:
        return [toybox.sentence(settings.seed, i) for i in range(settings.clips)]
    return [toybox.picture_sentence(settings.seed, i) for i in range(settings.pictures)]


def _encode(settings: BackboneRun, autoencoder: PerFrame, video: bool) -> dict[str, Tensor]:
    """The modes of all clips' or pictures' latents, in half precision."""
    count = settings.clips if video else settings.pictures
    return _encoded(settings, video, count, {"latents": lambda pixels: autoencoder.encode(pixels).mode()})


def _parts(settings: BackboneRun, autoencoder: PerFrame, folder: Path, key: dict[str, Any]) -> dict[str, Tensor]:
    """All that a task may give of clips: runs of groups by their span, pictures by their frame, each encoded alone."""
    masks = settings.tasks.all(autoencoder.latents(settings.size).frames)
    runs, pictures = sorted({run for mask in masks for run in mask.runs}), sorted({frame for mask in masks for frame in mask.images})
    parts: dict[str, Part] = {f"{start}-{stop}": partial(given.encode_run, autoencoder, start=start, stop=stop) for start, stop in runs}
    parts |= {f"{frame}": partial(given.encode_picture, autoencoder, frame=frame) for frame in pictures}
    count = min(settings.tasks.clips, settings.clips)
    return remembered(folder, key | {"parts": sorted(parts), "count": count}, partial(_encoded, settings, True, count, parts))


@torch.no_grad()
def _encoded(settings: BackboneRun, video: bool, count: int, parts: dict[str, Part]) -> dict[str, Tensor]:
    """What each part makes of the first so many clips or pictures, in half precision."""
    size = settings.size if video else settings.size._replace(frames=1)
    draw = toybox.clip if video else toybox.picture
    precision = torch.bfloat16 if settings.precision == "bf16" else torch.float32  # which decides how pixels are laid out
    found: dict[str, list[Tensor]] = {name: [] for name in parts}
    for start in range(0, count, ENCODE):
        frames = torch.stack([torch.from_numpy(draw(settings.seed, i, size).video) for i in range(start, min(start + ENCODE, count))])
        pixels = (frames.permute(0, 4, 1, 2, 3).float().to(settings.device) / 127.5 - 1).to(precision)
        with torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=settings.precision == "bf16"):
            for name, part in parts.items():
                found[name].append(part(pixels).half().cpu())
    return {name: torch.cat(latents) for name, latents in found.items()}


@torch.no_grad()
def _read(encoder: TextEncoder | SD3Text, captions: list[str]) -> dict[str, Tensor]:
    """Features of all captions and of the blank, in half precision, padded to the longest."""
    parts = [encoder([*captions, ""][start : start + 256])._asdict() for start in range(0, len(captions) + 1, 256)]
    longest = max(part["sequence"].shape[1] for part in parts)

    def padded(x: Tensor) -> Tensor:
        return torch.cat([x, x.new_zeros(len(x), longest - x.shape[1], *x.shape[2:])], dim=1)

    features = {name: [part[name] for part in parts] for name, value in parts[0].items() if value is not None}
    whole = {name: torch.cat(values if name == "pooled" else list(map(padded, values))) for name, values in features.items()}
    return {name: value.half() if value.is_floating_point() else value for name, value in whole.items()}
