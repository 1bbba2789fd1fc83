"""DiT and LAVITA: who sees whom, and that one frame is an image whatever the layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import tiny
from videodit import backbone
from videodit.backbone import PRESETS, DiT, SingleTransformer
from videodit.backbone.layouts import (
    ColumnAttention,
    GlobalAttention,
    Layout,
    LocalAttention,
    RowAttention,
    SparseAttention,
    SpatialAttention,
    SplitAttention,
    TemporalAttention,
    WindowAttention,
)
from videodit.backbone.variants import Variant
from videodit.shapes import Size, Text, UserError

TINY = PRESETS["latte-xl-v2-tiny"]
assert isinstance(TINY, DiT)
NOISY, TIMES = tiny.grid(2, 4, 4, 4, 8), torch.tensor([0.2, 0.9])


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def network(**changes: object) -> SingleTransformer:
    torch.manual_seed(2)
    made = backbone.build(replace(TINY, **changes)).eval()
    tiny.randomised(made)
    return made


def spatial(other: SingleTransformer, blocks: list[int]) -> SingleTransformer:
    """An image model with some of another's blocks."""
    image = network(layout="spatial", depth=len(blocks), **{name: getattr(other.settings, name) for name in ("video", "time")})
    weights = {name: value for name, value in other.state_dict().items() if not name.startswith("blocks.")}
    for to, at in enumerate(blocks):
        for name, value in other.blocks[at].state_dict().items():
            if name.startswith("own."):  # of several attentions, the one in space
                at_space = [type(own.attention) for own in other.blocks[at].own].index(SpatialAttention)
                if name.split(".")[1] != str(at_space):
                    continue
                name = ".".join(["own.0", *name.split(".")[2:]])
            weights[f"blocks.{to}.{name}"] = value
    image.load_state_dict(weights)
    return image


# --- Who sees whom ---

GRID = Size(4, 4, 6)
FRAME, ROW, COLUMN = (x.flatten() for x in torch.meshgrid(*map(torch.arange, GRID), indexing="ij"))


def alike(*groups: Tensor) -> Tensor:
    """Which tokens are in the same groups: n n."""
    return torch.stack([group[:, None] == group for group in groups]).all(0)


def seen(attention: torch.nn.Module, still: bool) -> Tensor:
    """For each token and head, the tokens whose values have a part in what it gets: k n n."""
    query, key = (tiny.grid(1, 2, GRID.count, 4, seed=seed) for seed in (1, 2))
    value = tiny.grid(1, 2, GRID.count, 4, seed=3).requires_grad_()
    out = attention(query, key, value, Layout(None, None, GRID, still)) + 0 * value  # pictures see nothing through time
    rows = [torch.autograd.grad(out[0, :, n].sum(), value, retain_graph=True)[0][0].abs().sum(-1) > 0 for n in range(GRID.count)]
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("still", [False, True])
def test_a_token_sees_exactly_what_its_layout_says(still: bool) -> None:
    in_time = alike(ROW, COLUMN) if not still else torch.zeros(GRID.count, GRID.count, dtype=torch.bool)
    shifted = alike(FRAME, (ROW + 1) // 2, (COLUMN + 1) // 2)  # of windows of 2: at an edge, what is left of one
    expected = {
        GlobalAttention(): (torch.ones_like(in_time),) * 2,
        SpatialAttention(): (alike(FRAME),) * 2,
        TemporalAttention(): (in_time,) * 2,
        SplitAttention(): (alike(FRAME), in_time),
        RowAttention(): (alike(FRAME, ROW),) * 2,
        ColumnAttention(): (alike(FRAME, COLUMN),) * 2,
        LocalAttention(): (alike(ROW // 2, COLUMN // 3),) * 2,
        SparseAttention(): (alike(FRAME % 2, ROW % 2, COLUMN % 2),) * 2,
        WindowAttention(2): (alike(FRAME, ROW // 2, COLUMN // 2),) * 2,
        WindowAttention(2, shifted=True): (shifted,) * 2,
        WindowAttention(8, shifted=True): (alike(FRAME),) * 2,
    }
    for attention, heads in expected.items():
        assert torch.equal(seen(attention, still), torch.stack(heads)), attention


def test_grids_that_cannot_be_parted_are_said() -> None:
    query = tiny.grid(1, 2, 15, 4)
    for attention, said in (
        (LocalAttention(), "3 rows of tokens cannot be halved"),
        (WindowAttention(2), "3 x 5 tokens do not fit windows of 2"),
    ):
        with pytest.raises(UserError, match=said):
            attention(query, query, query, Layout(None, None, Size(1, 3, 5)))


def test_blocks_stand_where_the_paper_puts_them() -> None:
    arranged = {name: "".join(kind[0] for kind in replace(TINY, layout=name, depth=5).arrangement) for name in ("late", "interleaved")}
    assert arranged == {"late": "ssstt", "interleaved": "ststs"}
    assert replace(TINY, layout="factorised", depth=2).arrangement == ("factorised", "factorised")
    assert replace(TINY, layout="windows", depth=5).arrangement == ("window", "temporal", "shifted", "temporal", "window")


# --- One frame is an image ---


@torch.no_grad()
def test_one_frame_of_each_variant_is_a_spatial_model() -> None:
    picture = NOISY[:, :, :1]
    layouts: list[tuple[Variant, list[int]]] = [
        ("late", [0, 1]),
        ("interleaved", [0, 2]),
        ("factorised", [0, 1, 2, 3]),
        ("divided", [0, 1, 2, 3]),
    ]
    for layout, blocks in layouts:
        whole = network(layout=layout)
        assert torch.equal(whole(picture, TIMES), spatial(whole, blocks)(picture, TIMES)), layout


# --- What it is told ---


@torch.no_grad()
def test_the_last_label_is_the_blank() -> None:
    model = network(labels=5)
    blank = model(NOISY, TIMES)
    assert torch.equal(blank, model(NOISY, TIMES, Text(label=torch.tensor([5, 5]))))
    assert (blank - model(NOISY, TIMES, Text(label=torch.tensor([0, 4])))).abs().amax((1, 2, 3, 4)).min() > 1e-3


@torch.no_grad()
def test_words_are_seen_in_space_and_padding_is_not() -> None:
    model = network(text=12)
    words = tiny.text([5, 2], 12)
    out = model(NOISY, TIMES, words)
    assert words.sequence is not None and words.mask is not None
    rubbish = torch.where(words.mask[..., None], words.sequence, 7.0)
    close(model(NOISY, TIMES, words._replace(sequence=rubbish)), out)
    assert (model(NOISY, TIMES, words._replace(sequence=words.sequence.flip(-1))) - out).abs().max() > 1e-3


@pytest.mark.parametrize("time", ["table", "rotary", "space-time", "none"])
@torch.no_grad()
def test_frames_have_an_order_through_tables_or_turns(time: str) -> None:
    model = network(time=time)
    away = (model(NOISY.flip(2), TIMES).flip(2) - model(NOISY, TIMES)).abs().max()
    assert away < 1e-5 if time == "none" else away > 1e-3


@torch.no_grad()
def test_turns_by_row_and_column_are_seen_in_a_picture_and_by_the_frame_are_not() -> None:
    """And where all are at one place, they are turns by the frame."""
    still, framed, placed = (network(time=time, layout="global") for time in ("none", "rotary", "space-time"))
    picture = NOISY[:, :, :1]
    assert torch.equal(framed(picture, TIMES), still(picture, TIMES))
    assert (placed(picture, TIMES) - still(picture, TIMES)).abs().max() > 1e-3
    close(placed(picture[..., :2, :2], TIMES), still(picture[..., :2, :2], TIMES))


def test_a_token_beside_the_grid_has_no_place_to_turn_by() -> None:
    with pytest.raises(UserError, match=r"has no row or column: set time=rotary"):
        replace(TINY, layout="late", told="token", time="space-time")


# --- Tubes, and the start ---


@pytest.mark.parametrize("changes", [{}, {"tube": 2}, {"variance": False}, {"video": True, "tube": 2, "layout": "global"}])
@torch.no_grad()
def test_an_untrained_transformer_predicts_nothing_of_the_right_extent(changes: dict[str, object]) -> None:
    settings = replace(TINY, **changes)
    out = backbone.build(settings)(NOISY, TIMES)
    assert out.shape == (2, 8 if settings.variance else 4, 4, 4, 8) and not out.any()
    assert network(**changes)(NOISY, TIMES).std() > 0.01


def test_the_frames_of_a_tube_have_one_time() -> None:
    model, clip = network(tube=2), torch.zeros(1, 4, 4, 8, 8)
    with pytest.raises(UserError, match=r"holds 2 latent frames, which have one time: set times\.each=clip"):
        model(clip, torch.rand(1, 4))
    assert torch.allclose(model(clip, torch.full((1, 2), 0.5)), model(clip, torch.full((1,), 0.5)), atol=1e-5)


def test_a_tube_is_one_token() -> None:
    model = network(tube=2)
    assert model.patches(NOISY).shape == (2, 16, TINY.width)
    with pytest.raises(UserError, match="5 latent frames do not fit patches of 2"):
        model(tiny.grid(2, 4, 5, 4, 8), TIMES)


# --- All tokens ---


@pytest.mark.parametrize("layout", ["global", "spatial", "late", "interleaved", "factorised", "split"])
@torch.no_grad()
def test_a_token_tells_what_modulations_would(layout: Variant) -> None:
    model = network(layout=layout, labels=5, told="token")
    text = Text(label=torch.tensor([1, 2]))
    out = model(NOISY, TIMES, text)
    assert out.shape == (2, 8, 4, 4, 8)
    assert (model(NOISY, TIMES + 0.1, text) - out).abs().amax((1, 2, 3, 4)).min() > 1e-4
    assert (model(NOISY, TIMES, Text(label=torch.tensor([3, 4]))) - out).abs().amax((1, 2, 3, 4)).min() > 1e-4
    close(model(NOISY, TIMES[:, None].expand(2, 4), text), out)
    assert not any("modulation" in name for name in model.state_dict())


def test_a_token_has_no_place_in_a_shaped_grid() -> None:
    with pytest.raises(UserError, match="axial has no place for a token"):
        replace(TINY, layout="axial", told="token")
