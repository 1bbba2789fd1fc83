"""Clips of many extents in few sequences, and ranks that wait little for each other."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from videodit.backbone import PRESETS
from videodit.backbone.flops import cost
from videodit.data.buckets import Buckets
from videodit.data.packing import dealt, imbalance, pack, useful
from videodit.shapes import Size, UserError, latent_size

BUCKETS = Buckets()
SHAPES = ((256, 144), (144, 256), (426, 240), (640, 360), (480, 640), (854, 480), (720, 720), (1280, 720), (720, 1280))  # columns, rows


def mix(count: int, seed: int) -> list[Size]:
    """Files of 144p to 720p and 1 to 129 frames, as they come, at the extent that each is trained at."""
    rng = np.random.default_rng(seed)
    files = [(SHAPES[rng.integers(len(SHAPES))], int(rng.choice([1, rng.integers(16, 130)], p=[0.3, 0.7]))) for _ in range(count)]
    found = [BUCKETS.of(Size(frames, rows, columns)) for (columns, rows), frames in files]
    assert all(found)
    return [size for size in found if size]


@pytest.mark.parametrize("seed", range(2))
def test_sequences_are_full_and_ranks_even(seed: int) -> None:
    sizes = mix(4000, seed)
    tokens = [BUCKETS.count(size) for size in sizes]
    assert min(tokens) < 200 and max(tokens) > 100_000
    packs = pack(tokens, BUCKETS.tokens)
    assert sorted(clip for one in packs for clip in one) == list(range(len(sizes)))
    assert all(sum(tokens[clip] for clip in one) <= BUCKETS.tokens for one in packs)
    assert useful(tokens, packs, BUCKETS.tokens) >= 0.97
    work = {size: cost(PRESETS["sd3-medium"], latent_size(size, space=8, time=4), words=154).total for size in set(sizes)}
    costs = [sum(work[sizes[clip]] for clip in one) for one in packs]
    assert max(costs) > 2 * min(costs)  # as many tokens are not as much work
    for ranks in (2, 8):  # some 50 sequences a rank; docs/log.md has what fewer do
        steps, left = dealt(costs, ranks, seed)
        assert len(left) < ranks and sorted([i for step in steps for i in step] + left) == list(range(len(packs)))
        assert imbalance(costs, steps) <= 0.05
        drawn = np.random.default_rng(seed).permutation(len(packs))[: len(steps) * ranks].reshape(-1, ranks).tolist()
        assert imbalance(costs, drawn) > 0.1  # what dealing is for
    assert dealt(costs, 8, seed) == dealt(costs, 8, seed) != dealt(costs, 8, seed + 1)


def test_a_clip_above_the_budget_is_said() -> None:
    assert pack([], 10) == [] and pack([4, 5, 5, 6], 10) == [[3, 0], [1, 2]]
    with pytest.raises(UserError, match=r"A clip of 11 tokens does not fit a sequence of 10: raise the budget"):
        pack([3, 11], 10)


def test_a_file_goes_to_what_it_fills() -> None:
    assert BUCKETS.of(Size(129, 720, 1280)) == Size(128, 720, 1280)
    assert BUCKETS.of(Size(1, 480, 854)) == Size(1, 480, 848)
    assert BUCKETS.of(Size(15, 480, 854)) == Size(1, 480, 848)  # too short for a clip: a picture
    assert BUCKETS.of(Size(40, 1280, 720)) == Size(32, 1280, 720)
    assert BUCKETS.of(Size(40, 100, 100)) is None
    square = BUCKETS.of(Size(16, 900, 1000))
    assert square and square.rows == square.columns and square.rows % 16 == 0
    assert abs(square.count / Size(16, 720, 1280).count - 1) < 0.25 or square.rows <= 900


def test_batches_hold_one_extent_each_clip_once_and_no_more_tokens() -> None:
    sizes = mix(300, 7)
    made = BUCKETS.batches(sizes, 1)
    assert sorted(clip for batch in made for clip in batch) == list(range(300))
    assert all(len({sizes[clip] for clip in batch}) == 1 for batch in made)
    assert all(sum(BUCKETS.count(sizes[clip]) for clip in batch) <= BUCKETS.tokens for batch in made)
    short = Counter(sizes[batch[0]] for batch in made if len(batch) < BUCKETS.batch(sizes[batch[0]]))
    assert max(short.values()) == 1
    assert BUCKETS.batch(Size(1, 144, 256)) == 131072 // 144 and made != BUCKETS.batches(sizes, 2)
    with pytest.raises(UserError, match=r"above tokens=1000: raise it"):
        replace(BUCKETS, tokens=1000).batch(Size(16, 720, 1280))
    with pytest.raises(UserError, match="129 frames do not fit"):
        Buckets(lengths=(129,))
    for aspect in (math.inf, math.nan):
        with pytest.raises(UserError, match="all above 0 and none infinite"):
            Buckets(aspects=(aspect,))
