"""What is said of scenes of the sprites: sentences of several patterns, in singular and plural."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from videodit.data import toybox
from videodit.data.drawing import MOTION_WORDS
from videodit.data.scenery import PLACES
from videodit.data.sprites import Scene, Thing, size_of
from videodit.data.things import article, plural, together

Pick = Callable[[tuple[str, ...]], str]

_FLYING = {way: (f"flies {way}", f"is flying {way}") for way in ("left", "right", "up", "down")}
MOTIONS: dict[str, tuple[str, ...]] = {motion: (*words, *_FLYING.get(motion, ())) for motion, words in MOTION_WORDS.items()}
SIZES = {"": ("",), "small": ("small ", "little "), "large": ("large ", "big ")}
COUNTS = {2: "two", 3: "three"}
_MOVING = ("on the left {a} {m}, on the right {b} {n}", "{a} {m} on the left and {b} {n} on the right")
_ALIKE = ("{a} left of {b}, both {both}", "{b} right of {a}, both {both}", "{a} to the left of {b}, both {both}")
_PICTURED = ("{a} left of {b}", "{b} right of {a}", "{a} to the left of {b}", "{a} on the left and {b} on the right")
_PATTERNS = ("{what} {where}", "{where}, {what}", "{what}", "a video of {what} {where}", "{what} {where}")


def prompt(what: Scene) -> str:
    """The plain sentence for a scene: first words, with its background, sizes unsaid."""
    return f"{_said(what, lambda words: words[0], sized=False, moving=True)} {PLACES[what.background][0]}"


def caption(what: Scene, rng: np.random.Generator, *, moving: bool = True) -> str:
    """One of many sentences for a scene; `moving=False` describes a picture of it, without its motion."""

    def pick(words: tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    said = _said(what, pick, sized=bool(rng.random() < 0.5), moving=moving)
    sentence = pick(_PATTERNS).format(what=said, where=pick(PLACES[what.background]))
    return sentence if moving else sentence.replace("a video of", "a picture of")


def _said(what: Scene, pick: Pick, *, sized: bool, moving: bool) -> str:
    """The things and what they do."""
    first, last = what.things[0], what.things[-1]
    if what.group == "beside":
        alike = first.motion == last.motion
        patterns = _PICTURED if not moving else _ALIKE if alike and pick(("both", "each")) == "both" else _MOVING
        m, n = pick(MOTIONS[first.motion]), pick(MOTIONS[last.motion])
        return pick(patterns).format(a=article(_named(first, pick)), b=article(_named(last, pick)), m=m, n=n, both=together(n))
    does = pick(MOTIONS[first.motion])
    if len(what.things) > 1:
        several = f"{COUNTS[len(what.things)]} {plural(_named(first, pick))}"
        return f"{several} {together(does)}" if moving else several
    one = article((pick(SIZES[size_of(first)]) if sized else "") + _named(first, pick))
    return f"{one} {does}" if moving else one


def _named(thing: Thing, pick: Pick) -> str:
    noun = pick(toybox.SHAPE_WORDS.get(thing.noun, (thing.noun,)))
    return f"{pick(toybox.COLOUR_WORDS.get(thing.colour, (thing.colour,)))} {noun}".strip()
