"""What scores of two sets of clips see: clips spoilt in eight ways, each at growing strength, against clips that are not.

    python benchmarks/metrics.py [--count 128] [--size 64x64] [--frames 16] [--weights NAME=FILE ...] [--json]

Clips are scenes of one thing that goes left or up or grows: those look otherwise backwards, while the toybox as a whole does not (for
every growing thing there is a shrinking one). Real and spoilt clips are of different scenes. A score sees a spoiling where it is above the
interval of unspoilt clips (`clean`); those are marked.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from videodit.data import toybox
from videodit.evaluate import extractors
from videodit.evaluate.extractors import Extractor
from videodit.evaluate.features import Features
from videodit.evaluate.frechet import frechet, frechet_of_rows
from videodit.evaluate.intervals import interval
from videodit.evaluate.protocol import Estimator
from videodit.evaluate.scores import BATCH
from videodit.shapes import Size, parse_extent

Video = NDArray[np.uint8]
ONE_WAY = ("left", "up", "grow")
REAL, SPOILT = 91, 92  # seeds of their scenes


def blur(video: Video, sigma: float, rng: np.random.Generator) -> Video:
    return np.rint(ndimage.gaussian_filter(video.astype(np.float32), (0, sigma, sigma, 0))).astype(np.uint8)


def noise(video: Video, sigma: float, rng: np.random.Generator) -> Video:
    return _whole(video + sigma * rng.standard_normal(video.shape, dtype=np.float32))


def flicker(video: Video, sigma: float, rng: np.random.Generator) -> Video:
    return _whole(video + sigma * rng.standard_normal((len(video), 1, 1, 1), dtype=np.float32))


def jitter(video: Video, pixels: float, rng: np.random.Generator) -> Video:
    far = int(pixels)
    wide = np.pad(video, ((0, 0), (far, far), (far, far), (0, 0)), mode="edge")
    ways = rng.integers(0, 2 * far + 1, (len(video), 2))
    rows, columns = video.shape[1:3]
    return np.stack([frame[y : y + rows, x : x + columns] for frame, (y, x) in zip(wide, ways, strict=True)])


def cut(video: Video, share: float, rng: np.random.Generator) -> Video:
    """The second half is that of another scene, in a share of the clips."""
    if rng.random() >= share:
        return video
    other = next(scenes_of(int(rng.integers(1 << 30)), 1, Size(*video.shape[:3])))
    return np.concatenate([video[: len(video) // 2], other[len(video) // 2 :]])


def freeze(video: Video, share: float, rng: np.random.Generator) -> Video:
    """A share of the frames, from somewhere on, is one frame."""
    still = round(share * len(video))
    start = int(rng.integers(0, len(video) - still + 1))
    frozen = video.copy()
    frozen[start : start + still] = video[start]
    return frozen


def shuffle(video: Video, window: float, rng: np.random.Generator) -> Video:
    """Frames change places within windows of so many."""
    order = np.concatenate(
        [start + rng.permutation(len(video[start : start + int(window)])) for start in range(0, len(video), int(window))]
    )
    return video[order]


def reversal(video: Video, share: float, rng: np.random.Generator) -> Video:
    return video[::-1] if rng.random() < share else video


SPOILINGS: dict[str, tuple[Callable[[Video, float, np.random.Generator], Video], tuple[float, ...], str]] = {
    "blur": (blur, (0.5, 1, 2), "sigma, pixels"),
    "noise": (noise, (5, 15, 45), "sigma of 255"),
    "flicker": (flicker, (5, 15, 45), "sigma of 255"),
    "jitter": (jitter, (1, 2, 4), "pixels"),
    "cut": (cut, (0.1, 0.3, 1), "share of clips"),
    "freeze": (freeze, (0.25, 0.5, 1), "share of frames"),
    "shuffle": (shuffle, (2, 4, 16), "window, frames"),
    "reversal": (reversal, (0.1, 0.3, 1), "share of clips"),
}


def _whole(video: NDArray[np.floating]) -> Video:
    return np.clip(np.rint(video), 0, 255).astype(np.uint8)


def scenes_of(seed: int, count: int, size: Size):
    """Clips of one thing each that moves one way."""
    index = 0
    while count:
        what = toybox.scene(seed, index, split="all", objects=1)
        index += 1
        if what.things[0].motion in ONE_WAY:
            count -= 1
            yield toybox.render(what, size)


def seen(extractor: Extractor, clips: list[Video]) -> Features:
    """The features of clips."""
    whole: Features | None = None
    for start in range(0, len(clips), BATCH):
        batch = torch.from_numpy(np.stack(clips[start : start + BATCH]))
        part = Features.of(torch.arange(start, start + len(batch)), extractor.look(batch).rows)
        whole = whole + part if whole else part
    assert whole
    return whole


def measure(count: int, size: Size, looks: dict[str, Extractor], names: tuple[str, ...] = tuple(SPOILINGS), resamples: int = 100) -> dict:
    """For each extractor: the score of clean clips, its interval, and that of each spoiling at each strength."""
    real, clean = (list(scenes_of(seed, count, size)) for seed in (REAL, SPOILT))
    table = {}
    for label, extractor in looks.items():
        true = seen(extractor, real)
        same = seen(extractor, clean)
        value = frechet(true.moments, same.moments)
        span = interval(value, (true.sample, same.sample), frechet_of_rows, Estimator(resamples=resamples))
        table[label] = {"clean": value, "interval": span, "floor": frechet(*true.halves)}
        for name in names:
            spoil, strengths, _ = SPOILINGS[name]
            row = []
            for strength in strengths:
                spoilt = [spoil(video, strength, np.random.default_rng([7, i])) for i, video in enumerate(clean)]
                row.append(frechet(true.moments, seen(extractor, [np.ascontiguousarray(video) for video in spoilt]).moments))
            table[label][name] = row
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="What scores of two sets of clips see.")
    parser.add_argument("--count", type=int, default=128, help="clips of each set")
    parser.add_argument("--size", default="64x64", help="rows and columns")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=FILE", help="an extractor and its weights; again for more")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    looks = {"frechet[random-3d]": extractors.load("random-3d"), "motion": extractors.load("flow")}
    for pair in given.weights:
        name, _, path = pair.partition("=")
        looks[f"frechet[{name}]"] = extractors.load(name, Path(path), pickled=True)
    table = measure(given.count, Size(given.frames, *parse_extent(given.size)), looks)
    if given.json:
        print(json.dumps(table))
        return
    print("| spoiling | strength | " + " | ".join(table) + " |")
    print("| --- | --- |" + " ---: |" * len(table))
    print("| clean | | " + " | ".join(f"{row['clean']:.4g} (to {row['interval'][1]:.4g})" for row in table.values()) + " |")
    for name, (_, strengths, unit) in SPOILINGS.items():
        for place, strength in enumerate(strengths):
            cells = [f"{'**' * (row[name][place] > row['interval'][1])}{row[name][place]:.4g}" for row in table.values()]
            cells = [cell + "**" * cell.startswith("**") for cell in cells]
            print(f"| {name if not place else ''} | {strength:g}{' ' + unit if not place else ''} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    sys.exit(main())
