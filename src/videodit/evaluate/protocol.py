"""What a score depends on, beside what is scored: protocols by name, and the card that every score carries, of whichever kind.

A score is of something (`fake`: videos, a model, an autoencoder), which stands beside its card; what else changes its figures is in it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from videodit.config import setting
from videodit.diffusion.guidance import Guidance
from videodit.evaluate.asked import Named, Prompts, Task
from videodit.evaluate.kernel import Subsets
from videodit.evaluate.sets import Taken
from videodit.record import versions

OWN: Named = "own"
READING = ("videodit", "torch", "numpy", "pillow", "av")  # what every figure depends on


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is taken of both sets; the generated one is usually at its own interval already."""

    name: str = OWN
    real: Taken = setting(Taken(), doc="of the real set")
    fake: Taken = setting(Taken(), doc="of the generated set")

    def changed(self, **given: Any) -> Protocol:
        """The same but for what is given; a named protocol that is changed is one's own."""
        given = {name: value for name, value in given.items() if value is not None}
        both = {name: value for name, value in given.items() if name != "every"}
        changed = Protocol(name=OWN, real=replace(self.real, **given), fake=replace(self.fake, **both))
        return self if (changed.real, changed.fake) == (self.real, self.fake) else changed


def _named(name: Named, *, every: int = 1, **both: Any) -> Protocol:
    return Protocol(name=name, real=Taken(every=every, **both), fake=Taken(**both))


PROTOCOLS: dict[Named, Protocol] = {
    OWN: Protocol(),
    # LAVITA: 2,048 clips of 16 frames at an interval of 3; generated clips have that interval already
    "stylegan-v": _named("stylegan-v", count=2048, frames=16, every=3, size=(256, 256)),
    # VideoDiT states neither the number of clips nor their extent: 2,048 of 16 frames are ours
    "ucf101-zero-shot": _named("ucf101-zero-shot", count=2048, frames=16, size=(256, 256)),
}


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """How features become a number, and how sure it is."""

    subsets: Subsets = setting(Subsets(), doc="of a kernel distance")
    splits: int = setting(10, doc="parts that an inception score is the mean of; clip i is of part i mod splits")
    kept: int = setting(8192, doc="clips whose features are kept, for subsets and intervals")
    resamples: int = setting(100, doc="times that clips are drawn again, for the interval")
    confidence: float = setting(0.95, doc="share of those that the interval holds")
    seed: int = setting(0, doc="of which clips are kept and drawn again")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Scenes of a drawn world that a model is asked for."""

    world: str
    prompts: Prompts
    task: Task
    count: int
    frames: int
    every: int = 1


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """How a model makes its videos."""

    sampler: str
    steps: int
    guidance: Guidance
    seed: int


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """Clips that go through an autoencoder and back; `frames`: at most so many of each, none for all."""

    count: int
    frames: int | None
    every: int = 1
    size: tuple[int, int] | None
    resize: str = "bicubic, antialiased"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What looked at the clips; where it has no weights there is no digest."""

    name: str
    digest: str
    takes: str  # what it makes of frames: resize, kernel, range


@dataclass(frozen=True, kw_only=True)
class Card:
    """All that a score depends on but what is scored."""

    measure: str
    protocol: str
    extractor: Seen
    real: Taken | Asked | Rebuilt
    fake: Taken | Sampled | None
    real_digest: str
    extent: tuple[int, int] | None  # rows and columns of what was looked at, if those of all clips are one
    crop: str = "middle, after resizing to cover"
    words: str = ""  # digest of what the clips were asked for by, or held against
    estimator: Estimator
    versions: Mapping[str, str]


def depended(*more: str) -> dict[str, str]:
    """Versions of what figures depend on; `more`: packages that not every kind of score uses."""
    return {"python": platform.python_version(), **versions(*READING, *more)}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number, how sure it is, and what is had for nothing."""

    value: float
    interval: tuple[float, float] | None
    floor: float | None


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number with all that it takes to believe it."""

    value: float
    interval: tuple[float, float] | None
    floor: float | None  # the same of two halves of the real set, or what else is had for nothing
    fake: str
    fake_digest: str
    card: Card
    more: Mapping[str, Any]
    figures: Mapping[str, Figure]  # of a score of several numbers all of them, by where they stand; the one above is the first

    @property
    def told(self) -> dict[str, Any]:
        """As it stands in a file."""
        return {"measure": self.card.measure, **asdict(self)}


def of_figures(figures: Mapping[str, Mapping[str, Any]], **rest: Any) -> Score:
    """A score of several numbers, each as a table, of which the first stands for it."""
    found = {name: Figure(**figure) for name, figure in figures.items()}
    first = next(iter(found.values()))
    return Score(value=first.value, interval=first.interval, floor=first.floor, more={}, figures=found, **rest)
