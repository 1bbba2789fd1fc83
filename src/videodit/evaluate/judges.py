"""The judges of the drawn worlds, each asked the same: which scenes to ask for, and what of a scene a video shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videodit.data import worlds
from videodit.data.sources import Drawn, Toybox
from videodit.data.worlds import World
from videodit.evaluate import sprites, sprites_things, toybox
from videodit.evaluate.asked import Prompts
from videodit.evaluate.toybox import table

SEED = 20_000  # of the scenes that are asked for: no training run has it


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Scenes are the world's, verdicts its own; a score says what of a scene a verdict names rightly, None where nothing was asked."""

    name: str  # of the world
    world: World
    parts: tuple[str, ...]  # of a score; `all` of them is one more
    drawn: dict[Prompts, dict[str, Any]]  # which scenes of the world
    judge: Callable[..., Any]  # video
    score: Callable[..., dict[str, Any]]  # verdict, scene
    weights: Path | None = None  # of what names things, where a network does

    def scenes(self, prompts: Prompts, count: int) -> list[Any]:
        """The scenes whose prompts are asked: held out of training, like those of it, or two different things from it."""
        return [self.world.scene(SEED, i, **self.drawn[prompts]) for i in range(count)]

    def rates(self, scores: Iterable[dict[str, Any]], *, still: bool = False) -> dict[str, float | None]:
        """In 0..1, of the scenes that asked for a part."""
        means = table(self.of_pictures(scores) if still else scores)
        return {name: round(means[name], 4) if name in means else None for name in (*self.parts, "all")}

    def of_pictures(self, scores: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """The scores of pictures, which have no motion; all is the other parts."""
        seen = {*self.parts, "count"} - {"motion"}  # one thing more is wrong in a picture too
        return [one | {"motion": None, "all": all(one[name] is not False for name in seen)} for one in scores]


def judge(source: Drawn) -> Judge:
    """The judge of the world that a source names."""
    if isinstance(source, Toybox):
        return TOYBOX
    return Judge(
        name="sprites",
        world=worlds.world(source),
        parts=("object", "colour", "motion", "background", "count", "place"),
        drawn={"held-out": {"split": "held-out"}, "seen": {}, "two": {"group": "beside"}},
        judge=sprites.judge,
        score=sprites.score,
        weights=sprites_things.WEIGHTS,
    )


TOYBOX = Judge(
    name="toybox",
    world=worlds.world(Toybox()),
    parts=("shape", "colour", "motion"),
    drawn={"held-out": {"split": "held-out", "objects": 1}, "seen": {"objects": 1}, "two": {"objects": 2}},
    judge=toybox.judge,
    score=toybox.score,
)
