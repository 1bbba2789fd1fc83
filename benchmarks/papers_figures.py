"""The figures of a row of papers.py: its held-out loss, what its samples are like, and what a claim asks for beside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from videodit import backbone, models
from videodit.data import cuts, sources, toybox
from videodit.data.sources import Folder
from videodit.evaluate import extractors, reconstruction, tasks
from videodit.evaluate.features import Features
from videodit.evaluate.frechet import frechet
from videodit.evaluate.judges import TOYBOX
from videodit.generate import Generator, to_frames
from videodit.models import Model
from videodit.shapes import Size
from videodit.train import looks
from videodit.train.autoencoder import AutoencoderRun
from videodit.train.backbone import BackboneRun
from videodit.train.starting import starting

REAL = 91  # seed of the scenes that generated clips are compared with
MADE, TRUE = 32, 128  # clips that are generated, scenes they are compared with
ALIKE = 24  # clips whose frames are compared
REBUILT = 64  # held-out scenes that autoencoders are measured on
GIVEN = 32  # clips that are made around their first frame
BATCH = 16


def measured(settings: BackboneRun | AutoencoderRun, also: Sequence[str]) -> tuple[dict[str, float], list[tuple[int, float]]]:
    """The figures of a trained row, and its held-out loss over steps."""
    if isinstance(settings, AutoencoderRun):
        return rebuilt(settings), []
    model = models.load(settings.output / "model")
    model.backbone.eval()
    weights = list(model.backbone.parameters())
    figures: dict[str, float] = {
        "parameters": sum(p.numel() for p in weights),
        "trained": sum(p.numel() for p in weights if p.requires_grad),
    }
    log = settings.output / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    curve = [(line["step"], line["held"]) for line in lines if "held" in line]
    moving = settings.joint.video_probability > 0
    if curve and moving:
        at = dict(curve)
        half, quarter = settings.steps // 2, settings.steps // 4
        figures |= {"held": at[settings.steps], "held_quarter": at[quarter], "gain": at[half] - at[settings.steps]}
    if curve and moving and not settings.tasks.gives:
        figures |= sampled(model, settings)
    for what in also:
        figures |= ALSO[what](model, settings)
    return {name: round(value, 6) for name, value in figures.items()}, curve


def rebuilt(settings: AutoencoderRun) -> dict[str, float]:
    """What an autoencoder leaves of held-out scenes; `image_decoder`: PSNR of key frames by D_k; `means`: how far latents' have moved."""
    autoencoder = models.load_autoencoder(settings.output / "model")
    found = reconstruction.measure(autoencoder, reconstruction.toybox_clips(REBUILT, settings.size))
    figures = {"psnr": found["all"]["psnr"], "image_decoder": found["latents"]["image_decoder_psnr"], "means": found["latents"]["mean"]}
    return {name: round(value, 6) for name, value in figures.items()}


def sampled(model: Model, settings: BackboneRun) -> dict[str, float]:
    """How far generated clips are from scenes of the toybox, and what the judge says of those that were asked for by words."""
    generator, wanted = Generator(model), TOYBOX.scenes("seen", MADE)
    words = [toybox.prompt(what) if model.text.takes == "text" else "" for what in wanted]
    clips = [clip for at in range(0, MADE, BATCH) for clip in generator.generate(words[at : at + BATCH], first=at)]
    taken = settings.looks.data if isinstance(settings.looks.data, Folder) else None
    figures = {name: frechet(truth(name, settings.size, taken).moments, features(name, clips).moments) for name in ("random-3d", "flow")}
    figures = {"frechet": figures["random-3d"], "motion": figures["flow"]}
    if model.text.takes != "text":
        return figures
    rates = TOYBOX.rates(TOYBOX.score(TOYBOX.judge(clip), what) for clip, what in zip(clips, wanted, strict=True))
    return figures | {name: rate for name, rate in rates.items() if rate is not None}


@cache
def truth(extractor: str, size: Size, taken: Folder | None) -> Features:
    """Of scenes that are drawn, or of clips that are taken from files as in training."""
    if taken is None:
        return features(extractor, [toybox.clip(REAL, i, size).video for i in range(TRUE)])
    files = sources.items(taken)
    return features(
        extractor, [clip for item in files for clip in cuts.clips(item, cuts.cut(cuts.look(item, taken), size, taken), size, taken)]
    )


def features(name: str, clips: Sequence[np.ndarray]) -> Features:
    extractor, parts = extractors.load(name), []
    for at in range(0, len(clips), BATCH):
        batch = torch.from_numpy(np.stack(clips[at : at + BATCH]))
        parts.append(Features.of(torch.arange(at, at + len(batch)), extractor.look(batch).rows))
    return sum(parts[1:], parts[0])


def pictures(model: Model, settings: BackboneRun) -> dict[str, float]:
    """The held-out loss on pictures, and that of the image model that the row started from."""
    still = replace(settings, joint=replace(settings.joint, video_probability=0.0))
    held = looks.held(still, model.autoencoder, model.text.takes)
    assert settings.start is not None
    before = models.load(settings.start)
    before.backbone.eval()
    both = looks.missed(still, model, "pictures", held) | looks.missed(still, before, "was", held)
    return {name: both[name] for name in ("pictures", "was")}


def given(model: Model, settings: BackboneRun) -> dict[str, float]:
    """PSNR of all frames but the first, which is given; and of the first, repeated."""
    generator, wanted, found = Generator(model), TOYBOX.scenes("seen", GIVEN), []
    for at in range(0, GIVEN, BATCH):
        found += tasks.make("i2v", generator, TOYBOX.world, wanted[at : at + BATCH], at).figures
    said = tasks.summary(found)
    return {"psnr": said["psnr"], "psnr_copy": said["references"]["repeat"]}


@torch.inference_mode()
def alike(model: Model, size: Size) -> dict[str, float]:
    """Frames of generated clips against each other, with attention over the clip, and over each frame by itself from the same noise.

    1 minus the squared difference of frames of one clip over that of frames of different clips: 1 where a clip stands still, 0 where its
    frames are strangers. Each latent frame is decoded as a picture. `contrast` is the deviation of pixels within a frame.
    """
    independent = backbone.build(replace(model.settings.backbone, layout="spatial")).eval()
    independent.load_state_dict(model.backbone.state_dict())
    wanted = TOYBOX.scenes("seen", ALIKE)
    real = np.stack([toybox.render(what, size) for what in wanted])
    found: dict[str, float] = {}
    clean = model.autoencoder.encode(torch.from_numpy(real).permute(0, 4, 1, 2, 3).float() / 127.5 - 1).mode()
    for name, network in (("global", model.backbone), ("independent", independent), ("true", None)):
        latents = clean if network is None else drawn(replace(model, backbone=network), [toybox.prompt(what) for what in wanted])
        frames = np.concatenate([to_frames(model.autoencoder.decode_image(latents[:, :, i : i + 1])) for i in range(latents.shape[2])], 1)
        x = torch.from_numpy(frames).double().flatten(2) / 255  # b f pixels
        within = (x[:, :, None] - x[:, None]).square().mean(-1).sum((1, 2)).mean() / (x.shape[1] * (x.shape[1] - 1))
        apart = torch.cdist(x.flatten(0, 1), x.flatten(0, 1)).square() / x.shape[2]
        whose = torch.arange(len(x)).repeat_interleave(x.shape[1])
        found[f"alike_{name}"] = 1 - float(within / apart[whose[:, None] != whose].mean())
        found[f"contrast_{name}"] = float(torch.from_numpy(frames).double().flatten(2, 3).std(2).mean()) / 255
    return found


def drawn(model: Model, prompts: list[str]) -> torch.Tensor:
    """Latents, sampled."""
    kept: list[torch.Tensor] = []

    class Kept(Generator):
        def decode(self, latents: torch.Tensor, frames: int) -> np.ndarray:
            kept.append(latents)
            return super().decode(latents[:1, :, :1], 1)

    Kept(model).generate(prompts)
    return kept[0]


def of_image(folder: Path, autoencoder: str) -> dict[str, float]:
    """Figure 2's figures of an image model at hand, converted as it is."""
    image, kept = models.load(folder), models.load_autoencoder(autoencoder)
    settings = BackboneRun(output=Path(), autoencoder=Path(autoencoder), start=folder)
    converted = starting(settings, kept)["backbone"].eval()
    size = Size(16, *image.settings.size[1:])
    described = replace(image.settings, size=size, backbone=converted.settings)
    return alike(Model(described, kept, image.text, converted), size)


ALSO = {"alike": lambda model, settings: alike(model, settings.size), "pictures": pictures, "given": given}
