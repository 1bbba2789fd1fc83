"""What a score depends on, beside what is scored: protocols by name, the card that every score carries, and comparing by it.

Two scores can be compared when their cards are equal, field by field; a difference is refused by its dotted name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from videodit.config import setting
from videodit.evaluate.kernel import Subsets
from videodit.evaluate.sets import Taken
from videodit.shapes import UserError

OWN = "own"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is taken of both sets; the generated one is usually at its own interval already."""

    name: str = OWN
    real: Taken = setting(Taken(), doc="of the real set")
    fake: Taken = setting(Taken(), doc="of the generated set")

    def changed(self, **given: Any) -> Protocol:
        """The same but for what is given; a named protocol that is changed is one's own."""
        given = {name: value for name, value in given.items() if value is not None}
        if not given:
            return self
        both = {name: value for name, value in given.items() if name != "every"}
        real = replace(self.real, **given)
        return Protocol(name=OWN, real=real, fake=replace(self.fake, **both))


def _named(name: str, *, every: int = 1, **both: Any) -> Protocol:
    return Protocol(name=name, real=Taken(every=every, **both), fake=Taken(**both))


PROTOCOLS: dict[str, Protocol] = {
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
class Seen:
    """What looked at the clips."""

    name: str
    digest: str
    takes: str  # what it makes of frames: resize, kernel, range


@dataclass(frozen=True, kw_only=True)
class Card:
    """All that a score depends on but what is scored."""

    measure: str
    protocol: str
    extractor: Seen
    real: Taken
    fake: Taken
    real_digest: str
    crop: str = "middle, after resizing to cover"
    estimator: Estimator
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number with all that it takes to believe it."""

    value: float
    interval: tuple[float, float] | None
    floor: float | None  # the same of two halves of the real set
    fake: str
    fake_digest: str
    card: Card
    more: Mapping[str, Any]

    @property
    def told(self) -> dict[str, Any]:
        """As it stands in a file."""
        return {"measure": self.card.measure, **asdict(self)}


def compared(one: Mapping[str, Any], other: Mapping[str, Any], despite: Sequence[str] = ()) -> dict[str, Any]:
    """Two scores side by side, if all their cards say is the same; `despite`: names of fields that may differ."""
    cards = [dict(_fields(score["card"])) for score in (one, other)]
    names = [name for name in {**cards[0], **cards[1]} if not any(name == field or name.startswith(f"{field}.") for field in despite)]
    apart = [name for name in names if cards[0].get(name) != cards[1].get(name)]
    if apart:
        said = [json.dumps(card.get(apart[0])) for card in cards]
        more = f" ({len(apart) - 1} more: {', '.join(apart[1:])})" if apart[1:] else ""
        raise UserError(
            f"These scores cannot be compared: {apart[0]} is {said[0]} in one and {said[1]} in the other{more}; "
            f"measure both alike, or say --despite {apart[0]}."
        )
    values = [float(score["value"]) for score in (one, other)]
    spans = [score["interval"] for score in (one, other)]
    overlap = None if None in spans else spans[0][0] <= spans[1][1] and spans[1][0] <= spans[0][1]
    found = {"measure": one["measure"], "values": values, "intervals": spans, "difference": values[1] - values[0]}
    return {**found, "overlap": overlap, "floor": one["floor"], "despite": list(despite)}


def read(path: Path) -> dict[str, Any]:
    """A score file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        spans = found["interval"], found["floor"], found["measure"]
        if not isinstance(found["card"], dict) or not isinstance(found["value"], (int, float)) or not isinstance(spans[0], list | None):
            raise ValueError("its card is no table, or its value no number")
    except FileNotFoundError:
        raise UserError(f"There is no file {path}: name scores that `videodit evaluate ... --out FILE` wrote.") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        said = " ".join(str(error).split())[:80]
        raise UserError(f"{path} is no score ({said}): name one that `videodit evaluate ... --out FILE` wrote.") from None
    return found


def _fields(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a table by its dotted name; as JSON has it, so that what is read back is equal."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", json.loads(json.dumps(value))
