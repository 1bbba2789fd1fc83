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

from videodit.shapes import Size, UserError

Array = NDArray[np.floating]
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


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a thing is over time: offsets from its place, scale and turn (radians), each of shape (f,)."""

    x: Array
    y: Array
    scale: Array
    angle: Array


def _pose(u: Array, x: Array | float = 0.0, y: Array | float = 0.0, scale: Array | float = 1.0, angle: Array | float = 0.0) -> Pose:
    parts = {"x": x, "y": y, "scale": scale, "angle": angle}
    return Pose(**{name: np.broadcast_to(np.asarray(value, np.float32), u.shape) for name, value in parts.items()})


# A motion: (time in 0..1, amount, phase in 0..1) -> pose.
MOTIONS: dict[str, Callable[[Array, float, float], Pose]] = {
    "left": lambda u, amount, phase: _pose(u, x=-amount * (u - 0.5)),
    "right": lambda u, amount, phase: _pose(u, x=amount * (u - 0.5)),
    "up": lambda u, amount, phase: _pose(u, y=-amount * (u - 0.5)),
    "down": lambda u, amount, phase: _pose(u, y=amount * (u - 0.5)),
    "bounce": lambda u, amount, phase: _pose(u, y=-amount * abs(np.sin(2 * np.pi * u))),
    "orbit": lambda u, amount, phase: _pose(
        u, x=amount * np.cos(2 * np.pi * (_way(phase) * u + phase)), y=amount * np.sin(2 * np.pi * (_way(phase) * u + phase))
    ),
    "spin": lambda u, amount, phase: _pose(u, angle=2 * np.pi * amount * _way(phase) * u),
    "grow": lambda u, amount, phase: _pose(u, scale=1 - amount * (1 - u)),
    "shrink": lambda u, amount, phase: _pose(u, scale=1 - amount * u),
    "still": lambda u, amount, phase: _pose(u),
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


def _way(phase: float) -> float:
    return 1.0 if phase * 8 % 1 < 0.5 else -1.0


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


def times(frames: int) -> Array:
    """The times of a clip's frames: 0 at the first, 1 at the last."""
    return np.linspace(0, 1, frames, dtype=np.float32) if frames > 1 else np.zeros(1, np.float32)


def render(what: Scene, size: Size, at: Array | None = None) -> NDArray[np.uint8]:
    """The frames of a scene, f h w c; `at` draws other moments than the evenly spread ones."""
    u = times(size.frames) if at is None else np.asarray(at, np.float32)
    video = np.repeat(background(what.background, size.rows, size.columns)[None], len(u), axis=0)
    for thing in what.things:
        _draw(thing, video, u)
    return np.rint(video).astype(np.uint8)


def background(name: str, rows: int, columns: int) -> Array:
    """The picture of a background: h w c, 0 to 255."""
    colours = np.asarray(BACKGROUNDS[name], np.float32)
    y = (np.arange(rows, dtype=np.float32) + 0.5) / rows
    weight = (np.floor(y * 8) % 2 if name == "striped" else y)[:, None]
    column = colours[0] * (1 - weight) + colours[-1] * weight
    return np.repeat(column[:, None], columns, axis=1).astype(np.float32)


def _draw(thing: Thing, video: Array, u: Array) -> None:
    """Blend a thing into every frame, with edges one pixel soft; only a window around it is computed."""
    rows, columns = video.shape[1:3]
    short, pose = min(rows, columns), thing.pose(u)
    radius = thing.radius * short * pose.scale
    centre_x, centre_y = thing.place[0] * columns + pose.x * short, thing.place[1] * rows + pose.y * short
    reach = int(np.ceil(max(TURNED_REACH.values()) * radius.max())) + 2
    left, top = np.floor(centre_x).astype(int) - reach, np.floor(centre_y).astype(int) - reach
    window = np.arange(2 * reach + 1, dtype=np.float32) + 0.5
    x = (left - centre_x)[:, None, None] + window[None, None, :]
    y = (top - centre_y)[:, None, None] + window[None, :, None]
    cos, sin = np.cos(pose.angle)[:, None, None], np.sin(pose.angle)[:, None, None]
    scale = radius[:, None, None]
    distance = SHAPES[thing.shape]((cos * x + sin * y) / scale, (cos * y - sin * x) / scale) * scale
    cover, colour = np.clip(0.5 - distance, 0, 1).astype(np.float32), np.asarray(COLOURS[thing.colour], np.float32)
    for f in range(len(u)):
        y0, y1 = max(top[f], 0), min(top[f] + 2 * reach + 1, rows)
        x0, x1 = max(left[f], 0), min(left[f] + 2 * reach + 1, columns)
        alpha = cover[f, y0 - top[f] : y1 - top[f], x0 - left[f] : x1 - left[f], None]
        region = video[f, y0:y1, x0:x1]
        region += alpha * (colour - region)


# --- Sentences ---

_SHAPE_WORDS = {"circle": ("circle", "disc", "ball"), "square": ("square", "box"), "cross": ("cross", "plus sign")}
_COLOUR_WORDS = {"purple": ("purple", "violet"), "cyan": ("cyan", "turquoise")}
_MOTION_WORDS: dict[str, tuple[str, ...]] = {
    **{
        way: (f"moves {way}", f"slides {way}", f"is moving {way}", f"goes {way}", f"travels {way}")
        for way in ("left", "right", "up", "down")
    },
    "bounce": ("bounces", "is bouncing", "bounces up and down", "hops up and down"),
    "orbit": ("orbits", "is orbiting", "goes round and round", "orbits around"),
    "spin": ("spins", "is spinning", "rotates", "is rotating", "turns in place"),
    "grow": ("grows", "is growing", "gets bigger", "becomes larger"),
    "shrink": ("shrinks", "is shrinking", "gets smaller", "becomes smaller"),
    "still": ("stays still", "stands still", "does not move", "rests"),
}
_MOTION_WORDS |= {way: (*_MOTION_WORDS[way], f"moves to the {way}") for way in ("left", "right")}
_PATTERNS = (
    "{what}",
    "{what} on a {background} background",
    "on a {background} background, {what}",
    "a video of {what}",
    "in front of a {background} background, {what}",
)


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"


def prompt(what: Scene) -> str:
    """The plain sentence for a scene: first words, no background."""
    return " and ".join(f"{_article(t.colour)} {t.shape} {_MOTION_WORDS[t.motion][0]}" for t in what.things)


def caption(what: Scene, rng: np.random.Generator, *, moving: bool = True) -> str:
    """One of many sentences for a scene; `moving=False` describes a picture of it, without its motion."""

    def pick(words: tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    def phrase(thing: Thing) -> str:
        size = "small" if thing.radius < SMALL else "big" if thing.radius > BIG else ""
        size = f"{size} " if size and rng.random() < 0.3 else ""
        colour = pick(_COLOUR_WORDS.get(thing.colour, (thing.colour,)))
        words = _article(f"{size}{colour} {pick(_SHAPE_WORDS.get(thing.shape, (thing.shape,)))}")
        return f"{words} {pick(_MOTION_WORDS[thing.motion])}" if moving else words

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
