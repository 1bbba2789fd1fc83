"""What a forward pass costs as clips get longer, larger and more: time and multiply-adds, with fitted exponents and a plot.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py [--width 384] [--depth 2] [--repeats 7] [--tries 3] [--plot FILE] [--json]

Transformers of SD3's shape with attention over the clip (`global`) and over each frame (`spatial`), and LAVITA's `interleaved`, in fp32
with random weights. An exponent is the slope of a straight line through the logarithms (least squares); the one behind it is that of
the multiply-adds, which `videodit.backbone.flops` counts. All sizes are timed in turns; where the machine's speed changes meanwhile
they are timed again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from side_by_side import Noisy, least_times

from videodit import backbone
from videodit.backbone import Cropped, DiT, Transformer
from videodit.backbone.flops import cost
from videodit.shapes import Size, Text

HEAD, WORDS, FRAMES, SIDE, BATCH = 64, 77, 4, 8, 1  # what stays while another grows; SIDE is tokens
GROWING = {"frames": (1, 2, 4, 8, 16), "tokens a side": (4, 8, 12, 16, 24), "clips": (1, 2, 4, 8)}
COLOURS = {"global": "#c0392b", "spatial": "#2471a3", "interleaved": "#1e8449"}
Rows = dict[str, dict[str, dict[str, list[float]]]]  # model, what grows -> values, seconds, operations


def shapes(width: int, depth: int) -> dict[str, Transformer | DiT]:
    same = {"width": width, "depth": depth, "heads": width // HEAD, "places": Cropped(side=64, base=16)}
    dual = {**same, "text": 512, "pooled": 512, "normed": False, "video": True}
    return {
        "global": Transformer(layout="global", **dual),
        "spatial": Transformer(layout="spatial", **dual),
        "interleaved": DiT(layout="interleaved", **same),
    }


def measure(settings: Transformer | DiT, repeats: int, tries: int) -> dict[str, dict[str, list[float]]]:
    torch.manual_seed(0)
    network, words = backbone.build(settings).eval(), WORDS if isinstance(settings, Transformer) else 0
    found: dict[str, dict[str, list[float]]] = {}
    for what, values in GROWING.items():
        runs, operations = {}, []
        for value in values:
            frames, side, batch = (value if what == name else same for name, same in zip(GROWING, (FRAMES, SIDE, BATCH), strict=True))
            latents = Size(frames, side * settings.patch, side * settings.patch)
            noisy, wide = torch.randn(batch, settings.channels, *latents), (settings.text, settings.pooled)
            text = Text(*(torch.randn(batch, *n) for n in ((WORDS, wide[0]), (wide[1],)))) if words else Text()
            runs[str(value)] = partial(_forward, network, noisy, text)
            operations.append(float(batch * cost(settings, latents, words).total))
        times = _quiet(runs, repeats, tries)
        found[what] = {"values": [float(v) for v in values], "seconds": [times[str(v)] for v in values], "operations": operations}
    return found


def _quiet(runs: dict[str, Callable[[], object]], repeats: int, tries: int) -> dict[str, float]:
    for left in range(tries, 0, -1):
        try:
            return least_times(runs, repeats=repeats)
        except Noisy:
            if left == 1:
                raise
    raise ValueError("no tries")


@torch.no_grad()
def _forward(network: torch.nn.Module, noisy: torch.Tensor, text: Text) -> None:
    network(noisy, torch.full((len(noisy),), 0.5), text)


def exponent(values: list[float], costs: list[float]) -> float:
    return float(np.polyfit(np.log(values), np.log(costs), 1)[0])


def plot(rows: Rows, path: Path) -> None:
    """Both axes logarithmic; the exponent stands in the legend."""
    panels = "".join(_panel(rows, what, 60 + 300 * i) for i, what in enumerate(GROWING))
    style = 'font-family="sans-serif" font-size="12"'
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{60 + 300 * len(GROWING)}" height="310" {style}>'
        f'<rect width="100%" height="100%" fill="white"/>{panels}</svg>\n'
    )


def _panel(rows: Rows, what: str, left: int) -> str:
    width, height, top = 230, 200, 70
    values = [math.log(v) for v in next(iter(rows.values()))[what]["values"]]
    seconds = [math.log(s) for row in rows.values() for s in row[what]["seconds"]]
    low, high = math.floor(min(seconds) / math.log(10)) * math.log(10), max(seconds)

    def at(value: float, second: float) -> tuple[float, float]:
        x = left + width * (math.log(value) - values[0]) / (values[-1] - values[0])
        return x, top + height * (1 - (math.log(second) - low) / (high - low))

    parts = [f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>']
    parts.append(f'<text x="{left + width / 2}" y="{top + height + 34}" text-anchor="middle">{what}</text>')
    for value in next(iter(rows.values()))[what]["values"]:
        parts.append(f'<text x="{at(value, math.exp(high))[0]:.1f}" y="{top + height + 16}" text-anchor="middle">{value:g}</text>')
    for power in range(round(low / math.log(10)), math.floor(high / math.log(10)) + 1):
        y = at(math.exp(values[0]), 10.0**power)[1]
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 4}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g} s</text>')
    for i, (model, row) in enumerate(rows.items()):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, row[what]["values"], row[what]["seconds"]))
        slope = exponent(row[what]["values"], row[what]["seconds"])
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[model]}" stroke-width="2"/>')
        parts.append(f'<text x="{left}" y="{22 + 15 * i}" fill="{COLOURS[model]}">{model}: exponent {slope:.2f}</text>')
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 384), ("depth", 2), ("repeats", 7), ("tries", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="an SVG to write")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        rows = {name: measure(settings, given.repeats, given.tries) for name, settings in shapes(given.width, given.depth).items()}
    except Noisy as error:
        sys.exit(str(error))
    if given.plot:
        plot(rows, given.plot)
    if given.json:
        print(json.dumps(rows))
        return
    for model, row in rows.items():
        for what, found in row.items():
            slopes = [exponent(found["values"], found[cost]) for cost in ("seconds", "operations")]
            ends = f"{found['seconds'][0]:.4f} s at {found['values'][0]:g}, {found['seconds'][-1]:.4f} s at {found['values'][-1]:g}"
            print(f"{model:12} {what:14} time ~ n^{slopes[0]:.2f}, multiply-adds ~ n^{slopes[1]:.2f} ({ends})")


if __name__ == "__main__":
    main()
