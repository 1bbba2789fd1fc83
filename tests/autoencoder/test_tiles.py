"""Tiles: the whole after as many passes as there are normalisations, and near it before; what was not tiled is not touched."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from videodit import models
from videodit.autoencoder import DPVAESettings, PerFrame
from videodit.autoencoder.tiles import Tiles, spans, tiled
from videodit.data import toybox
from videodit.shapes import Size, UserError

VIDEO = tiny.grid(1, 3, 8, 96, 80).clamp(-1, 1)


def toybox_clip(index: int, size: Size) -> Tensor:
    frames = torch.from_numpy(toybox.render(toybox.crowd(5, index), size, at=toybox.times(size.frames)))
    return frames.permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def both_ways(autoencoder: PerFrame, video: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    posterior = autoencoder.encode(video)
    return posterior.mean, posterior.std, autoencoder.decode(latents)


@pytest.mark.parametrize(("whole", "part", "overlap"), [(32, 16, 4), (12, 8, 4), (13, 6, 3), (9, 4, 0), (5, 8, 4), (5, 0, 4)])
def test_every_place_is_kept_once_and_seen_with_what_is_around_it(whole: int, part: int, overlap: int) -> None:
    found = spans(whole, part, overlap)
    assert [place for span in found for place in range(span.first, span.last)] == list(range(whole))
    for span in found:
        assert span.stop - span.start <= (part or whole)
        assert span.start == 0 or span.first - span.start == overlap // 2
        assert span.stop == whole or span.stop - span.last >= overlap // 2


@torch.no_grad()
def test_one_tile_is_the_whole() -> None:
    autoencoder = tiny.dpvae(trained=True)
    z = autoencoder.encode(VIDEO).mean
    for tiles in (Tiles(), Tiles(rows=12, columns=10), Tiles(rows=99)):
        with tiled(autoencoder, tiles):
            mean, _, video = both_ways(autoencoder, VIDEO, z)
        assert torch.equal(mean, z) and torch.equal(video, autoencoder.decode(z))


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (DPVAESettings(), {}),
        (DPVAESettings(time=2, keys=False), {"quant_convs": True, "middle_attention": False}),
        (DPVAESettings(first="alone", keys=False), {}),
        (DPVAESettings(reach="causal", step=1), {}),
        (DPVAESettings(time=2), {"widths": (8, 16)}),
        (DPVAESettings(reach="causal"), {"attentive": (2, 3)}),
    ],
)
@torch.no_grad()
def test_enough_passes_make_it_the_whole(settings: DPVAESettings, changes: dict[str, Any]) -> None:
    autoencoder = tiny.dpvae(trained=True, settings=settings, **changes)
    z = autoencoder.encode(VIDEO).mean
    whole = [*both_ways(autoencoder, VIDEO, z), autoencoder.decode_image(z)]
    side, overlap = (8, 4) if autoencoder.space == 8 else (24, 8)
    with tiled(autoencoder, Tiles(rows=side, columns=side, overlap=overlap, passes=16)):
        parts = [*both_ways(autoencoder, VIDEO, z), autoencoder.decode_image(z)]
    for part, same in zip(parts, whole, strict=True):
        torch.testing.assert_close(part, same, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_pass_more_is_nearer_and_statistics_are_the_frame_s() -> None:
    autoencoder = tiny.dpvae(trained=True)
    z = autoencoder.encode(VIDEO).mean
    whole = autoencoder.decode(z)
    away = []
    for passes in (1, 2, 4, 8):
        with tiled(autoencoder, Tiles(rows=8, columns=8, passes=passes)):
            away.append((autoencoder.decode(z) - whole).square().mean().item())
    assert away[0] > away[1] > away[2] > away[3]


@pytest.mark.parametrize("trained", [True, False])
@torch.no_grad()
def test_no_seam_shows(trained: bool) -> None:
    """The bundled model's autoencoder on crowds, random weights on noise: 40 dB to the whole, no more error at borders than elsewhere."""
    autoencoder = models.load_autoencoder("toybox") if trained else tiny.dpvae(trained=True)
    sides = (16, 4) if trained else (8, 4)
    size = Size(8, 128, 128)
    errors = []
    for index in range(3):
        z = autoencoder.encode(toybox_clip(index, size)).mean if trained else tiny.grid(1, 8, 2, 16, 16, seed=index)
        whole = autoencoder.decode(z)
        with tiled(autoencoder, Tiles(rows=sides[0], columns=sides[0], overlap=sides[1])):
            errors.append(autoencoder.decode(z) - whole)
            assert 10 * math.log10(4 / errors[-1].square().mean().item()) >= 40
    squares = torch.cat(errors).square().mean((0, 1, 2))
    seams = [span.last * autoencoder.space for span in spans(128 // autoencoder.space, *sides)[:-1]]
    near = torch.zeros(128, dtype=torch.bool)
    for seam in seams:
        near[seam - 4 : seam + 4] = True
    edge = near[:, None] | near
    assert squares[edge].mean().sqrt() <= 1.1 * squares[~edge].mean().sqrt()


@torch.no_grad()
def test_attention_at_the_finest_resolution_is_not_tiled() -> None:
    autoencoder = tiny.dpvae(attentive=(0,))
    with pytest.raises(UserError, match="which no tile sees: leave tiles out"), tiled(autoencoder, Tiles(rows=8)):
        autoencoder.encode(VIDEO)
    with tiled(autoencoder, Tiles()):
        whole = autoencoder.encode(VIDEO).mean
    assert torch.equal(whole, autoencoder.encode(VIDEO).mean)


@torch.no_grad()
def test_nothing_stays_behind() -> None:
    autoencoder = tiny.dpvae(trained=True)
    z = autoencoder.encode(VIDEO).mean
    before = autoencoder.decode(z)
    with pytest.raises(UserError, match="never end: use larger tiles"), tiled(autoencoder, Tiles(rows=4)):
        autoencoder.decode(z)
    assert torch.equal(autoencoder.decode(z), before)
    assert not any("forward" in vars(module) for module in autoencoder.modules())
