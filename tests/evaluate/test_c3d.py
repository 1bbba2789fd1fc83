"""C3D beside a definition that is written down once more, step by step; its size, its names, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from videodit.evaluate import c3d, extractors
from videodit.evaluate.c3d import C3D
from videodit.evaluate.extractors import EXTRACTORS
from videodit.models import digest
from videodit.shapes import UserError

WIDTHS, HIDDEN = (2, 3, 4, 4, 5, 5, 6, 6), 7
LAYERS = ("conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b")


def published() -> dict[str, np.ndarray]:
    """Weights of a narrow network under Chainer's names, and a mean clip of the published extent."""
    rng = np.random.default_rng(1)
    shapes = [(layer, (after, before, 3, 3, 3)) for layer, (before, after) in zip(LAYERS, pairwise((3, *WIDTHS)), strict=True)]
    shapes += [("fc6", (HIDDEN, WIDTHS[-1] * 16)), ("fc7", (HIDDEN, HIDDEN)), ("fc8", (101, HIDDEN))]
    found = {"mean": rng.uniform(60, 140, c3d.MEAN)}
    for layer, shape in shapes:
        found[f"{layer}/W"] = rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
        found[f"{layer}/b"] = 0.3 * rng.standard_normal(shape[0])
    return {name: value.astype(np.float32) for name, value in found.items()}


def clip(frames: int = 16, rows: int = 37, columns: int = 50) -> Tensor:
    return torch.from_numpy(np.random.default_rng(2).integers(0, 256, (2, frames, rows, columns, 3), dtype=np.uint8))


def stretched(picture: np.ndarray) -> np.ndarray:
    """One channel at 112x112: pixel i of n stands at i / (n - 1) of both."""
    rows, columns = (np.linspace(0, length - 1, 112) for length in picture.shape)
    wide = np.stack([np.interp(columns, np.arange(picture.shape[1]), row) for row in picture])
    return np.stack([np.interp(rows, np.arange(picture.shape[0]), column) for column in wide.T], 1)


def pooled(x: Tensor, kernel: tuple[int, int, int]) -> Tensor:
    """The largest of each part; parts at the far edge may be smaller."""
    for axis, size in zip((2, 3, 4), kernel, strict=True):
        x = torch.stack([part.amax(axis) for part in x.split(size, axis)], axis)
    return x


def plain(clips: Tensor, held: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    weights = {name: torch.from_numpy(value).double() for name, value in held.items()}
    x = torch.zeros(len(clips), 3, 16, 112, 112, dtype=torch.float64)
    for b, f, c in np.ndindex(len(clips), 16, 3):
        bluegreenred = 2 - c
        x[b, bluegreenred, f] = torch.from_numpy(stretched(clips[b, f, :, :, c].numpy().astype(float)))
    x = x - weights["mean"][:, :, 8:120, 8:120]
    for layer in LAYERS:
        x = F.conv3d(x, weights[f"{layer}/W"], weights[f"{layer}/b"], padding=1).clamp_min(0)
        if layer not in ("conv3a", "conv4a", "conv5a"):
            x = pooled(x, (1, 2, 2) if layer == "conv1a" else (2, 2, 2))
    assert x.shape[2:] == (1, 4, 4)
    x = x.reshape(len(x), -1)
    for layer in ("fc6", "fc7"):
        x = (x @ weights[f"{layer}/W"].T + weights[f"{layer}/b"]).clamp_min(0)
    return x, x @ weights["fc8/W"].T + weights["fc8/b"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Published names, of a narrow network."""
    narrow = replace(EXTRACTORS["c3d-ucf101"], build=lambda: C3D(WIDTHS, HIDDEN))
    monkeypatch.setitem(EXTRACTORS, "c3d-ucf101", narrow)
    path = tmp_path / "c3d.npz"
    np.savez(path, **published())
    return path


def test_what_a_file_of_published_names_gives_is_what_the_plain_definition_gives(file: Path):
    rows, logits = extractors.load("c3d-ucf101", file, sha256=digest(file)).look(clip())
    wanted, answers = plain(clip(), published())
    assert rows.shape == (2, 1, HIDDEN) and logits is not None and logits.shape == (2, 1, 101)
    assert (wanted > 0).any() and answers.std() > 0.1
    torch.testing.assert_close(rows[:, 0].double(), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    torch.testing.assert_close(logits[:, 0].double(), answers, rtol=1e-4, atol=1e-4 * float(answers.abs().max()))


def test_the_whole_network_has_the_size_that_its_layers_add_up_to():
    with torch.device("meta"):
        network = C3D()
    convolutions = sum(27 * before * after + after for before, after in pairwise((3, 64, 128, 256, 256, 512, 512, 512, 512)))
    linear = 8192 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 101 + 101
    assert sum(p.numel() for p in network.parameters()) == convolutions + linear == 78_409_573


def test_files_that_are_not_trusted_or_not_whole_are_refused(file: Path, tmp_path: Path):
    with pytest.raises(UserError, match="none known for c3d-ucf101: say --sha256"):
        extractors.load("c3d-ucf101", file)
    held = published()
    del held["mean"]
    np.savez(tmp_path / "bare.npz", **held)
    with pytest.raises(UserError, match="lacks mean"):
        extractors.load("c3d-ucf101", tmp_path / "bare.npz", sha256=digest(tmp_path / "bare.npz"))
    np.savez(tmp_path / "pickled.npz", mean=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="cannot be read as tensors alone"):
        extractors.load("c3d-ucf101", tmp_path / "pickled.npz", sha256=digest(tmp_path / "pickled.npz"))
    with pytest.raises(UserError, match="16 frames, not of 15: use --frames 16"):
        extractors.load("c3d-ucf101", file, sha256=digest(file)).look(clip(15))
