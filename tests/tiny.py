"""A tiny world on disk: every kind of model folder, with random weights, from the tiny presets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from tokenizers import Tokenizer
from torch import Tensor, nn

from videodit import backbone, models
from videodit.autoencoder import DPVAE, DPVAESettings, PerFrame, inflate
from videodit.autoencoder.presets import PRESETS
from videodit.backbone import DualTransformer
from videodit.data import toybox
from videodit.data.text import TextEncoder, TextSettings, learn_tokenizer
from videodit.diffusion.guidance import Guidance
from videodit.generate import Generator
from videodit.models import Model, ModelFolder, Provenance, Sampling
from videodit.shapes import Size, Text
from videodit.train.autoencoder import AutoencoderRun
from videodit.train.backbone import BackboneRun, Joint
from videodit.train.decoder import DecoderRun
from videodit.train.image_autoencoder import ImageAutoencoderRun
from videodit.train.optimizer import Optimizer
from videodit.train.pools import Pool
from videodit.train.recipes import Recipe
from videodit.train.step import Checkpoint

CLIP, PICTURE = Size(8, 32, 32), Size(1, 32, 32)
SIGHT = 12  # channels of what a picture shows
TEXT = TextSettings(width=16, depth=1, heads=2)
SAMPLING = Sampling(steps=3, guidance=Guidance(scale=2.0))


@dataclass(frozen=True)
class World:
    """Folders: an image autoencoder as diffusers saves it, a DP-VAE, an image model and a video model."""

    image_autoencoder: Path
    autoencoder: Path
    image_model: Path
    video_model: Path


def randomised(module: nn.Module, seed: int = 0, size: float = 0.1) -> nn.Module:
    """The same module with noise on every parameter, so that nothing is zero and no identity holds for that reason."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return module


def image_autoencoder(**changes: object) -> AutoencoderKL:
    torch.manual_seed(1)
    return replace(PRESETS["tiny"], **{"scaling": 0.8, "shift": 0.1, **changes}).build().eval()


def dpvae(time: int = 4, *, trained: bool = False, settings: DPVAESettings | None = None, **changes: object) -> DPVAE:
    """A DP-VAE at step 0, or one whose temporal parts do something (`trained`)."""
    autoencoder = inflate(image_autoencoder(**changes), settings or DPVAESettings(time=time)).eval()
    if trained:
        randomised(autoencoder.encoder)
        randomised(autoencoder.decoder)
    return autoencoder


def transformer(**changes: object) -> DualTransformer:
    """A tiny transformer with noise on every parameter."""
    torch.manual_seed(2)
    settings = replace(backbone.PRESETS["toybox-tiny"], **{"text": TEXT.width, "pooled": TEXT.width, "video": True, **changes})
    network = backbone.build(settings).eval()
    randomised(network)
    return network


@cache
def sentences() -> list[str]:
    """Enough sentences for every word; drawing all of them takes long while shapes are checked."""
    return list(islice(toybox.sentences(), 600))


@cache
def tokenizer() -> Tokenizer:
    return learn_tokenizer(sentences(), TEXT)


def text_encoder() -> TextEncoder:
    torch.manual_seed(3)
    return TextEncoder(tokenizer(), TEXT).eval()


def text(words: Sequence[int], width: int = TEXT.width, seed: int = 4) -> Text:
    """Random features of as many texts, each with its number of words, padded to the longest."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(words)) < torch.tensor(words)[:, None]
    return Text(
        sequence=torch.randn(len(words), max(words), width, generator=generator) * mask[..., None],
        pooled=torch.randn(len(words), width, generator=generator),
        mask=mask,
    )


def sight(folder: Path, seed: int = 0) -> Path:
    """A folder of a tiny random CLIP image encoder, as transformers saves it."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    small: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(seed)
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**small, image_size=24, patch_size=8, projection_dim=SIGHT))
    randomised(encoder)
    encoder.save_pretrained(folder)
    return folder


def grid(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def caught(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The latents that are decoded from now on, as they come."""
    latents: list[Tensor] = []
    decode = Generator.decode
    monkeypatch.setattr(Generator, "decode", lambda self, some, frames: (latents.append(some), decode(self, some, frames))[1])
    return latents


def model(autoencoder: PerFrame, size: Size) -> Model:
    settings = ModelFolder(size=size, text=TEXT, sampling=SAMPLING, provenance=Provenance(run="tiny", steps=1))
    network = transformer(video=size.frames > 1)
    return Model(replace(settings, backbone=network.settings), autoencoder, text_encoder(), network)


def build(folder: Path) -> World:
    """Write the whole world under a folder."""
    world = World(*(folder / name for name in ("image-autoencoder", "autoencoder", "image", "video")))
    image_autoencoder().save_pretrained(world.image_autoencoder)
    models.save_autoencoder(world.autoencoder, dpvae(trained=True), Provenance(run="tiny"))
    models.save(world.image_model, model(PerFrame(image_autoencoder()), PICTURE))
    models.save(world.video_model, model(dpvae(trained=True), CLIP))
    return world


def runs(world: World, folder: Path, *, steps: int, every: int = 1000) -> dict[str, Recipe]:
    """A tiny run of each kind, and of each way to start a transformer; every figure of fp32 is the same each time."""
    same: dict[str, Any] = {
        "steps": steps,
        "precision": "fp32",
        "average": 0.9,
        "checkpoint": Checkpoint(every=every),
        "optimizer": Optimizer(warmup=2),
    }
    few: dict[str, Any] = {"batch": 4, "clips": 12, "pictures": 12, "text_dropout": 0.3, "sampling": SAMPLING, **same}
    video: dict[str, Any] = {"size": CLIP, "autoencoder": world.autoencoder, "joint": Joint(video_probability=0.6), **few}
    return {
        "image-autoencoder": ImageAutoencoderRun(output=folder / "image-autoencoder", preset="tiny", batch=4, size=PICTURE, **same),
        "autoencoder": AutoencoderRun(output=folder / "autoencoder", image=world.image_autoencoder, batch=1, size=CLIP, **same),
        "image": BackboneRun(
            output=folder / "image",
            autoencoder=world.image_autoencoder,
            preset="toybox-tiny",
            text=TEXT,
            size=PICTURE,
            joint=Joint(video_probability=0.0),
            **few,
        ),
        "video": BackboneRun(output=folder / "video", start=world.image_model, **video),
        "video from nothing": BackboneRun(output=folder / "whole", preset="toybox-tiny", text=TEXT, **video),
        "decoder": DecoderRun(output=folder / "decoder", model=world.video_model, batch=2, clips=6, **same),
    }


def latents(pool: Pool) -> list[Tensor]:
    """Of all clips or pictures."""
    return pool.latents.read("latents", range(len(pool.latents)))


def told(how: str = "time", *, hints: bool = False, clip: Size = CLIP, groups: DPVAESettings | None = None, **changes: object) -> Generator:
    made = model(dpvae(trained=True, settings=groups), clip)
    network = backbone.build(replace(made.backbone.settings, given=how, hints=hints, rotary="time")).eval()
    network.load_state_dict(made.backbone.state_dict(), strict=False)
    return Generator(Model(replace(made.settings, backbone=network.settings, **changes), made.autoencoder, made.text, network))


def apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(abs(one.astype(int) - other.astype(int)).max())
