"""What is given: which masks there are, and that given latents come out as they went in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from videodit.diffusion.guidance import Guidance, guided
from videodit.diffusion.samplers import SAMPLERS
from videodit.diffusion.tasks import MASKS, Given, Mask, Tasks, around, without
from videodit.shapes import Text, UserError

NOISE, CLEAN, IMAGE = tiny.grid(2, 8, 4, 4, 6), tiny.grid(2, 8, 4, 4, 6, seed=6), tiny.grid(2, 8, 1, 4, 6, seed=7)
WORDS, BLANK = tiny.text([3, 2]), tiny.text([3, 2], seed=9)
NOTHING = torch.zeros(2, 1, 4, 4, 6)
FIRST_TWO = NOTHING.index_fill(2, torch.tensor([0, 1]), 1.0)
SCHEDULE = torch.linspace(1, 0, 4)


def given(mask: Tensor, images: Tensor = IMAGE[:, :, :0], places: tuple[float, ...] = ()) -> Given:
    return Given(mask, CLEAN, images, places)


@pytest.mark.parametrize("told", ["noise", "channels", "time"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@torch.no_grad()
def test_given_latents_come_out_as_they_went_in(told: str, sampler: str) -> None:
    task, network = given(FIRST_TWO), tiny.transformer(given=told)
    field = guided(around(network, task), WORDS, BLANK, Guidance(scale=2.0))
    latents = task.hold(SAMPLERS[sampler](field, task.hold(NOISE), SCHEDULE, lambda step: NOISE))
    assert torch.equal(latents[:, :, :2], CLEAN[:, :, :2])
    assert (latents[:, :, 2:] != CLEAN[:, :, 2:]).all()


@pytest.mark.parametrize("how", [Guidance(scale=3.0, joint=True), Guidance(scale=3.0, images=2.0), Guidance(images=2.0, batched=False)])
@torch.no_grad()
def test_who_is_told_nothing_sees_what_is_given_as_noise_and_held_places_never_move(how: Guidance) -> None:
    task, network = given(FIRST_TWO), tiny.transformer(given="time")
    seen: list[Tensor] = []

    def untold(noisy: Tensor, t: Tensor, text: Text) -> Tensor:
        seen.append(noisy - (1 - t.view(-1, 1, 1, 1, 1)) * CLEAN - t.view(-1, 1, 1, 1, 1) * NOISE)
        return network(noisy, t, text)

    field = guided(around(network, task), WORDS, BLANK, how, untold=without(untold, task, NOISE))
    moved = SAMPLERS["euler"](field, task.hold(NOISE), SCHEDULE, lambda step: NOISE)
    assert torch.equal(moved[:, :, :2], CLEAN[:, :, :2]) and (moved[:, :, 2:] != NOISE[:, :, 2:]).any()
    assert len(seen) == 3 and all(away[:, :, :2].abs().max() < 1e-6 for away in seen) and seen[-1][:, :, 2:].abs().max() > 1e-3


@pytest.mark.parametrize("told", ["channels", "time"])
@torch.no_grad()
def test_nothing_given_is_text_to_video_bit_for_bit(told: str) -> None:
    network, t = tiny.transformer(given=told), torch.tensor([0.3, 0.8])
    assert torch.equal(around(network, given(NOTHING))(NOISE, t, WORDS), network(NOISE, t, WORDS))


@torch.no_grad()
def test_a_lone_picture_stands_at_its_place_clean_and_is_left_out_of_what_comes_back() -> None:
    network, t = tiny.transformer(given="time", rotary="time"), torch.tensor([0.3, 0.8])
    first, last = (around(network, given(NOTHING, IMAGE, (place,)))(NOISE, t, WORDS) for place in (0.0, 3.75))
    assert first.shape == NOISE.shape and (first - last).abs().max() > 1e-3
    other = around(network, given(NOTHING, IMAGE * 2, (0.0,)))(NOISE, t, WORDS)
    assert (first - other).abs().max() > 1e-3  # it is seen
    whole = torch.cat([NOISE, IMAGE], dim=2)
    times = torch.tensor([[0.3, 0.3, 0.3, 0.3, 0.0], [0.8, 0.8, 0.8, 0.8, 0.0]])
    by_hand = network(whole, times, WORDS, when=[0, 1, 2, 3, 3.75])[:, :, :4]
    torch.testing.assert_close(last, by_hand, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_picture_where_a_group_would_follow_is_that_group() -> None:
    """A place is all that tells a frame behind the clip from one in it."""
    network, t = tiny.transformer(given="time", rotary="space-time"), torch.tensor([0.3, 0.8])
    behind = around(network, given(NOTHING, IMAGE, (4.0,)))(NOISE, t, WORDS)
    longer, mask = torch.cat([NOISE, IMAGE], dim=2), torch.cat([NOTHING, torch.ones_like(NOTHING[:, :, :1])], dim=2)
    torch.testing.assert_close(behind, network(longer, t, WORDS, mask)[:, :, :4], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_frames_that_follow_each_other_need_no_places() -> None:
    network, t = tiny.transformer(rotary="space-time"), torch.tensor([0.3, 0.8])
    assert torch.equal(network(NOISE, t, WORDS, when=[0, 1, 2, 3]), network(NOISE, t, WORDS))


@torch.no_grad()
def test_a_hint_is_told_and_not_held() -> None:
    """Beside what is held and what stands behind, which have none of it."""
    network, t = tiny.transformer(given="time", hints=True), torch.tensor([0.3, 0.8])
    hint = torch.cat([FIRST_TWO.roll(2, dims=2), tiny.grid(2, 8, 4, 4, 6, seed=8)], dim=1)
    alone = around(network, Given(NOTHING, CLEAN, IMAGE[:, :, :0], hint=hint))(NOISE, t, WORDS)
    assert torch.equal(alone, network(NOISE, t, WORDS, hint=hint)) and (alone != 0).all()
    beside = around(network, Given(FIRST_TWO, CLEAN, IMAGE, (3.75,), hint))(NOISE, t, WORDS)
    whole, mask = torch.cat([torch.where(FIRST_TWO > 0, CLEAN, NOISE), IMAGE], dim=2), torch.ones(2, 1, 5, 4, 6)
    mask[:, :, 2:4] = 0
    longer = torch.cat([hint, torch.zeros(2, 9, 1, 4, 6)], dim=2)
    by_hand = network(whole, t, WORDS, mask, hint=longer, when=[0, 1, 2, 3, 3.75])[:, :, :4]
    assert torch.equal(beside[:, :, 2:], by_hand[:, :, 2:]) and not beside[:, :, :2].any()


@torch.no_grad()
def test_a_hint_is_told_to_every_part_of_guidance_but_the_one_that_is_told_less() -> None:
    network, t = tiny.transformer(given="time", hints=True), torch.tensor([0.5, 0.5])
    hint = torch.cat([FIRST_TWO, CLEAN], dim=1)
    told = around(network, Given(NOTHING, CLEAN, IMAGE[:, :, :0], hint=hint))
    push = guided(told, WORDS, BLANK, Guidance(scale=3.0, images=2.0), untold=network)(NOISE, t)
    all_, blank, less = (network(NOISE, t, words, hint=h) for words, h in ((WORDS, hint), (BLANK, hint), (BLANK, None)))
    torch.testing.assert_close(push, all_ + 2 * (all_ - blank) + (blank - less), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_the_first_frame_shows_is_told_with_what_is_given() -> None:
    network, t, shows = tiny.transformer(given="time", picture=5), torch.tensor([0.3, 0.8]), tiny.grid(1, 5)
    told = around(network, given(FIRST_TWO)._replace(picture=shows))(NOISE, t, WORDS)
    by_hand = around(network, given(FIRST_TWO))(NOISE, t, WORDS._replace(picture=shows.repeat(2, 1)))
    assert torch.equal(told, by_hand) and (told - around(network, given(FIRST_TWO))(NOISE, t, WORDS)).abs().max() > 1e-3


def test_runs_are_what_stands_together() -> None:
    assert Mask((0, 1, 3, 5, 6)).runs == [(0, 2), (3, 4), (5, 7)] and Mask().runs == []


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("frames", [2, 3, 4, 24])
def test_every_mask_leaves_something_to_generate(name: str, frames: int) -> None:
    drawn = {MASKS[name](np.random.default_rng(i), frames) for i in range(60)}
    for mask in drawn:
        assert len(set(mask.frames)) == len(mask.frames) < frames and all(0 <= i < frames for i in (*mask.frames, *mask.heads))
    spans = {"prefix": lambda m: m.frames[0] == 0, "suffix": lambda m: m.frames[-1] == frames - 1}
    assert all(spans.get(name, lambda m: True)(mask) for mask in drawn)
    if name in ("prefix", "suffix"):
        assert {len(mask.frames) for mask in drawn} >= {1, frames - 1} and all(len(mask.runs) == 1 for mask in drawn)
    assert all(mask == Mask() for mask in drawn) == (name == "none")


def test_a_draw_follows_its_weights_and_a_picture_is_given_nothing() -> None:
    tasks, rng = Tasks(none=1.0, first=3.0), np.random.default_rng(0)
    first = sum(tasks.draw(rng, 4).images == (0,) for _ in range(2000)) / 2000
    assert abs(first - 0.75) < 0.03 and tasks.gives and not Tasks().gives
    assert {Tasks(none=0.0, both=1.0).draw(rng, 1) for _ in range(9)} == {Mask()}


@pytest.mark.parametrize("name", MASKS)
def test_all_masks_hold_every_run_that_a_draw_gives(name: str) -> None:
    tasks = replace(Tasks(none=0.0, **{name: 1.0}) if name != "none" else Tasks(), clips=3)
    known = tasks.all(5)
    runs, images = {run for mask in known for run in mask.runs}, {image for mask in known for image in mask.placed(4).images}
    for i in range(200):
        mask = tasks.draw(np.random.default_rng(1000 + i), 5).placed(4)
        assert set(mask.runs) <= runs and set(mask.images) <= images


@pytest.mark.parametrize("wrong", [{"first": -0.1}, {"none": 0.0}, {"clips": 0}, {"first": float("inf")}, {"last": float("nan")}])
def test_weights_that_say_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="weights of at least 0"):
        Tasks(**wrong)  # pyright: ignore[reportArgumentType]


def test_the_text_of_both_halves_of_guidance_has_the_same_givens() -> None:
    seen: list[Tensor] = []

    def network(noisy: Tensor, t: Tensor, text: Text, mask: Tensor, *, when: object) -> Tensor:
        seen.append(noisy)
        return noisy

    task = given(FIRST_TWO)
    guided(around(network, task), WORDS, WORDS, Guidance(scale=3.0))(NOISE, torch.tensor([0.5, 0.5]))
    one, other = seen[0].chunk(2)
    assert torch.equal(one, other) and torch.equal(one[:, :, :2], CLEAN[:, :, :2])
