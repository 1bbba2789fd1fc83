"""How often the judge of toybox videos is right: one- and two-object renders, clean and disturbed, per attribute.

    python benchmarks/toybox_judge.py [--ones 2000] [--twos 1000] [--seed 77] [--size 64x64] [--frames 16] [--json]

The seed's clips are for measuring only: the judge was developed on others.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable

import av
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from videodit.data import toybox
from videodit.evaluate.toybox import judge, score, table
from videodit.shapes import Size, parse_extent

Video = NDArray[np.uint8]


def noise(video: Video, index: int) -> Video:
    """Gaussian noise of sigma 10 of 255."""
    rng = np.random.default_rng([11, index])
    noisy = video + 10 * rng.standard_normal(video.shape, dtype=np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def blur(video: Video, index: int) -> Video:
    """A Gaussian blur of 0.7 pixels."""
    soft = ndimage.gaussian_filter(video.astype(np.float32), (0, 0.7, 0.7, 0))
    return np.rint(soft).astype(np.uint8)


def x264(video: Video, index: int) -> Video:
    """Through libx264 at crf 28 in 4:2:0 and back."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=8, options={"crf": "28", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = video.shape[1], video.shape[2], "yuv420p"
        for frame in video:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    memory.seek(0)
    with av.open(memory) as back:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in back.decode(video=0)])


CONDITIONS: dict[str, Callable[[Video, int], Video]] = {"clean": lambda video, index: video, "noise": noise, "blur": blur, "x264": x264}


def measure(
    objects: int, count: int, seed: int, size: Size, conditions: tuple[str, ...] = tuple(CONDITIONS)
) -> dict[str, dict[str, float]]:
    """For each condition, how often each attribute is right, and the milliseconds of one core that judging a clip takes."""
    rows: dict[str, list[dict[str, bool]]] = {name: [] for name in conditions}
    spent = dict.fromkeys(conditions, 0.0)
    for index in range(count):
        what = toybox.scene(seed, index, split="all", objects=objects)
        video = toybox.render(what, size)
        for name in conditions:
            disturbed = CONDITIONS[name](video, index)
            start = time.process_time()
            verdict = judge(disturbed)
            spent[name] += time.process_time() - start
            rows[name].append(score(verdict, what))
    return {name: {**table(rows[name]), "milliseconds": 1000 * spent[name] / max(count, 1)} for name in conditions}


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the judge of toybox videos is right.")
    parser.add_argument("--ones", type=int, default=2000, help="clips of one object")
    parser.add_argument("--twos", type=int, default=1000, help="clips of two objects")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--size", default="64x64")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    size = Size(given.frames, *parse_extent(given.size))
    results = {}
    for objects, count in ((1, given.ones), (2, given.twos)):
        if count:
            results[f"{objects} x {count}"] = measure(objects, count, given.seed, size)
    if given.json:
        json.dump(results, sys.stdout)
        return
    for title, result in results.items():
        print(f"{title} clips of {size}, seed {given.seed}")
        for condition, row in result.items():
            print(f"  {condition:6}", "  ".join(f"{name} {value:.2%}" for name, value in row.items() if name != "milliseconds"), end="")
            print(f"  {row['milliseconds']:.1f} ms")


if __name__ == "__main__":
    main()
