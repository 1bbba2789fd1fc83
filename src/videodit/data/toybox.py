"""The toybox: endless captioned videos of moving shapes, drawn in memory, without a file.

Clip i is a pure function of (seed, i), and a scene of no extent: places are fractions of the frame, sizes and
ways fractions of its shorter side, time runs from 0 at the first frame to 1 at the last. A thing stays inside the frame,
two things never touch, and what could not be seen (a spinning circle) is never drawn.
Promises that tests hold: a colour differs from its background by `MARGIN` in RGB and `LUMA_MARGIN` in luma, every motion
but still moves or changes a thing by at least 6 pixels at 64x64, and `HELD_OUT` never appears in the train split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from videodit.data.drawing import MOTION_WORDS, MOTIONS, Array, Pose, article, blend, times
from videodit.shapes import Size, UserError

Split = Literal["train", "held-out", "all"]

MARGIN, LUMA_MARGIN = 90.0, 30.0
GAP = 0.05  # between two things, and a third of it to the edge, as a fraction of the shorter side

# --- Shapes: signed distance at (x, y) from the centre, y down, in units of the thing's radius ---


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 0.88


def _square(x: Array, y: Array) -> Array:
    return np.maximum(abs(x), abs(y)) - 0.75


def _triangle(x: Array, y: Array) -> Array:
    return np.maximum(y, 0.8660254 * abs(x) - 0.5 * y) - 0.55


def _star(x: Array, y: Array) -> Array:
    turn = 2 * np.pi / 5
    angle = abs((np.arctan2(x, -y) + turn / 2) % turn - turn / 2)
    radius = np.hypot(x, y)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    tip, notch = (1.06, 0.0), (0.46 * np.cos(turn / 2), 0.46 * np.sin(turn / 2))
    along = (notch[0] - tip[0], notch[1] - tip[1])
    return ((x - tip[0]) * along[1] - (y - tip[1]) * along[0]) / -np.hypot(*along) * -1.0


def _cross(x: Array, y: Array) -> Array:
    x, y = abs(x), abs(y)
    return np.minimum(np.maximum(x - 0.3, y - 0.95), np.maximum(x - 0.95, y - 0.3))


def _heart(x: Array, y: Array) -> Array:
    x, y = abs(x), y - 0.05
    diamond = (x + abs(y)) * 0.7071068 - 0.62
    lobe = np.hypot(x - 0.4384, y + 0.4384) - 0.62
    return np.minimum(diamond, lobe)


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
}
REACH = 1.1  # no upright shape reaches further along an axis than this many radii
TURNED_REACH = {"heart": 1.21}  # the lobes of a heart do while it turns
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (226, 40, 36),
    "orange": (245, 140, 30),
    "yellow": (248, 220, 50),
    "green": (40, 180, 70),
    "cyan": (50, 210, 220),
    "blue": (45, 95, 240),
    "purple": (150, 60, 205),
    "pink": (250, 130, 185),
}
# A background is its colour from top to bottom: one, or two that alternate in stripes or run into each other.
BACKGROUNDS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((14, 14, 18),),
    "white": ((242, 242, 242),),
    "grey": ((52, 54, 58),),
    "navy": ((18, 26, 66),),
    "striped": ((20, 38, 28), (44, 64, 50)),
    "gradient": ((14, 12, 44), (66, 34, 62)),
}


# How far each motion goes (fractions of the shorter side; turns for spin; part of the size for grow and shrink) and the
# radii it is drawn with, for a thing alone and for one of two.
_TRAVEL = ((0.30, 0.48), (0.13, 0.22)), ((0.16, 0.34), (0.125, 0.16))
AMOUNTS: dict[str, tuple[tuple[tuple[float, float], tuple[float, float]], ...]] = {
    "left": _TRAVEL,
    "right": _TRAVEL,
    "up": _TRAVEL,
    "down": _TRAVEL,
    "bounce": (((0.16, 0.28), (0.13, 0.22)), ((0.16, 0.28), (0.125, 0.16))),
    "orbit": (((0.15, 0.26), (0.13, 0.2)), ((0.12, 0.17), (0.125, 0.15))),
    "spin": (((0.5, 0.8), (0.14, 0.24)), ((0.5, 0.8), (0.14, 0.18))),
    "grow": (((0.45, 0.6), (0.18, 0.28)), ((0.42, 0.52), (0.16, 0.2))),
    "shrink": (((0.45, 0.6), (0.18, 0.28)), ((0.42, 0.52), (0.16, 0.2))),
    "still": (((0.0, 0.0), (0.13, 0.24)), ((0.0, 0.0), (0.125, 0.18))),
}
SMALL, BIG = 0.15, 0.2  # radii under and over which a caption may say so

Combination = tuple[str, str, str]  # shape, colour, motion


def visible(shape: str, motion: str) -> bool:
    """Whether the motion of such a thing can be seen: nobody sees a circle spin."""
    return (shape, motion) != ("circle", "spin")


COMBINATIONS: tuple[Combination, ...] = tuple(c for c in product(SHAPES, COLOURS, MOTIONS) if visible(c[0], c[2]))
# One colour for each (shape, motion): every pair of attributes is seen in training, these triples never.
HELD_OUT: frozenset[Combination] = frozenset(
    c for c in COMBINATIONS if (list(SHAPES).index(c[0]) * 3 + list(COLOURS).index(c[1]) + list(MOTIONS).index(c[2])) % len(COLOURS) == 0
)
_POOLS: dict[str, tuple[Combination, ...]] = {
    "train": tuple(c for c in COMBINATIONS if c not in HELD_OUT),
    "held-out": tuple(c for c in COMBINATIONS if c in HELD_OUT),
    "all": COMBINATIONS,
}


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One shape and how it moves; `place` is (column, row) in fractions of the frame."""

    shape: str
    colour: str
    motion: str
    radius: float
    amount: float
    phase: float
    place: tuple[float, float] = (0.5, 0.5)

    @property
    def combination(self) -> Combination:
        return self.shape, self.colour, self.motion

    def pose(self, u: Array) -> Pose:
        return MOTIONS[self.motion](u, self.amount, self.phase)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a clip shows."""

    things: tuple[Thing, ...]
    background: str


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A scene, its caption and its frames (f h w c, uint8)."""

    scene: Scene
    caption: str
    video: NDArray[np.uint8]


# --- Scenes ---


def scene(seed: int, index: int, *, split: Split = "train", objects: int | None = None) -> Scene:
    """Scene `index` of the endless list that `seed` names; `objects` fixes their number (else one, or two in a quarter)."""
    if objects not in (None, 1, 2):
        raise UserError(f"A toybox scene has 1 or 2 objects, not {objects}.")
    rng = np.random.default_rng([seed, index, 1])
    number = objects or (2 if rng.random() < 0.25 else 1)
    pool = _POOLS[split]
    chosen = [pool[int(rng.integers(len(pool)))] for _ in range(number)]
    while number == 2 and chosen[0][:2] == chosen[1][:2]:  # two of a kind could not be told apart in words
        chosen[1] = pool[int(rng.integers(len(pool)))]
    background = list(BACKGROUNDS)[int(rng.integers(len(BACKGROUNDS)))]
    while True:  # about one draw in two fits for two things
        things = tuple(_thing(combination, rng, alone=number == 1) for combination in chosen)
        if number == 1 or _apart(*things):
            return Scene(things=things, background=background)


def crowd(seed: int, index: int) -> Scene:
    """A scene of one to eight things of the train split that may cover each other: what autoencoders learn most from."""
    rng = np.random.default_rng([seed, index, 6])
    chosen = [_POOLS["train"][int(rng.integers(len(_POOLS["train"])))] for _ in range(int(rng.integers(1, 9)))]
    background = list(BACKGROUNDS)[int(rng.integers(len(BACKGROUNDS)))]
    return Scene(things=tuple(_thing(combination, rng, alone=False) for combination in chosen), background=background)


_CHECKS = np.linspace(0, 1, 33, dtype=np.float32)


def _thing(combination: Combination, rng: np.random.Generator, *, alone: bool) -> Thing:
    shape, colour, motion = combination
    amounts, radii = AMOUNTS[motion][0 if alone else 1]
    radius, amount, phase = float(rng.uniform(*radii)), float(rng.uniform(*amounts)), float(rng.random())
    thing = Thing(shape=shape, colour=colour, motion=motion, radius=radius, amount=amount, phase=phase)
    pose = thing.pose(_CHECKS)
    reach = REACH * radius * pose.scale
    place = [float(rng.uniform(GAP / 3 - (way - reach).min(), 1 - GAP / 3 - (way + reach).max())) for way in (pose.x, pose.y)]
    if motion == "spin":
        room = TURNED_REACH.get(shape, REACH) * radius
        place = [min(max(way, room), 1 - room) for way in place]
    return replace(thing, place=(place[0], place[1]))


def _apart(a: Thing, b: Thing) -> bool:
    one, two = a.pose(_CHECKS), b.pose(_CHECKS)
    distance = np.hypot(a.place[0] + one.x - b.place[0] - two.x, a.place[1] + one.y - b.place[1] - two.y)
    return bool((distance >= REACH * (a.radius * one.scale + b.radius * two.scale) + GAP).all())


# --- Drawing ---


def render(what: Scene, size: Size, at: Array | None = None) -> NDArray[np.uint8]:
    """The frames of a scene, f h w c; `at` draws other moments than the evenly spread ones."""
    u = times(size.frames) if at is None else np.asarray(at, np.float32)
    video = np.repeat(background(what.background, size.rows, size.columns)[None], len(u), axis=0)
    for thing in what.things:
        draw(thing, video, u)
    return np.rint(video).astype(np.uint8)


def background(name: str, rows: int, columns: int) -> Array:
    """The picture of a background: h w c, 0 to 255."""
    colours = np.asarray(BACKGROUNDS[name], np.float32)
    y = (np.arange(rows, dtype=np.float32) + 0.5) / rows
    weight = (np.floor(y * 8) % 2 if name == "striped" else y)[:, None]
    column = colours[0] * (1 - weight) + colours[-1] * weight
    return np.repeat(column[:, None], columns, axis=1).astype(np.float32)


def draw(thing: Thing, video: Array, u: Array) -> None:
    colour = np.asarray(COLOURS[thing.colour], np.float32)

    def paint(x: Array, y: Array, scale: Array) -> tuple[Array, Array]:
        return np.clip(0.5 - SHAPES[thing.shape](x, y) * scale, 0, 1).astype(np.float32), colour

    blend(video, thing.pose(u), place=thing.place, radius=thing.radius, reach=max(TURNED_REACH.values()), paint=paint)


# --- Sentences ---

SHAPE_WORDS = {"circle": ("circle", "disc", "ball"), "square": ("square", "box"), "cross": ("cross", "plus sign")}
COLOUR_WORDS = {"purple": ("purple", "violet"), "cyan": ("cyan", "turquoise")}
_PATTERNS = (
    "{what}",
    "{what} on a {background} background",
    "on a {background} background, {what}",
    "a video of {what}",
    "in front of a {background} background, {what}",
)


def prompt(what: Scene) -> str:
    """The plain sentence for a scene: first words, no background."""
    return " and ".join(f"{article(t.colour)} {t.shape} {MOTION_WORDS[t.motion][0]}" for t in what.things)


def caption(what: Scene, rng: np.random.Generator, *, moving: bool = True) -> str:
    """One of many sentences for a scene; `moving=False` describes a picture of it, without its motion."""

    def pick(words: tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    def phrase(thing: Thing) -> str:
        size = "small" if thing.radius < SMALL else "big" if thing.radius > BIG else ""
        size = f"{size} " if size and rng.random() < 0.3 else ""
        colour = pick(COLOUR_WORDS.get(thing.colour, (thing.colour,)))
        words = article(f"{size}{colour} {pick(SHAPE_WORDS.get(thing.shape, (thing.shape,)))}")
        return f"{words} {pick(MOTION_WORDS[thing.motion])}" if moving else words

    pattern = pick(_PATTERNS)
    sentence = pattern.format(
        what=pick((" and ", " while ") if moving else (" and ",)).join(map(phrase, what.things)), background=what.background
    )
    return sentence if moving else sentence.replace("a video of", "a picture of")


def sentence(seed: int, index: int, *, split: Split = "train", objects: int | None = None) -> str:
    """The caption of clip `index`."""
    return caption(scene(seed, index, split=split, objects=objects), np.random.default_rng([seed, index, 3]))


def picture_sentence(seed: int, index: int, *, split: Split = "train") -> str:
    """The caption of picture `index`: it may or may not speak of motion."""
    rng = np.random.default_rng([seed, index, 4])
    return caption(scene(seed, index, split=split), rng, moving=bool(rng.random() < 0.5))


def clip(seed: int, index: int, size: Size, *, split: Split = "train", objects: int | None = None) -> Clip:
    """Clip `index` of the endless list that `seed` names."""
    what = scene(seed, index, split=split, objects=objects)
    return Clip(scene=what, caption=sentence(seed, index, split=split, objects=objects), video=render(what, size))


def picture(seed: int, index: int, size: Size, *, split: Split = "train") -> Clip:
    """One frame of clip `index`, at a moment of its own."""
    what = scene(seed, index, split=split)
    moment = np.random.default_rng([seed, index, 7]).random(1, np.float32)
    return Clip(scene=what, caption=picture_sentence(seed, index, split=split), video=render(what, size, at=moment))


def clips(seed: int, size: Size, *, start: int = 0, split: Split = "train") -> Iterator[Clip]:
    """The endless list itself."""
    index = start
    while True:
        yield clip(seed, index, size, split=split)
        index += 1


def sentences() -> Iterator[str]:
    """Every phrase a caption can be made of, for building a vocabulary."""
    for index in range(4096):
        what = scene(0, index, split="all")
        rng = np.random.default_rng([0, index, 5])
        yield caption(what, rng, moving=index % 4 != 0)
