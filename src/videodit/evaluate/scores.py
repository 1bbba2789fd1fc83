"""A score from two sets of clips: features gathered part by part, a distance, its floor and its interval, and the card of all that.

The floor is the same distance between two halves of the real set, clips with even and with odd numbers; each half has half the clips, and
Frechet distances fall with their number, so it is above what two whole real sets would have. An inception score, which is no distance, has
the lower score of two such halves. What a score is off by for having few clips is not in its interval.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from videodit.evaluate.extractors import Clips, Extractor, Looked
from videodit.evaluate.features import Features
from videodit.evaluate.frechet import frechet, frechet_of_rows
from videodit.evaluate.inception import Answers
from videodit.evaluate.intervals import interval
from videodit.evaluate.kernel import Subsets, kernel_distance, too_few
from videodit.evaluate.protocol import Card, Estimator, Protocol, Score, Seen, depended
from videodit.evaluate.sets import Set
from videodit.shapes import UserError

Progress = Callable[[int, int], None]
BATCH = 8  # clips that are looked at together
SAVED = 8  # batches between two saves of a state
PATIENCE = 6 * 3600.0  # seconds that the first process waits for the others
BRIEF = 10  # subsets for each resample of a kernel distance


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A score: which distance, and the extractors that give it its name."""

    distance: str
    proper: tuple[str, ...]

    def label(self, verb: str, extractor: str) -> str:
        return verb if extractor in self.proper else f"{self.distance}[{extractor}]"


MEASURES: dict[str, Measure] = {
    "fvd": Measure(distance="frechet", proper=("i3d",)),
    "fid": Measure(distance="frechet", proper=("inception-v3",)),
    "kvd": Measure(distance="kernel", proper=("i3d",)),
    "kid": Measure(distance="kernel", proper=("inception-v3",)),
    "is": Measure(distance="inception", proper=("inception-v3", "c3d-ucf101")),
    "motion": Measure(distance="frechet", proper=("flow",)),
}


def measured(
    verb: str,
    real: Set,
    fake: Set,
    extractor: Extractor,
    protocol: Protocol,
    estimator: Estimator,
    *,
    state: Path | None = None,
    progress: Progress | None = None,
) -> Score | None:
    """The score; none in a process that only helped another."""
    what = MEASURES[verb]
    if real.extent != fake.extent:
        one, other = ("x".join(map(str, chosen.extent)) for chosen in (real, fake))
        raise UserError(f"{real.name} is {one} and {fake.name} {other}, and extent changes every score: give both one extent by --size.")
    looking = Looking(
        together=BATCH,
        seen=extractor.seen,
        look=lambda _, clips: extractor.look(clips),
        needs=extractor.needs,
        classifies=what.distance == "inception",
        least=estimator.subsets.size if what.distance == "kernel" else 0,
    )
    sets = [gathered(chosen, name, looking, estimator, state, progress) for name, chosen in (("real", real), ("fake", fake))]
    if sets[0] is None or sets[1] is None:
        return None
    value, floor, span, more = DISTANCES[what.distance](sets[0], sets[1], estimator)
    card = carded(what.label(verb, extractor.seen.name), protocol, extractor.seen, real, fake, estimator, needs=extractor.needs)
    return Score(value=value, interval=span, floor=floor, fake=fake.name, fake_digest=fake.digest, card=card, more=more, figures={})


def carded(
    measure: str, protocol: Protocol, seen: Seen, real: Set, fake: Set, estimator: Estimator, *, needs: Sequence[str] = (), words: str = ""
) -> Card:
    """The card of a score of two sets; `needs`: packages of what looked."""
    return Card(
        measure=measure,
        protocol=protocol.name,
        extractor=seen,
        real=real.taken,
        fake=fake.taken,
        real_digest=real.digest,
        extent=fake.extent,
        words=words,
        estimator=estimator,
        versions=depended(*needs),
    )


# --- Gathering ---


@dataclass(frozen=True, kw_only=True)
class Looking:
    """What looks at the clips of a set, which it is told by their numbers."""

    seen: Seen
    look: Callable[[Int[Tensor, "b"], Clips], Looked]
    needs: tuple[str, ...] = ()  # packages, beside those of every score
    words: str = ""  # digest of what it holds clips against
    classifies: bool = False
    least: int = 0  # rows that the whole set has to have, which is known once a clip was looked at
    together: int


def gathered(
    chosen: Set, name: str, looking: Looking, estimator: Estimator, state: Path | None, progress: Progress | None = None
) -> Features | None:
    """The features of a set, or of this process's part of it; the first process waits for the others and puts all together."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if size > 1 and state is None:
        raise UserError("Several processes meet in a folder: name one that all of them see by --state.")
    what = {"set": chosen.digest, "taken": asdict(chosen.taken), "extractor": asdict(looking.seen), "classifies": looking.classifies}
    what |= {"splits": estimator.splits, "seed": estimator.seed, "kept": estimator.kept, "versions": depended(*looking.needs)}
    what = _as_json(what | ({"words": looking.words} if looking.words else {}))
    paths = [state / f"{name}-{place}-of-{size}.safetensors" if state else None for place in range(size)]
    if state:
        state.mkdir(parents=True, exist_ok=True)
    mine = _part(chosen, looking, estimator, (rank, size), paths[rank], what, progress)
    if rank:
        return None
    for place, path in enumerate(paths[1:], 1):
        assert path is not None
        mine = mine + _awaited(path, what, len(range(place, chosen.taken.count, size)))
    return mine


def _part(
    chosen: Set,
    looking: Looking,
    estimator: Estimator,
    share: tuple[int, int],
    path: Path | None,
    what: Mapping[str, Any],
    progress: Progress | None,
) -> Features:
    rank, size = share
    found = Features.load(path, what) if path else None
    done = found.done if found else 0
    total, batches = len(range(rank, chosen.taken.count, size)), 0
    clips = chosen.clips(rank + done * size, size)
    while batch := list(islice(clips, looking.together)):
        extents = {frames.shape for _, frames in batch}
        if len(extents) > 1:
            raise UserError(f"The clips of {chosen.name} are not all of one extent: give one by --size.")
        numbers = torch.tensor([number for number, _ in batch])
        looked = looking.look(numbers, torch.from_numpy(np.stack([frames for _, frames in batch])))
        if looking.classifies and looked.logits is None:
            raise UserError(f"{looking.seen.name} names no classes, so there is no inception score by it: use another --extractor.")
        logits = looked.logits if looking.classifies else None
        rows = looked.rows if logits is None else logits
        if (whole := min(chosen.taken.count, estimator.kept) * rows.shape[1]) < looking.least:
            raise too_few(looking.least, whole)
        part = Features.of(numbers, rows, logits, seed=estimator.seed, splits=estimator.splits, limit=estimator.kept)
        found = found + part if found else part
        batches += 1
        if path and (batches % SAVED == 0 or found.done == total):
            found.save(path, what)
        if progress:
            progress(found.done, total)
    if found is None:
        raise UserError(f"{chosen.taken.count} clips are too few for {size} processes: use fewer.")
    return found


def _awaited(path: Path, what: Mapping[str, Any], count: int) -> Features:
    """The state of another process, once it is whole."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = Features.load(path, what)
        if found and found.done == count:
            return found
        time.sleep(0.2)
    raise UserError(f"{path} did not come to its end in {PATIENCE / 3600:g} hours: start the same command again, which goes on.")


def _as_json(table: dict[str, Any]) -> dict[str, Any]:
    """Lists where tuples are: what is read back is equal."""
    return {
        name: _as_json(value) if isinstance(value, dict) else list(value) if isinstance(value, tuple) else value
        for name, value in table.items()
    }


# --- Distances ---

Found = tuple[float, float | None, tuple[float, float] | None, dict[str, Any]]


def _frechet(real: Features, fake: Features, estimator: Estimator) -> Found:
    value = frechet(real.moments, fake.moments)
    floor = frechet(*real.halves) if min(half.count for half in real.halves) > 1 else None
    return value, floor, interval(value, (real.sample, fake.sample), frechet_of_rows, estimator, least=0.0), {}


def _kernel(real: Features, fake: Features, estimator: Estimator) -> Found:
    sets = [part.sample.flatten(0, 1) for part in (real, fake)]
    value = kernel_distance(sets[0], sets[1], estimator.subsets)
    halves = [real.sample[real.numbers % 2 == half].flatten(0, 1) for half in (0, 1)]
    fewest = min(map(len, halves))
    floor = kernel_distance(halves[0], halves[1], _within(estimator.subsets, fewest)) if fewest > 1 else None
    brief = _within(Subsets(number=min(BRIEF, estimator.subsets.number), size=estimator.subsets.size), min(map(len, sets)))
    span = interval(value, (real.sample, fake.sample), lambda one, other: kernel_distance(one, other, brief), estimator)
    return value, floor, span, {"floor_subset_size": min(estimator.subsets.size, fewest)}


def _within(subsets: Subsets, rows: int) -> Subsets:
    return Subsets(number=subsets.number, size=min(subsets.size, rows), seed=subsets.seed)


def _inception(real: Features, fake: Features, estimator: Estimator) -> Found:
    """Where what is kept holds no clip of some split, there is no interval; nor a floor, where there are too few clips for two halves."""
    assert real.answers and fake.answers

    def score(sample: Tensor, splits: int) -> float:
        frames = sample.shape[1]  # of a clip, all in its split
        return Answers.of(torch.arange(len(sample)).repeat_interleave(frames), sample.flatten(0, 1), splits).score

    def drawn(_: Tensor, rows: Tensor) -> float:
        return score(rows.unflatten(0, (-1, fake.sample.shape[1])), estimator.splits)

    value = fake.answers.score
    if estimator.splits > len(fake.sample):  # of which not all are kept, or too few
        estimator = replace(estimator, resamples=0)
    span = interval(value, (real.sample, fake.sample), drawn, estimator, least=1.0)
    fewer = max(1, estimator.splits // 2)  # so that a split has as many clips as those of the whole set
    halves = [real.sample[half::2] for half in (0, 1)]
    floor = min(score(half, fewer) for half in halves) if min(map(len, halves)) >= fewer else None
    return value, floor, span, {"real_score": real.answers.score, "split_deviation": fake.answers.scores.std(correction=0).item()}


DISTANCES: dict[str, Callable[[Features, Features, Estimator], Found]] = {"frechet": _frechet, "kernel": _kernel, "inception": _inception}
