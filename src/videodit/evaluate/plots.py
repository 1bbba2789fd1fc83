"""Lines over steps as SVG, for pages that stand alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

COLOURS = ("#1f6feb", "#d1495b", "#2e8b57", "#b8860b", "#7b4fa3", "#008b8b", "#555555", "#c2571a")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 250, 62, 12, 30, 30
MOST = 240  # points of a line; more are means of neighbours


def plot(title: str, lines: Mapping[str, Points]) -> str:
    """One panel with all lines on one pair of axes; values that are not finite are left out, and what is left may be nothing."""
    kept = {name: thinned([(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]) for name, points in lines.items()}
    every = [point for points in kept.values() for point in points]
    if not every:
        return ""
    low, high = _range([y for _, y in every])
    first, last = min(x for x, _ in every), max(x for x, _ in every)
    last = last if last > first else first + 1

    def at(x: float, y: float) -> str:
        across, up = (x - first) / (last - first), (y - low) / (high - low)
        return f"{LEFT + across * (WIDTH - LEFT - RIGHT):.1f},{HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [f'<text x="{LEFT}" y="16" font-weight="bold">{escape(title)}</text>', *_grid(low, high, first, last)]
    for i, (name, points) in enumerate(kept.items()):
        colour = COLOURS[i % len(COLOURS)]
        drawn = " ".join(at(x, y) for x, y in points)
        mark = f'<circle cx="{drawn.split(",")[0]}" cy="{drawn.split(",")[1]}" r="3" fill="{colour}"/>' if len(points) == 1 else ""
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="1.6"/>{mark}')
        if len(kept) > 1:
            parts.append(f'<text x="{WIDTH - RIGHT - 4}" y="{TOP + 14 + 14 * i}" text-anchor="end" fill="{colour}">{escape(name)}</text>')
    style = f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="11"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {style}>{"".join(parts)}</svg>'


def thinned(points: Points, most: int = MOST) -> Points:
    """At most so many points, each the mean of its neighbours."""
    if len(points) <= most:
        return points
    edges = [round(i * len(points) / most) for i in range(most + 1)]
    parts = [points[start:stop] for start, stop in itertools.pairwise(edges)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from low to high: 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    begin = math.ceil(low / step - 1e-9)
    return [i * step for i in range(begin, math.floor(high / step + 1e-9) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """What is shown: all values, but of many the wildest hundredth on each side may be cut off."""
    ordered = sorted(values)
    cut = len(ordered) // 100
    low, high = ordered[cut], ordered[-1 - cut]
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - room, high + room


def _grid(low: float, high: float, first: float, last: float) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<rect x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}" fill="none" stroke="#999"/>']
    for value in ticks(low, high):
        y = bottom - (value - low) / (high - low) * (bottom - TOP)
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in ticks(first, last):
        x = LEFT + (value - first) / (last - first) * (right - LEFT)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{value:g}</text>')
    return parts
