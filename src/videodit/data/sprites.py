"""The sprites: endless captioned videos of things from a colour font and of the toybox's shapes, over plain and drawn backgrounds.

As in the toybox, clip i is a pure function of (seed, i), a scene has no extent, and places are fractions of the frame. A scene
shows one thing, two or three alike that move together, or two different ones, the first always left of the second. The boxes
around things stay inside the frame and `GAP` apart.
Promises that tests hold: nothing is drawn where it could hardly be seen (`things.HIDDEN`), nothing turns that looks alike turned, and the
pairs of thing and motion in `HELD_OUT` never appear in the train split, though every thing and every motion does.
Drawing needs pictures of the things (`data/glyphs.py`); scenes and sentences do not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videodit.data import glyphs, toybox
from videodit.data.drawing import MOTIONS, Array, Pose, blend, times
from videodit.data.glyphs import Pictures
from videodit.data.scenery import BACKGROUNDS, background
from videodit.data.things import HIDDEN, THINGS, UNTURNED
from videodit.shapes import Size, UserError

Split = Literal["train", "held-out", "all"]
Group = Literal["one", "alike", "beside"]

GAP = 0.05  # between two boxes, and a third of it to the edge, as a fraction of the shorter side
SHAPES, COLOURS = tuple(toybox.SHAPES), toybox.COLOURS
NOUNS: tuple[str, ...] = (*THINGS, *SHAPES)
REACH, TURNED = {True: 1.1, False: 1.0}, {True: 1.21, False: 1.42}  # in radii, of shapes and of pictures
TRIES = 64
SMALL, LARGE = 0.185, 0.235  # radii under and over which a caption of one thing may say so


class Range(NamedTuple):
    """Of a motion: how far it goes and the radii of what makes it, from least to most, for one thing, each of two, each of three."""

    amounts: tuple[tuple[float, float], ...]
    radii: tuple[tuple[float, float], ...]


_TRAVEL = Range(((0.28, 0.42), (0.16, 0.28), (0.16, 0.24)), ((0.16, 0.26), (0.125, 0.17), (0.11, 0.14)))
_SIZED = Range(((0.45, 0.6), (0.42, 0.52), (0.42, 0.5)), ((0.22, 0.3), (0.16, 0.2), (0.15, 0.17)))
RANGES: dict[str, Range] = {
    **dict.fromkeys(("left", "right", "up", "down"), _TRAVEL),
    "bounce": Range(((0.16, 0.28), (0.16, 0.26), (0.16, 0.24)), _TRAVEL.radii),
    "orbit": Range(((0.15, 0.22), (0.11, 0.15), (0.11, 0.14)), ((0.16, 0.25), (0.12, 0.15), (0.11, 0.13))),
    "spin": Range(((0.5, 0.8),) * 3, ((0.17, 0.26), (0.125, 0.15), (0.11, 0.125))),
    "grow": _SIZED,
    "shrink": _SIZED,
    "still": Range(((0.0, 0.0),) * 3, ((0.16, 0.28), (0.125, 0.19), (0.11, 0.15))),
}

Pair = tuple[str, str]  # noun, motion
PAIRS: tuple[Pair, ...] = tuple((noun, motion) for noun, motion in product(NOUNS, MOTIONS) if not (motion == "spin" and noun in UNTURNED))
# One motion of each thing: 3 and 10 have no common factor, so every motion is held out for a tenth of the things.
HELD_OUT: frozenset[Pair] = frozenset(
    (noun, motion) for noun, motion in PAIRS if (NOUNS.index(noun) + 3 * list(MOTIONS).index(motion)) % len(MOTIONS) == 0
)
_POOLS: dict[str, dict[bool, tuple[Pair, ...]]] = {
    split: {shape: tuple(pair for pair in pairs if (pair[0] in SHAPES) == shape) for shape in (True, False)}
    for split, pairs in {
        "train": [pair for pair in PAIRS if pair not in HELD_OUT],
        "held-out": [pair for pair in PAIRS if pair in HELD_OUT],
        "all": PAIRS,
    }.items()
}


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One thing and how it moves; shapes have a colour, and `place` is (column, row) in fractions of the frame."""

    noun: str
    colour: str = ""
    motion: str
    radius: float
    amount: float
    phase: float
    place: tuple[float, float] = (0.5, 0.5)

    @property
    def name(self) -> str:
        return f"{self.colour} {self.noun}".strip()

    @property
    def shape(self) -> str:
        """What labels call it."""
        return self.noun

    @property
    def reach(self) -> float:
        """Half the side of the box around it, in radii."""
        return (TURNED if self.motion == "spin" else REACH)[self.noun in SHAPES]

    def pose(self, u: Array) -> Pose:
        return MOTIONS[self.motion](u, self.amount, self.phase)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a clip shows; of a group beside each other the first thing is the left one."""

    things: tuple[Thing, ...]
    background: str
    group: Group = "one"


def size_of(thing: Thing) -> str:
    """What may be said of the size of one thing; one that grows or shrinks has none."""
    sized = thing.motion not in ("grow", "shrink")
    return "small" if sized and thing.radius < SMALL else "large" if sized and thing.radius > LARGE else ""


# --- Scenes ---


_GROUPS: dict[int | None, Group] = {1: "one", 3: "alike"}  # where the number tells


def scene(seed: int, index: int, *, split: Split = "train", group: Group | None = None, objects: int | None = None) -> Scene:
    """Scene `index` of the endless list that `seed` names; `group` and `objects` fix what else is drawn: half of all have one thing."""
    if objects not in (None, 1, 2, 3):
        raise UserError(f"A scene of sprites has 1, 2 or 3 objects, not {objects}.")
    rng = np.random.default_rng([seed, index, 1])
    chance, third = rng.random(2)
    chance = (1 + chance) / 2 if objects == 2 else chance  # never one thing
    group = group or _GROUPS.get(objects) or ("one" if chance < 0.5 else "alike" if chance < 0.75 else "beside")
    number = {"one": 1, "beside": 2, "alike": objects or (2 if third < 0.6 else 3)}[group]
    while True:
        kinds = [_kind(rng, split) for _ in range(2 if group == "beside" else 1)]
        names = [name for name in BACKGROUNDS if not any({noun, colour} & set(HIDDEN.get(name, ())) for noun, colour, _ in kinds)]
        if not names or (group == "beside" and kinds[0][:2] == kinds[1][:2]):
            continue
        behind = names[int(rng.integers(len(names)))]
        for _ in range(TRIES):
            made = [_thing(kind, number, rng) for kind in kinds]
            if things := _beside(made[0], made[1], rng) if group == "beside" else _alike(made[0], number, rng):
                return Scene(things=things, background=behind, group=group)


def crowd(seed: int, index: int) -> Scene:
    """A scene of one to six things of the train split that may cover each other: what autoencoders learn most from."""
    rng = np.random.default_rng([seed, index, 6])
    number = int(rng.integers(1, 7))
    things: list[Thing] = []
    while len(things) < number:
        things += _alike(_thing(_kind(rng, "train"), int(rng.integers(1, 4)), rng), 1, rng)
    return Scene(things=tuple(things), background=BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))], group="alike")


def _kind(rng: np.random.Generator, split: Split) -> tuple[str, str, str]:
    """Noun, colour and motion; every sixth thing is a shape."""
    shape = bool(rng.random() < 1 / 6)
    pool = _POOLS[split][shape]
    noun, motion = pool[int(rng.integers(len(pool)))]
    return noun, list(COLOURS)[int(rng.integers(len(COLOURS)))] if shape else "", motion


def _thing(kind: tuple[str, str, str], number: int, rng: np.random.Generator) -> Thing:
    noun, colour, motion = kind
    amounts, radii = (part[number - 1] for part in RANGES[motion])
    radius, amount, phase = float(rng.uniform(*radii)), float(rng.uniform(*amounts)), float(rng.random())
    return Thing(noun=noun, colour=colour, motion=motion, radius=radius, amount=amount, phase=phase)


_CHECKS = np.linspace(0, 1, 33, dtype=np.float32)


def _room(thing: Thing) -> tuple[Array, Array, Pose, Array]:
    """The least and most of its place (column, row) that keep its box inside the frame, its pose, and half the side of its box."""
    pose = thing.pose(_CHECKS)
    reach = thing.reach * thing.radius * pose.scale
    low = np.array([GAP / 3 - (way - reach).min() for way in (pose.x, pose.y)])
    return low, np.array([1 - GAP / 3 - (way + reach).max() for way in (pose.x, pose.y)]), pose, reach


def _alike(thing: Thing, number: int, rng: np.random.Generator) -> tuple[Thing, ...]:
    """So many of it that move together, their boxes apart in columns or in rows; none where no place was found."""
    low, high, _, reach = _room(thing)
    if (high < low).any():
        return ()
    places = rng.uniform(low, high, (TRIES, number, 2))
    away = abs(places[:, :, None] - places[:, None]).max(-1) + 9 * np.eye(number)
    for some in places[(away >= 2 * reach.max() + GAP).all((1, 2))][:1]:
        return tuple(replace(thing, place=(float(x), float(y))) for x, y in some)
    return ()


def _beside(left: Thing, right: Thing, rng: np.random.Generator) -> tuple[Thing, ...]:
    """The two with their boxes apart in columns always, what moves alike moving together; none where there is no room."""
    if left.motion == right.motion:
        right = replace(right, amount=left.amount, phase=left.phase)
    (low, high, pose, reach), (other_low, other_high, other_pose, other_reach) = _room(left), _room(right)
    apart = float((reach + other_reach + GAP - (other_pose.x - pose.x)).max())
    most = min(high[0], other_high[0] - apart)
    if most < low[0]:
        return ()
    x = float(rng.uniform(low[0], most))
    other = float(rng.uniform(max(other_low[0], x + apart), other_high[0]))
    rows = float(rng.uniform(low[1], high[1])), float(rng.uniform(other_low[1], other_high[1]))
    return replace(left, place=(x, rows[0])), replace(right, place=(other, rows[1]))


# --- Drawing ---


def render(what: Scene, size: Size, pictures: Pictures, at: Array | None = None) -> NDArray[np.uint8]:
    """The frames of a scene, f h w c; `at` draws other moments than the evenly spread ones."""
    u = times(size.frames) if at is None else np.asarray(at, np.float32)
    video = np.repeat(background(what.background, size.rows, size.columns)[None], len(u), axis=0)
    for thing in what.things:
        draw(thing, video, u, pictures)
    return np.rint(np.clip(video, 0, 255)).astype(np.uint8)


def draw(thing: Thing, video: Array, u: Array, pictures: Pictures) -> None:
    """Blend a thing into every frame."""
    if thing.noun in SHAPES:
        way = {"radius": thing.radius, "amount": thing.amount, "phase": thing.phase, "place": thing.place}
        return toybox.draw(toybox.Thing(shape=thing.noun, colour=thing.colour, motion=thing.motion, **way), video, u)
    picture = pictures(thing.noun)

    def paint(x: Array, y: Array, scale: Array) -> tuple[Array, Array]:
        seen = glyphs.sample(picture, x, y, scale)
        return seen[..., 3], 255 * seen[..., :3] / np.maximum(seen[..., 3:], 1e-3)

    blend(video, thing.pose(u), place=thing.place, radius=thing.radius, reach=TURNED[False], paint=paint)
