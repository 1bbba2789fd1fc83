"""Which shape a soft mask shows: every toybox shape, drawn at every turn and several sizes, is held against it.

Masks are normalised to their centroid and to the square root of their area, so a template answers for any place and size;
the size decides only how soft the edges of the template are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from videodit.data import toybox

Array = NDArray[np.floating]

GRID = 24  # points along a side of a normalised mask
SPAN = 1.05  # half that side, in square roots of the area: no tip of a star or a triangle lies further out
SOFT = 1.5  # pixels over which an edge falls: one drawn, half a pixel more from being sampled
LEVELS = (4.5, 6.5, 9.0, 13.0, 19.0, 28.0)  # square roots of areas, in pixels
SYMMETRY = {"circle": 0, "square": 4, "triangle": 3, "star": 5, "cross": 4, "heart": 1}  # turns that look alike; 0: all
STEP = 5.0  # degrees between templates

_AXIS = np.linspace(-SPAN, SPAN, GRID, dtype=np.float32)
X, Y = np.meshgrid(_AXIS, _AXIS)


@lru_cache(maxsize=1)
def measures() -> dict[str, tuple[float, float, float]]:
    """Of every shape, in radii: its area and its centroid (column, row)."""
    axis = np.linspace(-1.2, 1.2, 601, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    found = {}
    for name, distance in toybox.SHAPES.items():
        inside = distance(x, y) < 0
        found[name] = (float(inside.sum() * (axis[1] - axis[0]) ** 2), float(x[inside].mean()), float(y[inside].mean()))
    return found


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Templates (level, template, point) with the shape (an index into toybox.SHAPES) and turn (radians) of each."""

    templates: Array
    energy: Array  # level, template
    shape: NDArray[np.int64]
    angle: Array


@lru_cache(maxsize=1)
def bank() -> Bank:
    """Every shape at every turn that looks different."""
    owners, angles = [], []
    for index, name in enumerate(toybox.SHAPES):
        period = 360 / SYMMETRY[name] if SYMMETRY[name] else STEP
        turns = np.deg2rad(np.arange(round(period / STEP)) * period / round(period / STEP))
        owners += [index] * len(turns)
        angles += list(turns)
    names = list(toybox.SHAPES)
    templates = np.stack([[_template(names[o], a, level) for o, a in zip(owners, angles, strict=True)] for level in LEVELS])
    flat = templates.reshape(len(LEVELS), len(owners), -1)
    return Bank(templates=flat, energy=(flat**2).sum(-1), shape=np.array(owners), angle=np.array(angles, np.float32))


def _template(name: str, angle: float, level: float) -> Array:
    area, centre_x, centre_y = measures()[name]
    unit = float(np.sqrt(area))  # a square root of the area, in radii
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    x, y = (cos * X + sin * Y) * unit + centre_x, (cos * Y - sin * X) * unit + centre_y
    return np.clip(0.5 - toybox.SHAPES[name](x, y) * (level / unit) / SOFT, 0, 1).astype(np.float32)


def compare(alpha: Array, centres: NDArray[np.floating], areas: NDArray[np.floating]) -> Array:
    """How badly each template fits each frame: (f, template), 0 for a perfect fit and about 1 for none.

    `alpha` is f h w; centres are (f, 2) as column, row; areas in pixels.
    """
    templates = bank()
    size = np.sqrt(areas).astype(np.float32)[:, None, None]
    frame = np.broadcast_to(np.arange(len(alpha), dtype=np.float32)[:, None, None], (len(alpha), GRID, GRID))
    rows, columns = centres[:, 1, None, None] - 0.5 + Y * size, centres[:, 0, None, None] - 0.5 + X * size
    mask = ndimage.map_coordinates(alpha, np.stack([frame, rows, columns]), order=1, mode="constant").reshape(len(alpha), -1)
    level = abs(np.log(size[:, 0, 0, None] / np.array(LEVELS))).argmin(1)
    cross = np.empty((len(alpha), len(templates.angle)), np.float32)
    for one in np.unique(level):
        cross[level == one] = mask[level == one] @ templates.templates[one].T
    energy = templates.energy[level]
    return ((mask**2).sum(1, keepdims=True) - 2 * cross + energy) / energy
