"""The judge of toybox videos: right on renders, disturbed ones too, and never right by luck."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from videodit.data import toybox
from videodit.data.toybox import Scene, Thing
from videodit.evaluate.toybox import Seen, Verdict, judge, score, table
from videodit.evaluate.toybox_shapes import SYMMETRY, compare
from videodit.shapes import Size

_path = Path(__file__).parents[2] / "benchmarks" / "toybox_judge.py"
_spec = importlib.util.spec_from_file_location("toybox_judge", _path)
assert _spec and _spec.loader
benchmark = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(benchmark)

SIZE = Size(16, 64, 64)
BARS = {1: 0.995, 2: 0.98}
RIGHT = ("shape", "colour", "motion", "background")


def thing(**changes) -> Thing:
    return replace(Thing(shape="circle", colour="red", motion="left", radius=0.18, amount=0.36, phase=0.1), **changes)


def scene(*things: Thing, background: str = "black") -> Scene:
    return Scene(things=things, background=background)


def render(*things: Thing, background: str = "black") -> np.ndarray:
    return toybox.render(scene(*things, background=background), SIZE)


# --- Right on renders ---


@pytest.mark.parametrize(("objects", "count"), [(1, 60), (2, 30)])  # the long lane has 3,000
def test_each_attribute_is_right_as_often_as_promised(objects, count):
    for condition, rates in benchmark.measure(objects, count, 4242, SIZE).items():
        for attribute in RIGHT:
            assert rates[attribute] >= BARS[objects], (condition, attribute, rates)
        assert rates["milliseconds"] < 100, condition  # about 10 on one core; a busy machine is no failure


@pytest.mark.slow
@pytest.mark.parametrize(("objects", "count"), [(1, 2000), (2, 1000)])
def test_the_full_table(objects, count):
    for condition, rates in benchmark.measure(objects, count, 77, SIZE).items():
        for attribute in RIGHT:
            assert rates[attribute] >= BARS[objects], (condition, attribute, rates)


@pytest.mark.parametrize("size", [Size(32, 96, 64), Size(8, 64, 64), Size(16, 64, 128), Size(24, 160, 144)], ids=str)
@pytest.mark.parametrize("objects", [1, 2])
def test_any_extent_and_length(size, objects):
    rates = benchmark.measure(objects, 8, 99, size, ("clean",))["clean"]
    assert rates["all"] == rates["background"] == 1


def test_wobbly_things_of_colours_a_little_off_are_still_named():
    scores = []
    for i in range(40):
        what = toybox.scene(55, i, split="all", objects=1 + i % 2)
        scores.append(score(judge(wobble(toybox.render(what, SIZE), i)), what))
    assert table(scores)["all"] >= 0.95


def wobble(video: np.ndarray, index: int) -> np.ndarray:
    """What an imperfect generator makes of a clip: bent anew in each frame, tinted, blotchy, a little soft."""
    rng = np.random.default_rng([5, index])
    frames, rows, columns, _ = video.shape
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    out = np.empty(video.shape, np.float32)
    for f in range(frames):
        dy, dx = (ndimage.zoom(rng.normal(0, 0.6, (6, 6)), (rows / 6, columns / 6), order=3) for _ in "yx")
        for c in range(3):
            out[f, ..., c] = ndimage.map_coordinates(video[f, ..., c].astype(np.float32), [y + dy, x + dx], order=1, mode="nearest")
        out[f] += ndimage.zoom(rng.normal(0, 8, (8, 8, 3)), (rows / 8, columns / 8, 1), order=1)
    out += np.random.default_rng([6, index]).normal(0, 8, 3)
    return np.clip(np.rint(ndimage.gaussian_filter(out, (0, 0.6, 0.6, 0))), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("shape", "turns"), [(s, n) for s, n in SYMMETRY.items() if n])
def test_a_template_fits_again_after_a_turn_that_looks_alike_and_not_after_half_of_it(shape, turns):
    def errors(angle: float) -> np.ndarray:
        spun = thing(shape=shape, motion="spin", amount=angle / (2 * np.pi), radius=0.25)
        frame = toybox.render(scene(spun), SIZE, at=np.float32([1.0]))[0]
        alpha = np.clip((frame - 14.0) @ [1, 0, 0] / 212, 0, 1).astype(np.float32)[None]
        area = alpha.sum((1, 2))
        grid = np.arange(64) + 0.5
        centre = np.stack([alpha.sum(1) @ grid, alpha.sum(2) @ grid], 1) / area[:, None]
        return compare(alpha, centre, area)[0]

    here, again, between = errors(0.0), errors(2 * np.pi / turns), errors(np.pi / turns)
    assert here.argmin() == again.argmin() != between.argmin()
    assert here.min() < 0.03


# --- Never right by luck ---


def test_a_video_of_nothing_holds_nothing():
    for name, video in {
        "black": np.zeros((16, 64, 64, 3), np.uint8),
        "white": np.full((16, 64, 64, 3), 255, np.uint8),
        "gradient": render(background="gradient"),
    }.items():
        verdict = judge(video)
        assert verdict.things == () and verdict.background == name and "No thing" in verdict.notes[-1]


def test_noise_is_neither_a_thing_nor_a_background():
    rng = np.random.default_rng(0)
    lively = rng.integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    for video in (lively, np.repeat(lively[:1], 16, 0)):
        verdict = judge(video)
        assert verdict.things == () and verdict.background is None and len(verdict.notes) >= 2


def test_one_frame_has_no_motion_and_says_so():
    verdict = judge(render(thing())[:1])
    assert verdict.things[0] == Seen(shape="circle", colour="red", motion=None, place=verdict.things[0].place)
    assert any("one frame has no motion" in note for note in verdict.notes)


def test_a_frozen_video_is_still():
    verdict = judge(np.repeat(render(thing())[:1], 16, 0))
    assert verdict.things[0].motion == "still"
    assert not score(verdict, scene(thing()))["all"]


def test_played_backwards_a_motion_is_its_opposite():
    for motion, opposite in {"left": "right", "up": "down", "bounce": "bounce", "orbit": "orbit"}.items():
        video = render(thing(motion=motion, amount=0.3 if motion != "orbit" else 0.2, place=(0.5, 0.6)))
        assert judge(video[::-1]).things[0].motion == opposite


@pytest.mark.parametrize(
    ("attribute", "other"),
    [
        ("colour", thing(colour="blue")),
        ("shape", thing(shape="square")),
        ("motion", thing(place=(0.5, 0.75))),
        ("motion", thing(motion="down")),
    ],
)
def test_a_cut_halfway_makes_the_attribute_undecided(attribute, other):
    video = np.concatenate([render(thing())[:8], render(other)[8:]])
    verdict = judge(video)
    assert getattr(verdict.things[0], attribute) is None and verdict.notes
    for what in (thing(), other):
        assert not score(verdict, scene(what))["all"]


def test_a_jump_on_the_way_is_no_motion():
    left = render(thing())
    verdict = judge(np.concatenate([left[:8], np.roll(left[8:], 14, axis=2)]))
    assert verdict.things[0].motion is None and "jumps after frame 7" in verdict.notes[0]


def test_a_diagonal_is_neither_left_nor_up():
    steps = [np.roll(render(thing(motion="still"))[0], (10 - 2 * f, 10 - 2 * f), (0, 1)) for f in range(12)]
    verdict = judge(np.stack(steps))
    assert verdict.things[0].motion is None and "moves like nothing" in verdict.notes[0]


def test_a_thing_that_vanishes_has_no_motion():
    video = render(thing())
    video[8:] = render()[8:]
    verdict = judge(video)
    assert verdict.things[0].motion is None and "8 of 16 frames" in verdict.notes[0]
    video[3:] = render()[3:]
    assert judge(video).things == ()


def test_a_thing_missing_in_one_frame_is_still_followed():
    video = render(thing())
    video[5] = render()[5]
    assert score(judge(video), scene(thing()))["all"]


def test_a_background_that_changes_is_not_named():
    video = np.concatenate([render(thing())[:8], render(thing(), background="white")[8:]])
    verdict = judge(video)
    assert verdict.background is None and "background changes" in verdict.notes[0]


def test_a_colour_out_of_the_toybox_is_not_named():
    video = render(thing())
    brown = np.where(np.all(abs(video.astype(int) - (226, 40, 36)) < 3, -1, keepdims=True), np.uint8([120, 90, 60]), video // 2)
    assert judge(brown.astype(np.uint8)).things[0].colour is None


# --- Scores ---

ONE, TWO = thing(), thing(shape="star", colour="blue", motion="spin")


def seen(what: Thing, **changes) -> Seen:
    return replace(Seen(shape=what.shape, colour=what.colour, motion=what.motion, place=(0.5, 0.5)), **changes)


def verdict(*things: Seen) -> Verdict:
    return Verdict(things=things, background="black", notes=())


def test_scores_pair_things_in_any_order():
    both = scene(ONE, TWO)
    assert all(score(verdict(seen(TWO), seen(ONE)), both).values())
    wrong = score(verdict(seen(TWO, motion="still"), seen(ONE)), both)
    assert wrong == {"shape": True, "colour": True, "motion": False, "count": True, "all": False, "background": True}


def test_attributes_swapped_between_things_are_wrong():
    swapped = score(verdict(seen(ONE, colour=TWO.colour), seen(TWO, colour=ONE.colour)), scene(ONE, TWO))
    assert not swapped["colour"] and not swapped["all"] and swapped["shape"] and swapped["motion"]


def test_missing_things_are_wrong_and_extra_ones_spoil_all():
    assert not any(score(verdict(seen(ONE)), scene(ONE, TWO))[name] for name in ("shape", "colour", "motion", "all"))
    extra = score(verdict(seen(ONE), seen(TWO)), scene(ONE))
    assert extra["shape"] and extra["colour"] and extra["motion"] and not extra["all"]
    nothing = score(replace(verdict(), background=None), scene(ONE))
    assert not any(nothing.values())
    assert score(verdict(), scene())["all"]


def test_undecided_is_wrong():
    assert not score(verdict(seen(ONE, shape=None)), scene(ONE))["shape"]


def test_the_table_holds_the_means():
    rows = [score(verdict(seen(ONE)), scene(ONE)), score(verdict(seen(ONE, motion="up")), scene(ONE))]
    assert table(rows) == {"shape": 1.0, "colour": 1.0, "motion": 0.5, "count": 1.0, "all": 0.5, "background": 1.0}
    assert table([]) == {}
