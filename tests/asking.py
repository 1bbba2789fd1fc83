"""A model that is told of given frames, files to give it, and the command that asks it for a video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import tiny
from videodit import backbone, models
from videodit.cli.main import main
from videodit.data import video
from videodit.diffusion.times import Times
from videodit.models import Model

PROMPT = "a red circle moves right"
FRAMES, ROWS, COLUMNS = tiny.CLIP
VIDEO = np.random.default_rng(0).integers(0, 256, (12, ROWS, COLUMNS, 3), np.uint8)


def build(here: Path) -> Path:
    """The folder with all of it."""
    made = tiny.model(tiny.dpvae(trained=True), tiny.CLIP)
    network = backbone.build(replace(made.backbone.settings, given="time", rotary="time"))
    network.load_state_dict(made.backbone.state_dict())
    settings = replace(made.settings, backbone=network.settings, times=Times(each="frame"))
    models.save(here / "model", Model(settings, made.autoencoder, made.text, network))
    for i in (0, 1):
        Image.fromarray(VIDEO[i]).save(here / f"picture-{i}.png")
    Image.fromarray(np.repeat(np.repeat(VIDEO[0], 3, 0), 2, 1)).save(here / "wide.png")
    mask = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    mask[:, 16:] = 255
    Image.fromarray(mask).save(here / "region.png")
    video.write(here / "clip.webp", VIDEO, 8)
    return here


def generate(folder: Path, out: Path, *options: object) -> np.ndarray:
    assert main(["generate", "--model", str(folder / "model"), "-o", str(out), *map(str, options)]) == 0
    return video.read(out)[0]
