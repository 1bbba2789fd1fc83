"""docs/scale.md says what the counts say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from videodit.backbone import PRESETS, Transformer
from videodit.backbone.blocks import DualBlock
from videodit.backbone.layouts import Layout
from videodit.parallel import Parallel
from videodit.parallel.scale import INNER, estimate
from videodit.shapes import Size, UserError, latent_size

CLIPS, WORDS = 1_300_000, 333
LATENTS = latent_size(Size(96, 512, 512), space=8, time=4)
ROWS = {
    8: (Parallel(shard=8), Parallel(shard=2, sequence=4), Parallel(shard=2, sequence=4, ring=True)),
    64: (Parallel(shard=8), Parallel(shard=2, sequence=4)),
    512: (Parallel(shard=8), Parallel(shard=2, sequence=4)),
}


def model() -> Transformer:
    preset = PRESETS["sd3-medium"]
    assert isinstance(preset, Transformer)
    return replace(preset, video=True)


def rows() -> list[str]:
    found = []
    for gpus, splits in ROWS.items():
        for split in splits:
            e = estimate(model(), LATENTS, WORDS, split, gpus)
            best, worst = e.hours(CLIPS, gpus, split.sequence)
            shape = f"{split.copies(gpus)} x {split.shard} x {split.sequence}{' in a ring' * split.ring}"
            held = " | ".join(f"{x / 1e9:.2f}" for x in (e.state, e.kept, e.block, e.near, e.far))
            found.append(f"| {gpus} | {shape} | {held} | {e.compute:.2f} | {e.sending:.2f} | {best:.1f} to {worst:.1f} |")
    return found


def test_one_process_sends_nothing_in_any_layout() -> None:
    beside = PRESETS["sd3-medium-2d3d-tiny"]
    assert isinstance(beside, Transformer) and estimate(beside, Size(4, 8, 8), 5, Parallel(), 1).sending == 0
    with pytest.raises(UserError, match="The layout beside cannot be split"):
        estimate(beside, Size(4, 8, 8), 5, Parallel(sequence=2), 2)


def test_the_page_says_what_is_counted() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    for row in rows():
        assert row in page, row


def test_a_block_leaves_what_is_counted() -> None:
    """Everything that PyTorch saves for the backward pass but the weights, each once."""
    tokens, words, width = 128, 8, 64
    block = DualBlock(width, 4, normed=False)
    weights = {p.untyped_storage().data_ptr() for p in block.parameters()}
    saved: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor:
        saved[x.untyped_storage().data_ptr()] = x
        return x

    said, video, signal = (torch.randn(1, n, width, requires_grad=True) for n in (words, tokens, 1))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        block(said, video, signal, Layout(None, None, Size(1, 1, tokens)))
    numbers = sum(x.untyped_storage().nbytes() // 4 for at, x in saved.items() if at not in weights)
    assert INNER - 1 < numbers / ((tokens + words) * width) <= INNER


def test_counts_follow_the_split() -> None:
    one, eight, parts = (estimate(model(), LATENTS, WORDS, split, 64) for split in (Parallel(), *ROWS[64]))
    assert one.state == 8 * eight.state == 8 * parts.state and one.near == 0
    assert eight.far < one.far / 7  # gradients travel between nodes in shards
    assert parts.compute == pytest.approx(eight.compute / 4) and parts.kept < eight.kept / 3.8
    assert estimate(model(), LATENTS, WORDS, Parallel(shard=8), 8).far == 0
    with pytest.raises(UserError, match="start 8"):
        estimate(model(), LATENTS, WORDS, Parallel(shard=8), 12)
