"""A deeper transformer is the same function until it learns, and its new blocks learn at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny
from videodit import backbone, convert
from videodit.backbone import PRESETS, DualTransformer, SingleTransformer
from videodit.convert.deeper import deepened, places
from videodit.shapes import UserError

TIMES, WORDS = torch.tensor([0.3, 0.8]), tiny.text([4, 2])
WORDED = replace(PRESETS["latte-xl-v2-tiny"], layout="spatial", depth=3, text=tiny.TEXT.width, video=False)
NETWORKS = {"dual": lambda: tiny.transformer(depth=3), "single": lambda: backbone.build(WORDED)}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("depth", [3, 4, 8])
def test_it_is_the_same_function_and_learns_at_once(kind: str, depth: int) -> None:
    network: DualTransformer | SingleTransformer = NETWORKS[kind]()
    tiny.randomised(network)
    deeper = convert.deepen(network, depth)
    noisy = tiny.grid(2, network.settings.channels, 2, 4, 4)
    output = deeper(noisy, TIMES, WORDS)
    assert len(deeper.blocks) == depth == deeper.settings.depth and torch.equal(output, network(noisy, TIMES, WORDS))
    output.square().sum().backward()
    silent = [p for name, p in deeper.named_parameters() if name.startswith("blocks.") and name.endswith("weight") and not p.any()]
    assert len(silent) == {"dual": 4, "single": 3}[kind] * (depth - 3)
    assert all(p.grad is not None and p.grad.any() for p in silent)


def test_new_blocks_are_spread_and_the_last_one_stays_the_last() -> None:
    assert places(3, 3) == [(0, False), (1, False), (2, False)]
    assert places(3, 5) == [(0, False), (0, True), (1, False), (1, True), (2, False)]
    for before, depth in ((2, 9), (6, 11), (6, 12), (5, 6)):
        made = places(before, depth)
        assert len(made) == depth and made[-1] == (before - 1, False)
        assert [source for source, new in made if not new] == list(range(before))


def test_what_cannot_be_deepened_is_refused() -> None:
    shape = tiny.transformer(depth=3).settings
    with pytest.raises(UserError, match="a depth of 3 or more"):
        deepened(shape, 2)
    with pytest.raises(UserError, match="leave the depth out"):
        deepened(tiny.transformer(depth=3, layout="factorised").settings, 4)
    with pytest.raises(UserError, match="one block"):
        deepened(tiny.transformer(depth=1).settings, 2)
