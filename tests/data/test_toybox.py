"""The promises of the toybox, measured on what it draws rather than on what it was told to draw."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import islice, pairwise

import numpy as np
import pytest

from videodit.data import toybox
from videodit.data.toybox import BACKGROUNDS, COLOURS, COMBINATIONS, HELD_OUT, MOTIONS, SHAPES, Scene
from videodit.shapes import Size, UserError

SIZE = Size(16, 64, 64)
EXTENTS = [SIZE, Size(7, 96, 64), Size(16, 64, 128), Size(33, 48, 40), Size(1, 32, 32)]


def covered(scene: Scene, size: Size) -> np.ndarray:
    """How much of every pixel the things cover: f h w, told from a drawing of them and one of the bare background."""
    bare = toybox.render(Scene(things=(), background=scene.background), size).astype(float)
    colour = np.array(COLOURS[scene.things[0].colour], float)
    away = toybox.render(scene, size) - bare
    full = colour - bare
    return (away * full).sum(-1) / (full**2).sum(-1)


def alone(scene: Scene, index: int) -> Scene:
    return Scene(things=(scene.things[index],), background="black")


# --- A pure function of (seed, index) ---


def test_a_clip_depends_on_seed_and_index_only():
    forwards = [toybox.clip(3, i, Size(4, 32, 32)) for i in range(12)]
    backwards = [toybox.clip(3, i, Size(4, 32, 32)) for i in reversed(range(12))][::-1]
    listed = list(islice(toybox.clips(3, Size(4, 32, 32), start=5), 7))
    for one, other in [*zip(forwards, backwards, strict=True), *zip(forwards[5:], listed, strict=True)]:
        assert one.caption == other.caption and one.scene == other.scene
        np.testing.assert_array_equal(one.video, other.video)
    assert len({clip.video.tobytes() for clip in forwards}) == 12
    assert toybox.clip(4, 0, Size(4, 32, 32)).scene != forwards[0].scene


def test_another_process_draws_the_same_and_never_imports_torch():
    code = (
        "import sys, hashlib; from videodit.data import toybox; from videodit.shapes import Size\n"
        "clip = toybox.clip(3, 8, Size(4, 32, 32)); print(hashlib.sha256(clip.video.tobytes()).hexdigest(), 'torch' in sys.modules)"
    )
    digest = hashlib.sha256(toybox.clip(3, 8, Size(4, 32, 32)).video.tobytes()).hexdigest()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out == [digest, "False"]


def test_the_scene_knows_no_extent_and_more_frames_show_the_same_moments():
    assert toybox.clip(3, 1, SIZE).scene == toybox.clip(3, 1, Size(8, 96, 64)).scene
    scene = toybox.scene(3, 1)
    np.testing.assert_array_equal(toybox.render(scene, Size(9, 64, 64)), toybox.render(scene, Size(17, 64, 64))[::2])
    one = toybox.render(scene, SIZE, at=np.float32([0.4]))
    np.testing.assert_array_equal(one, toybox.render(scene, SIZE, at=np.float32([0.1, 0.4]))[1:])


# --- What is drawn, and what is held out ---


def test_the_splits_part_all_combinations_and_training_never_shows_a_held_out_one():
    counts = {"train": (1, 3500), "held-out": (1, 600)}  # of one object: two take a few draws, and draw from the same pool
    seen = {
        split: {toybox.scene(17, i, split=split, objects=objects).things[0].combination for i in range(count)}
        for split, (objects, count) in counts.items()
    }
    assert HELD_OUT.isdisjoint(thing.combination for i in range(300) for thing in toybox.scene(18, i).things)
    assert seen["train"].isdisjoint(HELD_OUT)
    assert seen["train"] == set(COMBINATIONS) - HELD_OUT
    assert seen["held-out"] == HELD_OUT
    pairs = {(0, 1): (SHAPES, COLOURS), (0, 2): (SHAPES, MOTIONS), (1, 2): (COLOURS, MOTIONS)}
    for (a, b), (first, second) in pairs.items():  # every pair of attributes is trained, so that only the triple is new
        trained = {(c[a], c[b]) for c in seen["train"]}
        assert {(x, y) for x in first for y in second if (x, y) != ("circle", "spin")} == trained


def test_what_cannot_be_seen_is_left_out():
    assert all(toybox.visible(c[0], c[2]) for c in COMBINATIONS)
    assert len(COMBINATIONS) == len(SHAPES) * len(COLOURS) * len(MOTIONS) - len(COLOURS)
    assert not any(thing.combination[::2] == ("circle", "spin") for i in range(600) for thing in toybox.scene(2, i, split="all").things)


def test_one_or_two_objects_and_two_of_a_kind_never():
    numbers = [len(toybox.scene(2, i).things) for i in range(600)]
    assert set(numbers) == {1, 2} and 0.2 < numbers.count(2) / 600 < 0.3
    for i in range(200):
        one, two = toybox.scene(2, i, objects=2).things
        assert (one.shape, one.colour) != (two.shape, two.colour)
    with pytest.raises(UserError, match="1 or 2 objects, not 3"):
        toybox.scene(0, 0, objects=3)


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("colour", COLOURS)
def test_colours_differ_from_every_tone_of_every_background(colour, background):
    tones = np.unique(toybox.background(background, 256, 1)[:, 0], axis=0)
    away = np.array(COLOURS[colour]) - tones
    assert np.linalg.norm(away, axis=1).min() >= toybox.MARGIN
    assert abs(away @ [0.299, 0.587, 0.114]).min() >= toybox.LUMA_MARGIN


def test_colours_differ_from_each_other():
    palette = np.array(list(COLOURS.values()), float)
    distance = np.linalg.norm(palette[:, None] - palette, axis=-1) + 1e3 * np.eye(len(palette))
    assert distance.min() >= 80


# --- How it is drawn ---


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("objects", [1, 2])
def test_every_motion_but_still_changes_by_six_pixels(motion, objects):
    rng = np.random.default_rng([23, objects])
    for shape in SHAPES:
        if toybox.visible(shape, motion):
            for _ in range(4):
                thing = toybox._thing((shape, "red", motion), rng, alone=objects == 1)
                assert (changed(Scene(things=(thing,), background="black")) >= 6) == (motion != "still"), thing


def changed(scene: Scene) -> float:
    """The most that anything about a thing changes over its clip, in pixels: where it is, how wide it is, how far its rim has turned."""
    alpha = covered(scene, SIZE)
    rows, columns = np.mgrid[:64, :64] + 0.5
    area = alpha.sum((1, 2))
    x, y = ((alpha * grid).sum((1, 2)) / area for grid in (columns, rows))
    path = np.hypot(x[:, None] - x, y[:, None] - y).max()
    if path >= 6:
        return path
    extent = [alpha.max(axis).sum(1) for axis in (1, 2)]  # widths and heights, to parts of a pixel
    turned = 0.0
    if np.ptp(np.sqrt(area)) < 0.5 and abs(np.diff(alpha, axis=0)).sum() > 1:
        # Turn the first frame's rim by degrees until it becomes the second one's; the steps add up.
        far = max(np.ptp(columns[alpha[0] > 0.5]), np.ptp(rows[alpha[0] > 0.5])) / 2
        circle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
        ways = [(r * far * np.sin(circle), r * far * np.cos(circle)) for r in (0.6, 0.75, 0.9)]
        rims = [
            np.stack([frame[(y0 + down).astype(int), (x0 + along).astype(int)] for down, along in ways])
            for frame, x0, y0 in zip(alpha, x, y, strict=True)
        ]
        steps = []
        for one, other in pairwise(rims):
            errors = [abs(np.roll(one, shift, 1) - other).sum() for shift in range(-60, 61)]
            steps.append(int(np.argmin(errors)) - 60)
        turned = abs(np.deg2rad(np.sum(steps) / 2)) * far
    return max(path, *(np.ptp(e) for e in extent), turned)


@pytest.mark.parametrize("size", EXTENTS, ids=str)
def test_nothing_leaves_the_frame_and_two_things_never_touch(size):
    for i in range(40):
        scene = toybox.scene(29, i, split="all", objects=2)
        one, two = (covered(alone(scene, index), size) for index in (0, 1))
        for alpha in (one, two):
            assert alpha.shape == size and (alpha.sum((1, 2)) > 4).all()
            assert max(alpha[:, [0, -1]].max(), alpha[:, :, [0, -1]].max()) < 0.5  # the frame's own rim is never covered
        grown = np.pad(one > 0.02, ((0, 0), (1, 1), (1, 1)))
        near = np.any([np.roll(grown, (dy, dx), (1, 2)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], axis=0)[:, 1:-1, 1:-1]
        if min(size[1:]) >= 64:
            assert not (near & (two > 0.02)).any(), i
        assert not ((one > 0.5) & (two > 0.5)).any(), i


def test_edges_are_soft():
    alpha = covered(toybox.scene(29, 0, objects=1), SIZE)
    soft = (alpha > 0.05) & (alpha < 0.95)
    assert (soft.sum((1, 2)) > 8).all() and (alpha > 0.95).any()


@pytest.mark.parametrize("size", EXTENTS, ids=str)
def test_any_extent_and_length(size):
    clip = toybox.clip(1, 4, size)
    assert clip.video.shape == (*size, 3) and clip.video.dtype == np.uint8
    picture = toybox.picture(1, 4, size)
    assert picture.video.shape == (1, *size[1:], 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fills_its_radius_and_stays_inside_its_reach(shape):
    axis = np.linspace(-1.3, 1.3, 201, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    inside = SHAPES[shape](x, y) < 0
    assert inside[100, 100] and max(abs(x[inside]).max(), abs(y[inside]).max()) <= toybox.REACH
    assert 0.85 < np.hypot(x, y)[inside].max() <= toybox.TURNED_REACH.get(shape, toybox.REACH)


@pytest.mark.parametrize("size", [SIZE, Size(16, 256, 256)], ids=str)
@pytest.mark.parametrize("shape", [s for s in SHAPES if toybox.visible(s, "spin")])
def test_a_turning_shape_is_drawn_whole(shape, size):
    """In the tightest corner that it may be put in, its area stays what it is."""
    room = max(toybox.TURNED_REACH.get(shape, 0), toybox.REACH) * 0.24
    thing = toybox.Thing(shape=shape, colour="red", motion="spin", radius=0.24, amount=0.8, phase=0.1, place=(room, room))
    area = covered(Scene(things=(thing,), background="black"), size).sum((1, 2))
    assert np.ptp(area) < 0.01 * area.mean()


# --- Sentences ---


def test_captions_speak_the_scene():
    spoken = set()
    for i in range(400):
        scene, caption = (clip := toybox.clip(37, i, Size(1, 16, 16), split="all")).scene, clip.caption
        spoken.add(caption)
        for thing in scene.things:
            words = [toybox.SHAPE_WORDS.get(thing.shape, (thing.shape,)), toybox.COLOUR_WORDS.get(thing.colour, (thing.colour,))]
            for choices in [*words, toybox.MOTION_WORDS[thing.motion]]:
                assert any(choice in caption for choice in choices), (caption, thing)
            assert "small " not in caption or min(t.radius for t in scene.things) < toybox.SMALL
            assert "big " not in caption or max(t.radius for t in scene.things) > toybox.BIG
        assert "background" not in caption or f"{scene.background} background" in caption
        assert " a orange" not in f" {caption}" and "an red" not in caption
        for plain in toybox.prompt(scene).split(" and "):
            assert any(f"{t.colour} {t.shape}" in plain for t in scene.things)
    assert len(spoken) > 300


def test_a_motion_is_named_by_its_own_words_only():
    words = [word for choices in toybox.MOTION_WORDS.values() for word in choices]
    assert len(words) == len(set(words))


def test_a_picture_without_motion_does_not_speak_of_any():
    rng = np.random.default_rng(0)
    for i in range(200):
        caption = toybox.caption(toybox.scene(3, i), rng, moving=False)
        assert not any(word in caption for choices in toybox.MOTION_WORDS.values() for word in choices) and "video" not in caption


def test_the_vocabulary_holds_every_word_of_every_caption():
    words = {word for sentence in islice(toybox.sentences(), 1000) for word in sentence.replace(",", " ,").split()}
    for i in range(300):
        assert set(toybox.clip(91, i, Size(1, 8, 8)).caption.replace(",", " ,").split()) <= words
        assert set(toybox.prompt(toybox.scene(91, i, split="held-out")).split()) <= words
