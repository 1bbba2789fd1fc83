"""The worlds that are drawn, each asked the same: clip i and picture i of the endless list that a seed names, their sentences."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videodit.data import drawing, glyphs, scenery, sprites, sprites_words, things, toybox
from videodit.data.drawing import Array, times
from videodit.data.sources import Drawn, Source, Sprites, Toybox
from videodit.shapes import Size

SPOKEN = 16384  # sentences that a vocabulary of the sprites is learnt from


class Clip(NamedTuple):
    """A scene, its caption and its frames (f h w c, uint8)."""

    scene: Any
    caption: str
    video: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class World:
    """What is drawn; scenes are opaque here."""

    scene: Callable[..., Any]  # seed, index, split
    crowd: Callable[[int, int], Any]
    prompt: Callable[..., str]  # scene: its plain sentence
    caption: Callable[..., str]  # scene, chance, moving
    render: Callable[..., NDArray[np.uint8]]  # scene, size, at
    sentences: Callable[[], Iterator[str]]  # for building a vocabulary
    names: dict[str, tuple[str, ...]]  # attributes of the first thing that labels may name
    content: Callable[[], str]  # a digest of all that decides what is drawn

    def sentence(self, seed: int, index: int, *, split: str = "train") -> str:
        """The caption of clip `index`."""
        return self.caption(self.scene(seed, index, split=split), np.random.default_rng([seed, index, 3]))

    def picture_sentence(self, seed: int, index: int, *, split: str = "train") -> str:
        """The caption of picture `index`: it may or may not speak of motion."""
        rng = np.random.default_rng([seed, index, 4])
        return self.caption(self.scene(seed, index, split=split), rng, moving=bool(rng.random() < 0.5))

    def clip(self, seed: int, index: int, size: Size, *, split: str = "train") -> Clip:
        what = self.scene(seed, index, split=split)
        return Clip(what, self.sentence(seed, index, split=split), self.render(what, size))

    def picture(self, seed: int, index: int, size: Size, *, split: str = "train") -> Clip:
        """One frame of clip `index`, at a moment of its own."""
        what = self.scene(seed, index, split=split)
        moment = np.random.default_rng([seed, index, 7]).random(1, np.float32)
        return Clip(what, self.picture_sentence(seed, index, split=split), self.render(what, size, at=moment))


def world(source: Drawn) -> World:
    """The world that a source names."""
    return _toybox() if isinstance(source, Toybox) else _sprites(source)


def _toybox() -> World:
    return World(
        scene=toybox.scene,
        crowd=toybox.crowd,
        prompt=toybox.prompt,
        caption=toybox.caption,
        render=toybox.render,
        sentences=lambda: toybox.sentences(),
        names={"motion": tuple(toybox.MOTIONS), "shape": tuple(toybox.SHAPES), "colour": tuple(toybox.COLOURS)},
        content=lambda: _digest((toybox, drawing)).hexdigest(),
    )


def _sprites(source: Sprites) -> World:
    def render(what: sprites.Scene, size: Size, at: Array | None = None) -> NDArray[np.uint8]:
        return sprites.render(what, size, glyphs.pictures(source.font), at=at)

    def sentences() -> Iterator[str]:
        for index in range(SPOKEN):
            what, rng = sprites.scene(0, index, split="all"), np.random.default_rng([0, index, 5])
            yield sprites_words.caption(what, rng, moving=index % 4 != 0)

    def content() -> str:
        digest = _digest((toybox, drawing, scenery, things, glyphs, sprites, sprites_words))
        digest.update(glyphs.digest(source.font).encode())
        return digest.hexdigest()

    return World(
        scene=sprites.scene,
        crowd=sprites.crowd,
        prompt=sprites_words.prompt,
        caption=sprites_words.caption,
        render=render,
        sentences=sentences,
        names={"motion": tuple(toybox.MOTIONS), "shape": sprites.NOUNS},
        content=content,
    )


def _digest(modules: tuple[ModuleType, ...]) -> hashlib._Hash:
    digest = hashlib.sha256()
    for module in modules:
        digest.update(inspect.getsource(module).encode())
    return digest


def origin(source: Source) -> str:
    """What a source is, with its licence where that is known here."""
    if isinstance(source, Toybox):
        return "the toybox: shapes drawn by this project (Apache-2.0)"
    if not isinstance(source, Sprites):
        return f"{source.path}: files, of whose licence nothing is known here"
    name = glyphs.family(source.font)
    licence = "SIL Open Font License 1.1" if name == "Noto Color Emoji" else "its licence is not known here"
    return f"the sprites: scenes drawn by this project (Apache-2.0) with the glyphs of {name} ({licence})"


# --- For learning to compress ---


def moment(world: World, seed: int, size: Size, index: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A moment of a crowded scene."""
    return world.render(world.crowd(seed, index), size, at=rng.random(1, np.float32))


def paced(world: World, seed: int, size: Size, index: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A clip: crowds in every second one, speeds from half to all of a motion."""
    what = world.crowd(seed, index) if index % 2 else world.scene(seed, index)
    pace = rng.uniform(0.5, 1.0)
    return world.render(what, size, at=rng.uniform(0, 1 - pace) + pace * times(size.frames))
