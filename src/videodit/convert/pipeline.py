"""A diffusers pipeline or transformer -> a video model on disk, with its proof; and the image half of a video model -> diffusers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import diffusers
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file

from videodit import models
from videodit.backbone import DiT, DualTransformer, SingleTransformer, Transformer
from videodit.convert import files, names, sources
from videodit.convert.beside import beside, schedule
from videodit.convert.foreign import SD3
from videodit.convert.foreign_dit import DIT
from videodit.convert.from_image import Layout, image_half, inflate
from videodit.convert.names import Weights
from videodit.convert.proof import prove
from videodit.data.labels import Labels
from videodit.data.text import TextEncoder
from videodit.data.text_sd3 import PARTS, SD3Text, kept
from videodit.diffusion.objectives import Diffusion
from videodit.models import BackboneFolder, Model, ModelFolder, Proof, Provenance, parameters
from videodit.shapes import Size, UserError, latent_size

GROUPS, FRAMES, LARGEST, FPS = 8, 16, 512, 24.0  # groups, or frames where each stands alone; rows and columns; frames a second
CLASSES = {
    "tokenizer": "CLIPTokenizer",
    "tokenizer_2": "CLIPTokenizer",
    "tokenizer_3": "T5TokenizerFast",
    "text_encoder": "CLIPTextModelWithProjection",
    "text_encoder_2": "CLIPTextModelWithProjection",
    "text_encoder_3": "T5EncoderModel",
}


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written: `whole` models generate."""

    whole: bool
    parameters: int
    unused: list[str]
    proof: Proof | None = None
    left: int = 0  # parameters that the other project has no place for
    takes: str = "text"  # what a whole model is told: text, label or nothing


def to_video(
    path: Path,
    out: Path,
    *,
    time: int | None = None,
    frames: int | None = None,
    extent: tuple[int, int] | None = None,
    fps: float | None = None,
    layout: Layout | None = None,
    side: int = 0,
    pickled: bool = False,
    autoencoder: Path | None = None,
) -> Converted:
    """An image model becomes a video model: a whole pipeline a whole model, a transformer a transformer, or whole with an autoencoder."""
    _free(out)
    source = files.read(path, pickled=pickled) if path.is_file() else sources.read(path)
    sees_time = isinstance(source.settings, DiT) and source.settings.layout != "spatial"
    if sees_time and (layout or side):
        raise UserError(f"{path} sees time already, in the layout {source.settings.layout}: leave --{'layout' if layout else 'side'} out.")
    video = source.ours() if sees_time else inflate(source.ours(), layout or "global", side=side)
    parts = beside(path, source, video, autoencoder, time)
    told = {"--frames": frames, "--size": extent, "--fps": fps, "--time": time}
    if parts is None and (said := [name for name, value in told.items() if value]):
        raise UserError(f"{said[0]} is for a whole model, and {path} is a transformer alone: leave it out, or give its pipeline's folder.")
    proof = None if sees_time else prove(source, video, parts and parts.autoencoder)
    provenance = Provenance(run=f"convert {path.name}", proof=proof)
    if parts is None:
        models.save_backbone(out, video, provenance, source.precision)
        return Converted(whole=False, parameters=parameters(video), unused=source.unused, proof=proof)
    group, space = parts.autoencoder.time, parts.autoencoder.space
    size = Size(frames or (GROUPS * group if group > 1 else FRAMES), *(extent or _extent(video, space)))
    latent_size(size, space=space * source.settings.patch, time=group)
    settings = ModelFolder(
        size=size,
        fps=fps or FPS,
        text=parts.text.settings,
        backbone=video.settings,
        objective=parts.objective,
        times=parts.times,
        sampling=parts.sampling,
        provenance=provenance,
    )
    weights = parts.image / "diffusion_pytorch_model.safetensors"
    precisions = {"backbone": source.precision, "autoencoder": models.precision_of(weights) if weights.is_file() else torch.half}
    models.save(out, Model(settings, parts.autoencoder, parts.text, video), precisions)
    total = sum(map(parameters, (video, parts.autoencoder, parts.text)))
    return Converted(whole=True, parameters=total, unused=source.unused, proof=proof, takes=parts.text.takes)


def to_diffusers(path: Path, out: Path) -> Converted:
    """The image model that is left in a video model: a whole model's as a pipeline, a transformer's alone."""
    _free(out)
    folder, settings = models.read(path, ModelFolder, BackboneFolder)
    project, image = SD3 if isinstance(settings.backbone, Transformer) else DIT, replace(settings.backbone, video=False)
    described = project.described(image)
    model = models.load(path) if isinstance(settings, ModelFolder) else None
    network = model.backbone if model else models.load_backbone(path)
    half, pairs = image_half(network), list(project.pairs(image))
    with models.written(out) as aside:
        if model:
            _write_pipeline(aside, model)
        precision = models.precision_of(folder / "backbone.safetensors")
        weights = names.theirs(half, pairs)
        _write_transformer(aside / "transformer" if model else aside, weights, described, precision)
    kept = {f"{name}.{end}" for pair in pairs for name in pair.ours for end in pair.ends}  # theirs may be copies of one
    left = parameters(network) - sum(half[name].numel() for name in kept)
    return Converted(whole=model is not None, parameters=sum(value.numel() for value in weights.values()), unused=[], left=left)


def _free(out: Path) -> None:
    if out.exists():
        raise UserError(f"{out} exists: give a folder that does not, or remove that one.")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out.absolute().parent} does not exist: make it first, or give another folder.")


def _extent(video: DualTransformer | SingleTransformer, space: int) -> tuple[int, int]:
    places = video.settings.places
    side = min(LARGEST, getattr(places, "side" if isinstance(video, SingleTransformer) else "base", LARGEST) * video.settings.patch * space)
    return side, side


def _write_transformer(folder: Path, weights: Weights, described: Mapping[str, object], precision: torch.dtype) -> None:
    folder.mkdir(exist_ok=True)
    save_file({name: value.to(precision).contiguous() for name, value in weights.items()}, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"_diffusers_version": diffusers.__version__, **described}, indent=2))


def _write_pipeline(folder: Path, model: Model) -> None:
    """Everything but the transformer."""
    if isinstance(model.text, TextEncoder):
        raise UserError("This model has a text encoder of its own, which diffusers has not: only models converted from it go back.")
    model.autoencoder.image.save_pretrained(folder / "vae")
    index = _dit_index(folder, model) if isinstance(model.text, Labels) else _sd3_index(folder, model, model.text)
    described = {"_diffusers_version": diffusers.__version__, "vae": ["diffusers", "AutoencoderKL"], **index}
    (folder / "model_index.json").write_text(json.dumps(described, indent=2))


def _sd3_index(folder: Path, model: Model, text: SD3Text) -> dict[str, object]:
    text.save(folder)
    FlowMatchEulerDiscreteScheduler(shift=model.settings.times.shift).save_pretrained(folder / "scheduler")
    there = {path.parent.name for path in kept(folder)}
    return {
        "_class_name": "StableDiffusion3Pipeline",
        **{part: ["transformers", CLASSES[part]] if part in there else [None, None] for part in PARTS},
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["diffusers", SD3.name],
        "image_encoder": [None, None],
        "feature_extractor": [None, None],
    }


def _dit_index(folder: Path, model: Model) -> dict[str, object]:
    assert isinstance(model.text, Labels)
    if not isinstance(model.settings.objective, Diffusion):
        raise UserError(
            "A DiTPipeline samples diffusions, and this model answers with a flow: only those with objective.kind=diffusion go back."
        )
    DDIMScheduler.from_config(schedule(model.settings.objective)).save_pretrained(folder / "scheduler")  # pyright: ignore
    return {
        "_class_name": "DiTPipeline",
        "id2label": {str(i): name for i, name in enumerate(model.text.settings.names)},
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", DIT.name],
    }
