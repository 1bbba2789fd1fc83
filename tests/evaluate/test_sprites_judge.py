"""The judge of sprites. Without the font: where things are, how they move, what is behind. With it and the weights: what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from videodit.data import glyphs, sprites
from videodit.data.sprites import NOUNS, Scene, Thing
from videodit.evaluate import sprites as judging
from videodit.evaluate import sprites_things as things
from videodit.evaluate.sprites import Seen, Verdict, judge, score
from videodit.evaluate.sprites_turns import turning, unrolled
from videodit.evaluate.toybox import table
from videodit.shapes import Size, UserError

SIZE = Size(16, 64, 64)
font = pytest.mark.skipif(not glyphs.FONT.is_file(), reason="Debian's fonts-noto-color-emoji is not installed")
weights = pytest.mark.skipif(not things.WEIGHTS.is_file(), reason="the judge's weights are not in this checkout")


def drawn(noun: str) -> glyphs.Picture:
    """Stand-in: an ellipse of a bright colour with a corner of another, so that it can be seen turning."""
    y, x = np.mgrid[:64, :64] - 31.5
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[..., 3] = 255 * ((x / 32) ** 2 + (y / 24) ** 2 < 1)
    rgba[..., :3] = (250, 90, 200)
    rgba[:32, 32:, :3] = (30, 240, 60)
    return glyphs.levels(rgba)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """All things are taken for the first."""
    monkeypatch.setattr(things, "likely", lambda crops, path: -np.arange(len(NOUNS), dtype=np.float32)[None].repeat(len(crops), 0))


@pytest.mark.usefixtures("blind")
@pytest.mark.parametrize("group", ["one", "alike", "beside"])
def test_motion_background_count_and_place(group: sprites.Group):
    rows = []
    for i in range(14):
        what = sprites.scene(31, i, split="all", group=group)
        rows.append(score(judge(sprites.render(what, SIZE, drawn)), what))
    rates = table(rows)
    asked = ("motion", "background", "count", *(["place"] if group == "beside" else []))
    assert min(rates[name] for name in asked) > 0.9, rates


@pytest.mark.usefixtures("blind")
def test_what_is_no_scene_is_said_so():
    rng = np.random.default_rng(0)
    verdict = judge(rng.integers(0, 255, (8, 64, 64, 3), dtype=np.uint8))
    assert verdict.background is None and verdict.notes
    what = Scene(things=(), background="sea")
    assert judge(sprites.render(what, SIZE, drawn)).notes == ("No thing was found.",)
    thing = Thing(noun="dog", motion="still", radius=0.2, amount=0.0, phase=0.0)
    video = sprites.render(Scene(things=(thing,), background="sea"), SIZE, drawn)
    assert judge(video[:1]).things[0].motion is None
    video[5:] = sprites.render(what, Size(11, 64, 64), drawn)
    assert "5 of 16 frames only" in judge(video).notes[0]


def test_a_turn_is_read_from_pictures_alone():
    u = np.linspace(0, 1, 16)
    for rate in (0.0, 0.5, -0.7):
        thing = Thing(noun="dog", motion="spin", radius=0.3, amount=abs(rate), phase=0.1 if rate > 0 else 0.0625 + 0.01)
        video = sprites.render(Scene(things=(thing,), background="black"), SIZE, drawn).astype(np.float32)
        way = np.sign(thing.pose(np.float32([0, 1])).angle[1])
        squares = [things.crop(frame, frame - frame[0, 0], (32.0, 32.0), 40.0) for frame in video]
        angle = turning(np.stack([unrolled(square) for square in squares]), u)
        assert angle[-1] - angle[0] == pytest.approx(2 * np.pi * abs(rate) * way, abs=0.2)


def test_boxes_join_what_is_near_and_part_what_is_not():
    away = np.zeros((64, 64, 3))
    away[10:20, 10:20] = away[10:20, 21:30] = 200  # one column between
    away[40:55, 10:25] = away[40:55, 29:44] = 200  # four
    away[5, 60] = 200  # a speck
    found = things.boxes(away, 40.0)
    assert sorted(map(tuple, found.tolist())) == [(10, 10, 30, 20), (10, 40, 25, 55), (29, 40, 44, 55)]


def test_scores_ask_for_every_thing():
    seen = Seen(noun="cat", colour="", motion="up", place=(0.2, 0.5), sure=1.0)
    other = replace(seen, noun="circle", colour="red", motion="spin", place=(0.8, 0.5))
    cat, ball = (Thing(noun=x.noun, colour=x.colour or "", motion=x.motion or "", radius=0.1, amount=0.2, phase=0.0) for x in (seen, other))
    scene = Scene(things=(cat, ball), background="sea", group="beside")
    assert all(score(Verdict(things=(seen, other), background="sea", notes=()), scene).values())
    swapped = Verdict(things=(replace(other, place=(0.1, 0.5)), seen), background="sea", notes=())
    assert [name for name, right in score(swapped, scene).items() if not right] == ["place", "all"]
    blue = Verdict(things=(seen, replace(other, colour="blue"), seen), background="snow", notes=())
    assert [name for name, right in score(blue, scene).items() if not right] == ["colour", "background", "count", "all"]
    assert not any(score(Verdict(things=(), background=None, notes=()), scene)[name] for name in ("object", "colour", "motion", "all"))


def test_what_nobody_asked_for_is_neither_right_nor_wrong():
    seen = Seen(noun="cat", colour=None, motion="up", place=(0.2, 0.5), sure=1.0)
    cat = Thing(noun="cat", motion="up", radius=0.1, amount=0.2, phase=0.0)
    ball = replace(cat, noun="circle", colour="red")
    scenes = [Scene(things=(cat,), background="sea"), Scene(things=(ball,), background="sea")]
    plain, coloured = (score(Verdict(things=(seen,), background="sea", notes=()), what) for what in scenes)
    assert plain["colour"] is None and plain["place"] is None and plain["all"] is True
    assert coloured["colour"] is False and coloured["all"] is False
    rates = table([plain, plain, plain, coloured])
    assert rates["object"] == 0.75 and rates["colour"] == 0 and "place" not in rates


def test_without_weights_the_judge_says_so(tmp_path: Path):
    with pytest.raises(UserError, match="train them by benchmarks"):
        things.likely(torch.zeros(1, 4, 32, 32), tmp_path / "none.safetensors")


def test_the_network_is_small():
    parameters = sum(p.numel() for p in things.Recogniser().parameters())
    assert 1e5 < parameters < 1e6 and judging.SEEN < things.FULL


@font
@weights
def test_things_are_named():
    pictures = glyphs.pictures(glyphs.FONT)
    whats = [sprites.scene(33, i, split="all") for i in range(24)]
    rates = table([score(judge(sprites.render(what, Size(8, 64, 64), pictures)), what) for what in whats])
    assert rates["object"] > 0.85 and rates["colour"] > 0.9, rates
