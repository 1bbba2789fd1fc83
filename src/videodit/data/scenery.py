"""The backgrounds of the sprites: the toybox's plain ones, and places that are drawn. They stand still."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from videodit.data import toybox
from videodit.data.drawing import Array

# --- Places: their colours at (x, y) in 0..1, x to the right and y down, and how wide a pixel is -> h w 3 ---


def _mixed(weight: Array, one: Array, other: Array) -> Array:
    """From `one` at 0 to `other` at 1."""
    weight = np.clip(weight, 0, 1)[..., None]
    return one * (1 - weight) + other * weight


def _between(y: Array, *colours: tuple[int, int, int]) -> Array:
    """Colours that run into each other from top to bottom."""
    at, parts = np.clip(y, 0, 1) * (len(colours) - 1), np.asarray(colours, np.float32)
    below = np.minimum(at.astype(int), len(colours) - 2)
    return _mixed(at - below, parts[below], parts[below + 1])


def _night(x: Array, y: Array, pixel: float) -> Array:
    rng = np.random.default_rng(11)
    sky = _between(y, (10, 14, 44), (34, 40, 92))
    for _ in range(26):
        column, row, size, light = rng.random(), rng.random(), rng.uniform(0.006, 0.013), rng.uniform(0.5, 1.0)
        away = np.hypot(x - column, y - row) - size
        sky = _mixed(light * np.clip(0.5 - away / pixel, 0, 1), sky, np.array([246, 240, 200], np.float32))
    return sky


def _sea(x: Array, y: Array, pixel: float) -> Array:
    air, water = _between(y / 0.45, (176, 216, 240), (222, 238, 246)), _between((y - 0.45) / 0.55, (38, 128, 168), (14, 66, 118))
    for row in (0.56, 0.7, 0.86):
        away = abs(y - row - 0.012 * np.sin(2 * np.pi * (3 * x + 5 * row))) - 0.008
        water = _mixed(0.45 * np.clip(0.5 - away / pixel, 0, 1), water, np.array([186, 222, 236], np.float32))
    return _mixed(0.5 + (y - 0.45) / pixel, air, water)


def _meadow(x: Array, y: Array, pixel: float) -> Array:
    edge = 0.42 + 0.05 * np.sin(2 * np.pi * (x + 0.15))
    grass = _between((y - 0.4) / 0.6, (126, 178, 84), (62, 124, 48))
    return _mixed(0.5 + (y - edge) / pixel, _between(y / 0.5, (140, 190, 232), (204, 228, 244)), grass)


def _sunset(x: Array, y: Array, pixel: float) -> Array:
    sky = _between(y / 0.72, (72, 42, 104), (178, 70, 96), (240, 136, 72), (252, 196, 104))
    edge = 0.74 - 0.06 * np.sin(np.pi * x) ** 2 - 0.03 * np.sin(5 * np.pi * x)
    return _mixed(0.5 + (y - edge) / pixel, sky, np.array([44, 26, 46], np.float32))


def _snow(x: Array, y: Array, pixel: float) -> Array:
    edge = 0.62 + 0.05 * np.sin(2 * np.pi * (0.8 * x + 0.6))
    return _mixed(0.5 + (y - edge) / pixel, _between(y / 0.62, (112, 132, 158), (172, 186, 204)), np.array([240, 244, 250], np.float32))


def _desert(x: Array, y: Array, pixel: float) -> Array:
    far, near = 0.5 + 0.06 * np.sin(2 * np.pi * (x + 0.4)), 0.68 + 0.07 * np.sin(2 * np.pi * (0.7 * x))
    land = _mixed(0.5 + (y - near) / pixel, np.array([214, 170, 106], np.float32), np.array([188, 136, 76], np.float32))
    return _mixed(0.5 + (y - far) / pixel, _between(y / 0.5, (120, 196, 214), (228, 236, 222)), land)


_DRAWN: dict[str, Callable[[Array, Array, float], Array]] = {
    "night sky": _night,
    "sea": _sea,
    "meadow": _meadow,
    "sunset": _sunset,
    "snow": _snow,
    "desert": _desert,
}
BACKGROUNDS: tuple[str, ...] = (*toybox.BACKGROUNDS, *_DRAWN)
PLACES: dict[str, tuple[str, ...]] = {
    **{name: (f"on a {name} background", f"in front of a {name} background") for name in toybox.BACKGROUNDS},
    "night sky": ("over a night sky", "in front of a night sky", "on a night sky with stars", "under the stars"),
    "sea": ("over the sea", "by the sea", "in front of the sea"),
    "meadow": ("over a meadow", "on a meadow", "in front of a green field", "over the grass"),
    "sunset": ("at sunset", "in front of a sunset", "over a sunset"),
    "snow": ("in the snow", "over the snow", "on a field of snow"),
    "desert": ("in the desert", "over the desert", "in front of sand dunes"),
}


@lru_cache(maxsize=64)
def background(name: str, rows: int, columns: int) -> Array:
    """The picture of a background: h w c, 0 to 255, not to be written to."""
    if name in toybox.BACKGROUNDS:
        picture = toybox.background(name, rows, columns)
    else:
        x, y = ((np.arange(side, dtype=np.float32) + 0.5) / side for side in (columns, rows))
        grid = np.broadcast_to(x, (rows, columns)), np.broadcast_to(y[:, None], (rows, columns))
        picture = _DRAWN[name](*grid, 1 / min(rows, columns)).astype(np.float32)
    picture.flags.writeable = False
    return picture
