"""A score from two sets of clips: features gathered part by part, a distance, its floor and its interval, and the card of all that.

The floor is the same distance between two halves of the real set, clips with even and with odd numbers; each half has half the clips, and
Frechet distances fall with their number, so it is above what two whole real sets would have. The interval is the bootstrap's over clips:
its quantiles about its mean, laid about the score, because a set drawn again has fewer different clips and is further from everything.
What a score is off by for having few clips is therefore not in the interval.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from videodit.evaluate.extractors import Extractor
from videodit.evaluate.features import Features
from videodit.evaluate.frechet import frechet, frechet_of_rows
from videodit.evaluate.inception import Answers
from videodit.evaluate.kernel import Subsets, kernel_distance, too_few
from videodit.evaluate.protocol import Card, Estimator, Protocol, Score, Seen
from videodit.evaluate.sets import Set
from videodit.shapes import UserError

Sample = Float[Tensor, "k r d"]
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
    classifies = what.distance == "inception"
    least = estimator.subsets.size if what.distance == "kernel" else 0
    sets = [
        gathered(chosen, name, extractor, estimator, classifies, state, progress, least=least)
        for name, chosen in (("real", real), ("fake", fake))
    ]
    if sets[0] is None or sets[1] is None:
        return None
    value, floor, interval, more = DISTANCES[what.distance](sets[0], sets[1], estimator)
    card = carded(what.label(verb, extractor.seen.name), protocol, extractor.seen, real, fake, estimator)
    return Score(value=value, interval=interval, floor=floor, fake=fake.name, fake_digest=fake.digest, card=card, more=more)


def versions() -> dict[str, str]:
    """Of what figures depend on."""
    found = {"python": platform.python_version()}
    for name in ("videodit", "torch", "numpy", "pillow", "av"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from its sources
            found[name] = "not installed"
    return found


def carded(measure: str, protocol: Protocol, seen: Seen, real: Set, fake: Set, estimator: Estimator) -> Card:
    """The card of a score of two sets."""
    return Card(
        measure=measure,
        protocol=protocol.name,
        extractor=seen,
        real=real.taken,
        fake=fake.taken,
        real_digest=real.digest,
        extent=fake.extent,
        estimator=estimator,
        versions=versions(),
    )


# --- Gathering ---


def gathered(
    chosen: Set,
    name: str,
    extractor: Extractor,
    estimator: Estimator,
    classifies: bool,
    state: Path | None,
    progress: Progress | None = None,
    *,
    least: int = 0,
) -> Features | None:
    """The features of a set, or of this process's part of it; the first process waits for the others and puts all together.

    `least`: rows that the whole set has to have, which is known once a clip was looked at.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if size > 1 and state is None:
        raise UserError("Several processes meet in a folder: name one that all of them see by --state.")
    what = {"set": chosen.digest, "taken": asdict(chosen.taken), "extractor": asdict(extractor.seen), "classifies": classifies}
    what |= {"splits": estimator.splits, "seed": estimator.seed, "kept": estimator.kept, "versions": versions()}
    what = _as_json(what)
    paths = [state / f"{name}-{place}-of-{size}.safetensors" if state else None for place in range(size)]
    if state:
        state.mkdir(parents=True, exist_ok=True)
    mine = _part(chosen, extractor, estimator, classifies, (rank, size), paths[rank], what, progress, least)
    if rank:
        return None
    for place, path in enumerate(paths[1:], 1):
        assert path is not None
        mine = mine + _awaited(path, what, len(range(place, chosen.taken.count, size)))
    return mine


def _part(
    chosen: Set,
    extractor: Extractor,
    estimator: Estimator,
    classifies: bool,
    share: tuple[int, int],
    path: Path | None,
    what: Mapping[str, Any],
    progress: Progress | None,
    least: int,
) -> Features:
    rank, size = share
    found = Features.load(path, what) if path else None
    done = found.done if found else 0
    total, batches = len(range(rank, chosen.taken.count, size)), 0
    clips = chosen.clips(rank + done * size, size)
    while batch := list(islice(clips, BATCH)):
        extents = {frames.shape for _, frames in batch}
        if len(extents) > 1:
            raise UserError(f"The clips of {chosen.name} are not all of one extent: give one by --size.")
        looked = extractor.look(torch.from_numpy(np.stack([frames for _, frames in batch])))
        if classifies and looked.logits is None:
            raise UserError(f"{extractor.seen.name} names no classes, so there is no inception score by it: use another --extractor.")
        rows = looked.logits if classifies and looked.logits is not None else looked.rows
        if (whole := min(chosen.taken.count, estimator.kept) * rows.shape[1]) < least:
            raise too_few(least, whole)
        numbers = torch.tensor([number for number, _ in batch])
        logits = looked.logits if classifies else None
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
    """The floor is no distance here: it is the real set's own score, which is the most that can be hoped for."""
    assert real.answers and fake.answers

    frames = fake.sample.shape[1]  # of a clip, all in its split

    def score(_: Tensor, logits: Tensor) -> float:
        return Answers.of(torch.arange(len(logits)) // frames, logits, estimator.splits).score

    value = fake.answers.score
    if estimator.splits > len(fake.sample):  # of which not all are kept, or too few
        estimator = replace(estimator, resamples=0)
    span = interval(value, (real.sample, fake.sample), score, estimator, least=1.0)
    return value, None, span, {"real_score": real.answers.score, "split_deviation": fake.answers.scores.std(correction=0).item()}


DISTANCES: dict[str, Callable[[Features, Features, Estimator], Found]] = {"frechet": _frechet, "kernel": _kernel, "inception": _inception}


def interval(
    value: float,
    samples: tuple[Sample, Tensor],
    distance: Callable[[Tensor, Tensor], float],
    estimator: Estimator,
    *,
    least: float = -math.inf,
) -> tuple[float, float] | None:
    """Where the score may lie for other clips of the same two worlds; `least`: what no such score is below."""
    if estimator.resamples < 2:
        return None
    found = []
    for number in range(estimator.resamples):
        rng = np.random.default_rng([estimator.seed, 3, number])
        drawn = [sample[torch.from_numpy(rng.integers(len(sample), size=len(sample)))].flatten(0, 1) for sample in samples]
        found.append(distance(*drawn))
    away = (1 - estimator.confidence) / 2
    low, high = np.quantile(np.array(found) - np.mean(found), [away, 1 - away])
    return min(value, max(least, value + float(low))), max(value, value + float(high))  # equal draws round to either side
