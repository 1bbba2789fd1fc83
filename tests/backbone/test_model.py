"""The transformer: what it must not depend on, and what it must."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from torch import Tensor

import tiny
from videodit import backbone
from videodit.backbone.patches import unpatch
from videodit.backbone.positions import grid_positions, rotary_angles, turned
from videodit.shapes import Size, Text, UserError

NOISY = tiny.grid(3, 8, 4, 4, 6)
TIMES = torch.tensor([0.2, 0.5, 1.0])
WORDS = tiny.text([5, 2, 4])


@pytest.fixture(scope="module")
def network() -> backbone.DualTransformer:
    return tiny.transformer()


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("patch", [(1, 2, 2), (2, 1, 3), (1, 4, 1)])
def test_unpatch_puts_back_what_was_cut(patch: tuple[int, int, int]) -> None:
    p, q, r = patch
    latents = tiny.grid(2, 3, 4, 8, 6)
    tokens = rearrange(latents, "b c (f p) (h q) (w r) -> b (f h w) (p q r c)", p=p, q=q, r=r)
    assert torch.equal(unpatch(tokens, Size(4, 8, 6), patch), latents)


def test_latents_that_do_not_fit_the_patches_are_said(network: backbone.DualTransformer) -> None:
    with pytest.raises(UserError, match=r"5 latent rows do not fit patches of 2: use 4 or 6"):
        network(tiny.grid(3, 8, 1, 5, 4), TIMES, WORDS)


@pytest.mark.parametrize("video", [False, True])
@torch.no_grad()
def test_an_untrained_transformer_predicts_nothing(video: bool) -> None:
    settings = tiny.transformer(video=video).settings
    assert not backbone.build(settings)(NOISY, TIMES, WORDS).any()


@torch.no_grad()
def test_what_comes_out_has_the_extent_of_what_went_in(network: backbone.DualTransformer) -> None:
    out = network(NOISY, TIMES, WORDS)
    assert out.shape == NOISY.shape and out.std() > 0.01


@torch.no_grad()
def test_padding_changes_nothing(network: backbone.DualTransformer) -> None:
    assert WORDS.sequence is not None and WORDS.mask is not None
    rubbish = torch.cat([WORDS.sequence, 10 * tiny.grid(3, 7, tiny.TEXT.width)], dim=1)
    rubbish = torch.where(torch.nn.functional.pad(WORDS.mask, (0, 7))[..., None], rubbish, 10.0)
    padded = WORDS._replace(sequence=rubbish, mask=torch.nn.functional.pad(WORDS.mask, (0, 7)))
    close(network(NOISY, TIMES, padded), network(NOISY, TIMES, WORDS))


@torch.no_grad()
def test_no_mask_shows_all_words(network: backbone.DualTransformer) -> None:
    full = tiny.text([5, 5, 5])
    close(network(NOISY, TIMES, full._replace(mask=None)), network(NOISY, TIMES, full))


@torch.no_grad()
def test_a_clip_does_not_see_its_batch(network: backbone.DualTransformer) -> None:
    whole = network(NOISY, TIMES, WORDS)
    for i in range(3):
        close(network(NOISY[i : i + 1], TIMES[i : i + 1], WORDS.map(lambda x, i=i: x[i : i + 1])), whole[i : i + 1])


@torch.no_grad()
def test_all_that_is_given_matters(network: backbone.DualTransformer) -> None:
    assert WORDS.sequence is not None and WORDS.pooled is not None
    before = network(NOISY, TIMES, WORDS)
    others = {
        "time": (TIMES + 0.1, WORDS),
        "words": (TIMES, WORDS._replace(sequence=WORDS.sequence.flip(-1))),
        "pooled": (TIMES, WORDS._replace(pooled=WORDS.pooled.flip(-1))),
    }
    for name, (t, words) in others.items():
        assert (network(NOISY, t, words) - before).abs().amax((1, 2, 3, 4)).min() > 1e-4, name


def test_attention_is_global(network: backbone.DualTransformer) -> None:
    """Every place of every frame has a gradient from every other frame."""
    noisy = NOISY[:1].clone().requires_grad_()
    out = network(noisy, TIMES[:1], WORDS.map(lambda x: x[:1]))
    for frame in range(4):
        (gradient,) = torch.autograd.grad(out[:, :, frame].square().sum(), noisy, retain_graph=True)
        assert (gradient.abs().amax((0, 1)) > 0).all()


@pytest.mark.parametrize(
    ("video", "rotary", "ordered"), [(False, "none", False), (True, "none", True), (False, "time", True), (False, "space-time", True)]
)
@torch.no_grad()
def test_frames_have_an_order_only_through_the_3d_branch_or_turns(video: bool, rotary, ordered: bool) -> None:
    network = tiny.transformer(video=video, rotary=rotary)
    text, t = WORDS.map(lambda x: x[:1]), TIMES[:1]
    away = (network(NOISY[:1].flip(2), t, text).flip(2) - network(NOISY[:1], t, text)).abs().max()
    assert away > 1e-3 if ordered else away < 1e-5


@torch.no_grad()
def test_turns_by_the_frame_leave_an_image_as_it_is() -> None:
    still, turning = (tiny.transformer(video=False, rotary=rotary) for rotary in ("none", "time"))
    picture = NOISY[:, :, :1]
    assert torch.equal(turning(picture, TIMES, WORDS), still(picture, TIMES, WORDS))


@pytest.mark.parametrize("rotary", ["time", "space-time"])
@pytest.mark.parametrize("width", [8, 24, 32, 64])
def test_what_turned_tokens_see_of_each_other_depends_on_how_far_they_are_apart(rotary, width: int) -> None:
    grid, like = Size(4, 3, 3), torch.zeros(())
    query, key = (tiny.grid(1, 1, 1, width, seed=seed).expand(-1, -1, grid.count, -1) for seed in (1, 2))
    angles = rotary_angles(grid, width, rotary, like=like)
    logits = (turned(query, angles) @ turned(key, angles).mT)[0, 0].reshape(*grid, *grid)
    close(logits[:-1, :-1, :-1, :-1, :-1, :-1], logits[1:, 1:, 1:, 1:, 1:, 1:])
    close(turned(query, angles).norm(dim=-1), query.norm(dim=-1))
    seen = logits[0, 0, 0].flatten(1)  # by the first token: frame by place
    assert ((seen - seen[:, :1]).abs().max() < 1e-4) == (rotary == "time")
    assert (seen - seen[:1]).abs().max() > 1e-2


def test_the_middle_keeps_its_place_when_the_frame_grows() -> None:
    like = torch.zeros(())
    for axes in (2, 3):
        small, large = (grid_positions(Size(1, n, n), 48, axes=axes, like=like).unflatten(0, (n, n)) for n in (4, 8))
        torch.testing.assert_close(large[2:6, 2:6], small)


def test_time_starts_where_an_image_stands() -> None:
    like = torch.zeros(())
    clip, image = (grid_positions(Size(frames, 3, 5), 48, axes=3, like=like) for frames in (4, 1))
    assert torch.equal(clip[:15], image)
    assert len(clip.unique(dim=0)) == 60  # no two places alike


def test_text_is_a_record_whose_fields_map_together() -> None:
    halved = Text(pooled=torch.ones(2, 3)).map(lambda x: x / 2)
    assert halved.sequence is None and halved.pooled is not None and (halved.pooled == 0.5).all()
