"""Two streams in every layout: words see all, a video token sees the words and its group, and one frame is an image."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

import tiny
from videodit.backbone import DualTransformer
from videodit.backbone.layouts import (
    GlobalAttention,
    JointAttention,
    Layout,
    LocalAttention,
    RowAttention,
    SparseAttention,
    SpatialAttention,
    SplitAttention,
    WindowAttention,
)
from videodit.backbone.variants import Variant
from videodit.shapes import Size

NOISY, TIMES, WORDS = tiny.grid(2, 8, 4, 4, 8), torch.tensor([0.2, 0.9]), tiny.text([5, 2])
PARTED: list[Variant] = [name for name in get_args(Variant) if name not in ("global", "spatial")]


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def network(**changes: object) -> DualTransformer:
    return tiny.transformer(**{"depth": 4, "window": 1, **changes})


# --- Who sees whom ---

GRID, SAID = Size(4, 4, 6), 3
FRAME, ROW, COLUMN = (x.flatten() for x in torch.meshgrid(*map(torch.arange, GRID), indexing="ij"))


def alike(*groups: Tensor) -> Tensor:
    """Which tokens are in the same groups: n n."""
    return torch.stack([group[:, None] == group for group in groups]).all(0)


def seen(attention: JointAttention, visible: Tensor | None) -> Tensor:
    """For each token and head, words first, the tokens whose values have a part in what it gets: k n n."""
    count = SAID + GRID.count
    query, key = (tiny.grid(1, 2, count, 4, seed=seed) for seed in (1, 2))
    value = tiny.grid(1, 2, count, 4, seed=3).requires_grad_()
    out = attention(query, key, value, Layout(visible, None, GRID))
    rows = [torch.autograd.grad(out[0, :, n].sum(), value, retain_graph=True)[0][0].abs().sum(-1) > 0 for n in range(count)]
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("known", [(True, True, True), (True, False, True)])
def test_words_see_all_and_a_token_sees_words_and_its_group(known: tuple[bool, ...]) -> None:
    visible = None if all(known) else torch.tensor(known)[None, None, None]
    shifted = alike(FRAME, (ROW + 1) // 2, (COLUMN + 1) // 2)
    nothing = torch.zeros(GRID.count, SAID, dtype=torch.bool)
    groups = {
        SpatialAttention(): alike(FRAME),
        RowAttention(): alike(FRAME, ROW),
        LocalAttention(): alike(ROW // 2, COLUMN // 3),
        SparseAttention(): alike(FRAME % 2, ROW % 2, COLUMN % 2),
        WindowAttention(2): alike(FRAME, ROW // 2, COLUMN // 2),
        WindowAttention(2, shifted=True): shifted,
    }
    words = torch.tensor(known)
    for attention, group in groups.items():
        above = torch.cat([words.expand(SAID, -1), torch.ones(SAID, GRID.count, dtype=torch.bool)], dim=1)
        below = torch.cat([words.expand(GRID.count, -1), group], dim=1)
        assert torch.equal(seen(JointAttention(attention), visible), torch.cat([above, below]).expand(2, -1, -1)), attention
    space, time = seen(JointAttention(SplitAttention()), visible)
    assert torch.equal(space[SAID:], torch.cat([words.expand(GRID.count, -1), alike(FRAME)], dim=1))
    assert torch.equal(time[SAID:], torch.cat([nothing, alike(ROW, COLUMN)], dim=1)) and time[:SAID, SAID:].all()


@torch.no_grad()
def test_words_beside_one_frame_are_the_joint_attention_of_an_image() -> None:
    query, key, value = (tiny.grid(2, 2, SAID + 24, 4, seed=seed) for seed in (1, 2, 3))
    layout = Layout(torch.tensor([[True] * 3, [True, True, False]])[:, None, None], None, Size(1, 4, 6))
    close(JointAttention(SpatialAttention())(query, key, value, layout), GlobalAttention()(query, key, value, layout))


# --- One frame is an image ---


@torch.no_grad()
@pytest.mark.parametrize("layout", ["late", "interleaved", "factorised", "divided"])
def test_one_frame_is_the_image_model_of_its_blocks_in_space(layout: Variant) -> None:
    picture, whole = NOISY[:, :, :1], network(layout=layout)
    inside = {"late": [0, 1], "interleaved": [0, 2]}.get(layout, [0, 1, 2, 3])
    image = network(layout="global", depth=len(inside))
    kept = {name: value for name, value in whole.state_dict().items() if not name.startswith("blocks.")}
    for to, at in enumerate(inside):
        block = whole.blocks[at].state_dict()
        kept |= {f"blocks.{to}.{name}": value for name, value in block.items() if not name.startswith(("before.", "after."))}
    image.load_state_dict(kept)
    close(whole(picture, TIMES, WORDS), image(picture, TIMES, WORDS))


@torch.no_grad()
@pytest.mark.parametrize("layout", PARTED)
def test_words_matter_and_padding_does_not(layout: Variant) -> None:
    model = network(layout=layout)
    out = model(NOISY, TIMES, WORDS)
    assert out.shape == NOISY.shape and WORDS.sequence is not None and WORDS.mask is not None
    rubbish = WORDS._replace(sequence=torch.where(WORDS.mask[..., None], WORDS.sequence, 7.0))
    close(model(NOISY, TIMES, rubbish), out)
    assert (model(NOISY, TIMES, WORDS._replace(sequence=WORDS.sequence.flip(-1))) - out).abs().max() > 1e-4


def test_words_pass_by_what_attends_through_time() -> None:
    blocks = network(layout="interleaved").blocks
    assert [type(block).__name__ for block in blocks] == ["DualBlock", "TimeBlock"] * 2
    assert not hasattr(blocks[2].text, "mlp") and hasattr(blocks[0].text, "mlp")  # nothing behind the third reads words
