"""What is promised of every layout, for one stream and for two: whom a token depends on, what one frame is, what one time a frame is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import tiny
from videodit import backbone
from videodit.backbone import PRESETS
from videodit.backbone.variants import Variant
from videodit.shapes import Size

LAYOUTS = [*(("dual", layout) for layout in get_args(Variant)), *(("single", layout) for layout in get_args(Variant))]
GRID, TIMES, WORDS = Size(4, 4, 6), torch.tensor([0.2, 0.9]), tiny.text([5, 2])._replace(label=torch.tensor([0, 2]))
NOISY = tiny.grid(2, 8, *GRID)
KINDS = {
    "dual": replace(PRESETS["toybox-tiny"], depth=4, text=tiny.TEXT.width, pooled=tiny.TEXT.width, video=True),
    "single": replace(PRESETS["latte-xl-v2-tiny"], channels=8, variance=False, labels=3, text=tiny.TEXT.width, video=True),
}


def network(kind: str, **changes: object) -> Any:
    torch.manual_seed(2)
    return tiny.randomised(backbone.build(replace(KINDS[kind], **{"patch": 1, "window": 2, **changes})).eval())


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


# --- Who depends on whom ---

FRAME, ROW, COLUMN = (x.flatten() for x in torch.meshgrid(*map(torch.arange, GRID), indexing="ij"))


def alike(*groups: Tensor) -> Tensor:
    """Which tokens are in the same groups: n n."""
    return torch.stack([group[:, None] == group for group in groups]).all(0)


ALL, SPACE, TIME = torch.ones(GRID.count, GRID.count, dtype=torch.bool), alike(FRAME), alike(ROW, COLUMN)
LINE, POST = alike(FRAME, ROW), alike(FRAME, COLUMN)
QUARTER, EVERY_SECOND = alike(ROW // 2, COLUMN // 3), alike(FRAME % 2, ROW % 2, COLUMN % 2)
WINDOW, SHIFTED = alike(FRAME, ROW // 2, COLUMN // 2), alike(FRAME, (ROW + 1) // 2, (COLUMN + 1) // 2)
IN_TURN = {  # so many blocks of a layout, and what they see one after the other
    ("global", 1): [ALL],
    ("spatial", 3): [SPACE],
    ("late", 1): [SPACE],
    ("late", 2): [SPACE, TIME],
    ("interleaved", 1): [SPACE],
    ("interleaved", 2): [SPACE, TIME],
    ("factorised", 1): [SPACE, TIME],
    ("split", 1): [SPACE | TIME],
    ("divided", 1): [TIME, SPACE],
    ("axial", 1): [TIME, LINE, POST],
    ("local-global", 1): [QUARTER, EVERY_SECOND],
    ("windows", 1): [WINDOW],
    ("windows", 2): [WINDOW, TIME],
    ("windows", 3): [WINDOW, TIME, SHIFTED],
    ("beside", 1): [SPACE, ALL],
}


@pytest.mark.parametrize(("kind", "layout", "depth"), [(kind, *key) for kind in KINDS for key in IN_TURN if (kind, key[0]) in LAYOUTS])
def test_a_token_depends_on_exactly_what_its_layout_promises(kind: str, layout: str, depth: int) -> None:
    """By gradients, through whole networks; and on all its clip's words but padding.

    With two streams words that passed one block tell the next what they saw, which is every token.
    """
    promised = torch.eye(GRID.count)
    for seen in IN_TURN[layout, depth]:
        promised = seen.float() @ promised
    if kind == "dual" and (layout, depth) == ("windows", 3):
        promised = ALL
    noisy, words = NOISY.clone().requires_grad_(), WORDS._replace(sequence=WORDS.sequence.clone().requires_grad_())
    out = network(kind, layout=layout, depth=depth)(noisy, TIMES, words).flatten(2)
    for token in (0, 40, GRID.count - 1):
        of_noisy, of_words = torch.autograd.grad(out[1, :, token].square().sum(), [noisy, words.sequence], retain_graph=True)
        assert torch.equal(of_noisy[1].flatten(1).abs().amax(0) > 0, promised[token] > 0) and not of_noisy[0].any()
        assert torch.equal(of_words.abs().amax(2) > 0, WORDS.mask & torch.tensor([[False], [True]]))


# --- One frame is an image ---


def weights_of(other: Any, **changes: object) -> Any:
    """A network of another layout with the weights of this one."""
    made = backbone.build(replace(other.settings, **changes)).eval()
    made.load_state_dict(other.state_dict())
    return made


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_global_is_spatial_on_one_frame_and_not_on_several(kind: str) -> None:
    whole = network(kind, layout="global")
    image = weights_of(whole, layout="spatial")
    close(whole(NOISY[:, :, :1], TIMES, WORDS), image(NOISY[:, :, :1], TIMES, WORDS))
    assert (whole(NOISY, TIMES, WORDS) - image(NOISY, TIMES, WORDS)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_spatial_is_the_image_model_frame_by_frame(kind: str) -> None:
    """Where nothing tells frames apart."""
    clip = network(kind, layout="spatial", video=False)
    frames = [clip(frame[:, :, None], TIMES, WORDS) for frame in NOISY.unbind(2)]
    close(clip(NOISY, TIMES, WORDS), torch.cat(frames, dim=2))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_split_heads_on_one_frame_are_the_spatial_model_of_half_the_heads(kind: str) -> None:
    """The others, through time, put out nothing; words, where they are a stream, attend by all heads in both."""
    whole = network(kind, layout="split")
    image = weights_of(whole, layout="spatial")
    for block in image.blocks:
        out = block.video.out if kind == "dual" else block.own[0].out
        out.weight[:, whole.settings.width // 2 :] = 0
    close(whole(NOISY[:, :, :1], TIMES, WORDS), image(NOISY[:, :, :1], TIMES, WORDS))


# --- One time a frame ---


@pytest.mark.parametrize(("kind", "layout"), LAYOUTS)
@torch.no_grad()
def test_one_time_a_frame_is_one_time_where_all_are_equal(kind: str, layout: str) -> None:
    model = network(kind, layout=layout)
    one = model(NOISY, TIMES, WORDS)
    close(model(NOISY, TIMES[:, None].expand(2, 4), WORDS), one)
    given = torch.stack([torch.zeros(2), TIMES, TIMES, TIMES], dim=1)
    assert (model(NOISY, given, WORDS) - one)[:, :, 0].abs().amax((1, 2, 3)).min() > 1e-4
