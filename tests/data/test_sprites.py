"""The promises of the sprites; pictures of things are generated ones, except where the font itself is looked at."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videodit.data import glyphs, scenery, sprites, sprites_words, toybox, worlds
from videodit.data.sources import Sprites, Toybox
from videodit.data.sprites import HELD_OUT, NOUNS, PAIRS, Scene, Thing
from videodit.data.things import HIDDEN, THINGS, UNTURNED, plural, together
from videodit.shapes import Size, UserError

SIZE = Size(5, 48, 64)
font = pytest.mark.skipif(not glyphs.FONT.is_file(), reason="Debian's fonts-noto-color-emoji is not installed")


def half(noun: str) -> glyphs.Picture:
    """Stand-in: a disc, its left half of a colour of its own, its right half black."""
    y, x = np.mgrid[:64, :64] - 31.5
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[..., 3] = 255 * (np.hypot(x, y) < 32)
    rgba[:, :32, :3] = (255, 40 + len(noun), 0)
    return glyphs.levels(rgba)


def cover(noun: str) -> glyphs.Picture:
    """Stand-in: a white square."""
    return glyphs.levels(np.full((8, 8, 4), 255, np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, noun in enumerate(THINGS):
        Image.new("RGBA", (9, 7), (number, 255 - number, 90, 255)).save(tmp_path / f"{noun}.png")
    return tmp_path


def test_there_is_a_vocabulary_worth_typing():
    assert len(THINGS) >= 120 and set(toybox.SHAPES) < set(NOUNS) and len(set(THINGS.values())) == len(THINGS)
    spoken = {word for words in toybox.SHAPE_WORDS.values() for word in words} | set(toybox.SHAPES) | set(toybox.COLOURS)
    assert not spoken & set(THINGS) and len(scenery.BACKGROUNDS) == 12
    assert {noun for nouns in HIDDEN.values() for noun in nouns} <= {*THINGS, *toybox.COLOURS} and set(UNTURNED) <= set(NOUNS)


def test_a_clip_depends_on_seed_and_index_only(folder: Path):
    world = worlds.world(Sprites(font=folder))
    one, other = ([world.clip(3, i, SIZE) for i in order] for order in (range(8), reversed(range(8))))
    for a, b in zip(one, other[::-1], strict=True):
        assert a.caption == b.caption and a.scene == b.scene and (a.video == b.video).all()
        assert a.video.shape == (*SIZE, 3) and a.video.dtype == np.uint8
    assert len({clip.video.tobytes() for clip in one}) == 8
    assert world.picture(3, 1, SIZE).video.shape == (1, 48, 64, 3)
    assert world.content() == worlds.world(Sprites(font=folder)).content()
    Image.new("RGBA", (9, 7), (1, 2, 3, 255)).save(folder / "dog.png")
    assert world.content() != one and worlds.world(Sprites(font=folder)).content() != worlds.world(Toybox()).content()


def test_the_toybox_is_a_world_too():
    world = worlds.world(Toybox())
    for i in range(6):
        clip, picture = world.clip(3, i, SIZE), world.picture(3, i, SIZE)
        plain, still = toybox.clip(3, i, SIZE), toybox.picture(3, i, SIZE)
        assert (clip.caption, picture.caption) == (plain.caption, still.caption)
        assert (clip.video == plain.video).all() and (picture.video == still.video).all()


def test_the_number_of_things_is_what_was_asked_for():
    for number, groups in ((1, {"one"}), (2, {"alike", "beside"}), (3, {"alike"})):
        some = [sprites.scene(5, i, objects=number) for i in range(40)]
        assert {len(what.things) for what in some} == {number} and {what.group for what in some} == groups


def test_training_never_shows_a_held_out_pair_but_everything_in_others():
    seen = {(t.noun, t.motion) for i in range(2500) for t in sprites.scene(17, i, objects=1).things}
    assert not seen & HELD_OUT and len(seen) > 0.8 * (len(PAIRS) - len(HELD_OUT))
    assert {noun for noun, _ in seen} == set(NOUNS) and {motion for _, motion in seen} == set(toybox.MOTIONS)
    held = [sprites.scene(18, i, split="held-out") for i in range(200)]
    assert all((t.noun, t.motion) in HELD_OUT for what in held for t in what.things) and {what.group for what in held} == {
        "one",
        "alike",
        "beside",
    }
    for noun in THINGS:
        assert sum(pair[0] == noun for pair in HELD_OUT) <= 1
    assert all(sum(pair[1] == motion for pair in HELD_OUT) >= 10 for motion in toybox.MOTIONS)


def test_nothing_hidden_and_nothing_turned_that_looks_alike():
    for i in range(400):
        what = sprites.scene(5, i, split="all")
        for thing in what.things:
            assert not {thing.noun, thing.colour} & set(HIDDEN.get(what.background, ()))
            assert not (thing.motion == "spin" and thing.noun in UNTURNED) and bool(thing.colour) == (thing.noun in toybox.SHAPES)


def covered(what: Scene, size: Size) -> np.ndarray:
    """How much of every pixel the things cover, of pictures that are white squares."""
    bare = scenery.background("black", size.rows, size.columns)
    return (sprites.render(Scene(things=what.things, background="black"), size, cover)[..., 0] - bare[..., 0]) / (255 - bare[..., 0])


@pytest.mark.parametrize("size", [Size(7, 64, 64), Size(7, 64, 112), Size(5, 96, 64)], ids=str)
def test_things_stay_inside_and_apart(size: Size):
    for i in range(30):
        what = sprites.scene(29, i, group=("alike", "beside")[i % 2])
        if any(thing.colour for thing in what.things):
            continue
        each = [covered(Scene(things=(thing,), background="black"), size) for thing in what.things]
        assert len(each) >= 2
        for alpha in each:
            assert (alpha.sum((1, 2)) > 9).all() and max(alpha[:, [0, -1]].max(), alpha[:, :, [0, -1]].max()) < 0.6
        for frame in zip(*each, strict=True):
            assert (sum(alpha > 0.1 for alpha in frame) <= 1).all()
            if what.group == "beside":
                left, right = (np.flatnonzero((alpha > 0.1).any(0)) for alpha in frame)
                assert left.max() < right.min()
        if what.group == "alike":
            assert len({(t.noun, t.motion, t.radius, t.amount, t.phase) for t in what.things}) == 1


@pytest.mark.parametrize("side", [40, 64, 200])
def test_a_picture_is_drawn_where_it_belongs_at_any_size(side: int):
    thing = Thing(noun="dog", motion="right", radius=0.2, amount=0.4, phase=0.0)
    video = sprites.render(Scene(things=(thing,), background="black"), Size(3, side, side), half).astype(float)
    bare = scenery.background("black", side, side)
    red = video[..., 0] - bare[..., 0]
    centres = [(frame.sum(0) @ (np.arange(side) + 0.5)) / frame.sum() / side for frame in np.clip(red, 0, None)]
    # the middle of the left half of a disc lies 4 / (3 pi) radii left of its centre
    np.testing.assert_allclose(centres, np.array([0.3, 0.5, 0.7]) - 0.2 * 4 / (3 * np.pi), atol=0.012)
    area = np.clip(red, 0, None).sum((1, 2)) / (255 - bare[0, 0, 0]) / side**2
    np.testing.assert_allclose(area, np.pi * 0.2**2 / 2, rtol=0.06)


def test_a_turned_picture_turns():
    thing = Thing(noun="dog", motion="spin", radius=0.3, amount=1.0, phase=0.0)
    video = sprites.render(Scene(things=(thing,), background="black"), Size(5, 64, 64), half)[..., 0].astype(float)
    y, x = np.mgrid[:64, :64] + 0.5 - 32
    red = np.clip(video - 14, 0, None)
    ways = np.array([np.arctan2((f * y).sum(), (f * x).sum()) for f in red])  # from the left, a quarter further each time
    np.testing.assert_allclose(np.angle(np.exp(1j * (ways - np.pi * np.array([1, 1.5, 2, 2.5, 3])))), 0, atol=0.05)


def test_frames_do_not_depend_on_how_many_there_are():
    what = sprites.scene(3, 1)
    np.testing.assert_array_equal(sprites.render(what, Size(5, 40, 40), half), sprites.render(what, Size(9, 40, 40), half)[::2])


# --- Sentences ---


def test_captions_speak_the_scene():
    spoken = set()
    for i in range(600):
        what = sprites.scene(37, i, split="all")
        said = sprites_words.caption(what, np.random.default_rng(i))
        spoken.add(said)
        for thing in what.things:
            nouns = toybox.SHAPE_WORDS.get(thing.noun, (thing.noun,))
            several = what.group == "alike" and len(what.things) > 1
            assert any((plural(noun) if several else noun) in said for noun in nouns), said
            assert any(does in said or together(does) in said for does in sprites_words.MOTIONS[thing.motion]), said
        if what.group == "alike":
            assert re.search("two|three", said) and said.count(plural(what.things[0].noun)) <= 1
        if what.group == "beside":
            assert re.search(r"\b(left|right)\b", said) and not re.search(r"\ba [aeio]|\ban [^aeiouh]", said), said
        assert sprites_words.prompt(what).endswith(scenery.PLACES[what.background][0])
    assert len(spoken) > 590


def test_of_two_the_first_is_said_to_be_left():
    cat, ball = (
        Thing(noun=noun, colour=colour, motion="bounce", radius=0.15, amount=0.2, phase=0.0)
        for noun, colour in (("cat", ""), ("circle", "red"))
    )
    what = Scene(things=(cat, ball), background="sea", group="beside")
    for i in range(60):
        said = sprites_words.caption(what, np.random.default_rng(i))
        a, b = said.index("a cat"), said.index("a red")
        assert (a < b) != bool(re.search(r"right of a cat", said)), said


def test_a_word_of_motion_means_one_motion_and_pictures_speak_of_none():
    words = [word for choices in sprites_words.MOTIONS.values() for word in choices]
    assert len(words) == len(set(words))
    for i in range(150):
        said = sprites_words.caption(sprites.scene(3, i), np.random.default_rng(i), moving=False)
        assert not any(word in said or together(word) in said for word in words if word != "rests") and "video" not in said, said


@pytest.mark.parametrize(
    ("noun", "more"), [("mouse", "mice"), ("fox", "foxes"), ("strawberry", "strawberries"), ("key", "keys"), ("red box", "red boxes")]
)
def test_plurals(noun: str, more: str):
    assert plural(noun) == more


def test_what_several_do():
    assert [together(x) for x in ("does not move", "is spinning", "flies up", "bounces")] == [
        "do not move",
        "are spinning",
        "fly up",
        "bounce",
    ]


# --- Where pictures come from ---


def test_a_missing_font_and_a_missing_picture_say_what_to_do(tmp_path: Path):
    with pytest.raises(UserError, match="install Debian's fonts-noto-color-emoji"):
        worlds.world(Sprites(font=tmp_path / "none.ttf")).clip(0, 0, SIZE)
    with pytest.raises(UserError, match=r"There is no .*\.png"):
        worlds.world(Sprites(font=tmp_path)).clip(0, 0, SIZE)
    Image.new("RGBA", (4, 4)).save(tmp_path / "dog.png")
    with pytest.raises(UserError, match="covers no pixel"):
        glyphs.pictures(tmp_path)("dog")


@font
def test_the_font_has_every_thing_and_hides_none():
    """What `things.HIDDEN` and `things.UNTURNED` say, measured on the font itself."""
    pictures = glyphs.pictures(glyphs.FONT)
    tones = {name: np.unique(np.rint(scenery.background(name, 16, 16)).reshape(16, 16, 3), axis=1) for name in scenery.BACKGROUNDS}
    for noun in THINGS:
        texels = pictures(noun)[3].reshape(-1, 4)
        texels = texels[texels[:, 3] > 0.05]
        colours, weight = 255 * texels[:, :3] / texels[:, 3:], texels[:, 3] / texels[:, 3].sum()
        for name in set(tones) - {name for name, nouns in HIDDEN.items() if noun in nouns}:
            away = np.linalg.norm(colours[:, None, None] - tones[name], axis=-1)
            assert np.einsum("t,trc->rc", weight, away >= 40).min() > 0.4, (noun, name)
    assert len({pictures(noun)[2].tobytes() for noun in THINGS}) == len(THINGS)
