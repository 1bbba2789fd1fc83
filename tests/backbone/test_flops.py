"""Multiply-adds: as PyTorch counts them where attention is written out, and as LAVITA's table has them."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tiny
from videodit import backbone
from videodit.backbone import PRESETS, DiT
from videodit.backbone.flops import cost
from videodit.backbone.variants import Variant
from videodit.shapes import Size

LATTE, SD3 = PRESETS["latte-xl-v2-tiny"], PRESETS["sd3-medium-tiny"]
SHAPES = {
    **{layout: replace(LATTE, layout=layout) for layout in get_args(Variant)},
    "small windows": replace(LATTE, layout="windows", window=1),
    "all tokens": replace(LATTE, told="token"),
    "words": replace(LATTE, text=12, pooled=20),
    "tubes": replace(LATTE, tube=3, video=True, layout="global"),
    **{f"sd3 {layout}": replace(SD3, layout=layout, window=2) for layout in get_args(Variant)},
    "sd3 beside": replace(SD3, layout="beside", video=True),
    "sd3.5": replace(SD3, normed=True, twice=2, video=True),
}


@pytest.mark.parametrize("frames", [1, 6])
@pytest.mark.parametrize("name", SHAPES)
def test_the_count_is_that_of_pytorch(name: str, frames: int) -> None:
    settings, latents, words = SHAPES[name], Size(frames, 4, 8), 5
    if frames == 1 and isinstance(settings, DiT) and settings.tube > 1:
        return
    text = tiny.text([words], settings.text or 4)._replace(pooled=torch.ones(1, settings.pooled), mask=None)
    network, noisy = backbone.build(settings), torch.zeros(1, settings.channels, *latents)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted, torch.no_grad():
        network(noisy, torch.ones(1), text)
    found = cost(settings, latents, words if settings.text else 0)
    assert 2 * found.total == counted.get_total_flops()


TOLD = {
    **{f"{layout} by time": replace(SD3, layout=layout, window=2, given="time") for layout in ("global", "spatial", "beside", "late")},
    "sd3.5 by time": replace(SD3, normed=True, twice=2, given="time"),
    "channels, hints and a picture": replace(SD3, given="channels", hints=True, picture=12),
    "latte by time": replace(LATTE, given="time"),
    "latte, hints and a picture": replace(LATTE, given="channels", hints=True, text=12, picture=12),
    "tubes": replace(LATTE, tube=3, layout="global", given="time", hints=True),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_it_is_told_is_counted(name: str) -> None:
    settings, latents, words = TOLD[name], Size(6, 4, 8), 5
    text = tiny.text([words], settings.text or 4)._replace(pooled=torch.ones(1, settings.pooled), mask=None)
    text = text._replace(picture=torch.ones(1, settings.picture) if settings.picture else None)
    hint = torch.zeros(1, 1 + settings.channels, *latents) if settings.hints else None
    given = torch.zeros(1, 1, *latents)
    network, noisy = backbone.build(settings), torch.zeros(1, settings.channels, *latents)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted, torch.no_grad():
        network(noisy, torch.ones(1), text, given, hint=hint)
    assert 2 * cost(settings, latents, words if settings.text else 0, told=True).total == counted.get_total_flops()


@pytest.mark.parametrize(("variant", "paper"), [("v1", 5572.69), ("v2", 5572.69), ("v3", 6153.15)])
def test_lavitas_table(variant: str, paper: float) -> None:
    """For a batch of three clips of 16 frames at 256x256, counted the paper's way."""
    found = cost(PRESETS[f"latte-xl-{variant}"], Size(16, 32, 32), counting="latte")
    assert abs(3 * found.total / 1e9 / paper - 1) < 1e-4


def test_with_attention_counted_and_modulations_once() -> None:
    assert abs(3 * cost(PRESETS["latte-xl-v2"], Size(16, 32, 32)).total / 1e9 / 5588.5 - 1) < 1e-3
