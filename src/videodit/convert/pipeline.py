"""A diffusers pipeline or transformer -> a video model on disk, with its proof; and the image half of a video model -> diffusers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import diffusers
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file

from videodit import autoencoder, models
from videodit.autoencoder import DPVAESettings
from videodit.backbone import DiT, DualTransformer, Transformer
from videodit.convert import files, names, sources
from videodit.convert.foreign import SD3
from videodit.convert.foreign_dit import DIT
from videodit.convert.from_image import Layout, image_half, inflate
from videodit.convert.names import Weights
from videodit.convert.proof import prove
from videodit.convert.sources import Source
from videodit.data.text_sd3 import PARTS, SD3Text, SD3TextSettings, kept
from videodit.diffusion.guidance import Guidance
from videodit.diffusion.times import Times
from videodit.models import BackboneFolder, Model, ModelFolder, Proof, Provenance, Sampling, parameters
from videodit.shapes import Size, UserError, latent_size

GROUPS, LARGEST, FPS = 8, 512, 24.0  # latent frames, rows and columns, frames a second where none are given
STEPS, GUIDANCE = 28, 7.0  # the defaults of diffusers' pipeline


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written: `whole` models generate."""

    whole: bool
    parameters: int
    unused: list[str]
    proof: Proof | None = None
    left: int = 0  # parameters that the other project has no place for


def to_video(
    path: Path,
    out: Path,
    *,
    time: int = 4,
    frames: int | None = None,
    extent: tuple[int, int] | None = None,
    fps: float = FPS,
    layout: Layout = "global",
    side: int = 0,
    pickled: bool = False,
) -> Converted:
    """An image model becomes a video model: SD3's whole pipeline a whole model, a transformer a transformer."""
    _free(out)
    source = files.read(path, pickled=pickled) if path.is_file() else sources.read(path)
    sees_time = isinstance(source.settings, DiT) and source.settings.layout != "spatial"
    video = source.ours() if sees_time else inflate(source.ours(), layout, side=side)
    if not isinstance(video, DualTransformer) or path.is_file() or sources.pipeline_in(path) is None:
        proof = None if sees_time else prove(source, video)
        provenance = Provenance(run=f"convert {path.name}", proof=proof)
        models.save_backbone(out, video, provenance, source.precision)
        return Converted(whole=False, parameters=parameters(video), unused=source.unused, proof=proof)
    image = models.load_autoencoder(path / "vae")
    whole = autoencoder.inflate(image.image, DPVAESettings(time=time)).eval()
    size = Size(frames or GROUPS * time, *(extent or _extent(source, whole)))
    latent_size(size, space=whole.space * source.settings.patch, time=time)
    if whole.channels != source.settings.channels:
        raise UserError(f"The transformer takes latents of {source.settings.channels} channels, the autoencoder makes {whole.channels}.")
    text = _text(path, source)
    proof = prove(source, video, whole)
    settings = ModelFolder(
        size=size,
        fps=fps,
        text=text.settings,
        backbone=video.settings,
        times=Times(shift=float(sources.load_json(path / "scheduler" / "scheduler_config.json").get("shift", 1.0))),
        sampling=Sampling(steps=STEPS, guidance=Guidance(scale=GUIDANCE)),
        provenance=Provenance(run=f"convert {path.name}", proof=proof),
    )
    precisions = {"backbone": source.precision, "autoencoder": models.precision_of(path / "vae" / "diffusion_pytorch_model.safetensors")}
    models.save(out, Model(settings, whole, text, video), precisions)
    total = sum(map(parameters, (video, whole, text)))
    return Converted(whole=True, parameters=total, unused=source.unused, proof=proof)


def to_diffusers(path: Path, out: Path) -> Converted:
    """The image model that is left in a video model: a whole model's as a pipeline, a transformer's alone."""
    _free(out)
    folder, settings = models.read(path, ModelFolder, BackboneFolder)
    project, image = SD3 if isinstance(settings.backbone, Transformer) else DIT, replace(settings.backbone, video=False)
    image = replace(image, layout="global") if isinstance(image, Transformer) else image
    described = project.described(image)
    model = models.load(path) if isinstance(settings, ModelFolder) else None
    network = model.backbone if model else models.load_backbone(path)
    with models.written(out) as aside:
        if model:
            _write_pipeline(aside, model)
        precision = models.precision_of(folder / "backbone.safetensors")
        weights = names.theirs(image_half(network), project.pairs(image))
        _write_transformer(aside / "transformer" if model else aside, weights, described, precision)
    kept = sum(value.numel() for value in weights.values())
    return Converted(whole=model is not None, parameters=kept, unused=[], left=parameters(network) - kept)


def _free(out: Path) -> None:
    if out.exists():
        raise UserError(f"{out} exists: give a folder that does not, or remove that one.")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out.absolute().parent} does not exist: make it first, or give another folder.")


def _text(path: Path, source: Source) -> SD3Text:
    text = SD3Text.of_pipeline(path, SD3TextSettings(width=source.settings.text))
    blank = text([""])
    assert blank.sequence is not None and blank.pooled is not None
    found, wanted = (blank.sequence.shape[-1], blank.pooled.shape[-1]), (source.settings.text, source.settings.pooled)
    if found != wanted:
        raise UserError(
            f"The text encoders make {found[0]} channels a token and {found[1]} in all, the transformer takes {wanted[0]} and {wanted[1]}."
        )
    return text


def _extent(source: Source, whole: autoencoder.DPVAE) -> tuple[int, int]:
    side = min(LARGEST, getattr(source.settings.places, "base", LARGEST) * source.settings.patch * whole.space)
    return side, side


def _write_transformer(folder: Path, weights: Weights, described: Mapping[str, object], precision: torch.dtype) -> None:
    folder.mkdir(exist_ok=True)
    save_file({name: value.to(precision).contiguous() for name, value in weights.items()}, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"_diffusers_version": diffusers.__version__, **described}, indent=2))


def _write_pipeline(folder: Path, model: Model) -> None:
    """Everything but the transformer."""
    if not isinstance(model.text, SD3Text):
        raise UserError("This model has a text encoder of its own, which diffusers has not: only models converted from it go back.")
    model.autoencoder.image.save_pretrained(folder / "vae")
    model.text.save(folder)
    FlowMatchEulerDiscreteScheduler(shift=model.settings.times.shift).save_pretrained(folder / "scheduler")
    classes = {
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
        "tokenizer_3": "T5TokenizerFast",
        "text_encoder": "CLIPTextModelWithProjection",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel",
    }
    there = {path.parent.name for path in kept(folder)}
    index = {part: ["transformers", classes[part]] if part in there else [None, None] for part in PARTS}
    index |= {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "vae": ["diffusers", "AutoencoderKL"]}
    index |= {"transformer": ["diffusers", SD3.name], "image_encoder": [None, None], "feature_extractor": [None, None]}
    described = {"_class_name": "StableDiffusion3Pipeline", "_diffusers_version": diffusers.__version__, **index}
    (folder / "model_index.json").write_text(json.dumps(described, indent=2))
