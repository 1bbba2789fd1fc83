"""What all drawn worlds share: how things move, how they are blended into frames, and the words of motions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
# Places (f h w) in radii from the centre, turned with the thing, and its radius in pixels (f 1 1) -> cover of each pixel, and colours.
Paint = Callable[[Array, Array, Array], tuple[Array, Array]]


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a thing is over time: offsets from its place, scale and turn (radians), each of shape (f,)."""

    x: Array
    y: Array
    scale: Array
    angle: Array


def _pose(u: Array, x: Array | float = 0.0, y: Array | float = 0.0, scale: Array | float = 1.0, angle: Array | float = 0.0) -> Pose:
    parts = {"x": x, "y": y, "scale": scale, "angle": angle}
    return Pose(**{name: np.broadcast_to(np.asarray(value, np.float32), u.shape) for name, value in parts.items()})


# A motion: (time in 0..1, amount, phase in 0..1) -> pose.
MOTIONS: dict[str, Callable[[Array, float, float], Pose]] = {
    "left": lambda u, amount, phase: _pose(u, x=-amount * (u - 0.5)),
    "right": lambda u, amount, phase: _pose(u, x=amount * (u - 0.5)),
    "up": lambda u, amount, phase: _pose(u, y=-amount * (u - 0.5)),
    "down": lambda u, amount, phase: _pose(u, y=amount * (u - 0.5)),
    "bounce": lambda u, amount, phase: _pose(u, y=-amount * abs(np.sin(2 * np.pi * u))),
    "orbit": lambda u, amount, phase: _pose(
        u, x=amount * np.cos(2 * np.pi * (_way(phase) * u + phase)), y=amount * np.sin(2 * np.pi * (_way(phase) * u + phase))
    ),
    "spin": lambda u, amount, phase: _pose(u, angle=2 * np.pi * amount * _way(phase) * u),
    "grow": lambda u, amount, phase: _pose(u, scale=1 - amount * (1 - u)),
    "shrink": lambda u, amount, phase: _pose(u, scale=1 - amount * u),
    "still": lambda u, amount, phase: _pose(u),
}


def _way(phase: float) -> float:
    return 1.0 if phase * 8 % 1 < 0.5 else -1.0


def times(frames: int) -> Array:
    """The times of a clip's frames: 0 at the first, 1 at the last."""
    return np.linspace(0, 1, frames, dtype=np.float32) if frames > 1 else np.zeros(1, np.float32)


def blend(video: Array, pose: Pose, *, place: tuple[float, float], radius: float, reach: float, paint: Paint) -> None:
    """Blend a thing into every frame, with edges one pixel soft; only a window around it, `reach` radii far, is computed."""
    rows, columns = video.shape[1:3]
    short = min(rows, columns)
    size = radius * short * pose.scale
    centre_x, centre_y = place[0] * columns + pose.x * short, place[1] * rows + pose.y * short
    far = int(np.ceil(reach * size.max())) + 2
    left, top = np.floor(centre_x).astype(int) - far, np.floor(centre_y).astype(int) - far
    window = np.arange(2 * far + 1, dtype=np.float32) + 0.5
    x = (left - centre_x)[:, None, None] + window[None, None, :]
    y = (top - centre_y)[:, None, None] + window[None, :, None]
    cos, sin = np.cos(pose.angle)[:, None, None], np.sin(pose.angle)[:, None, None]
    scale = size[:, None, None]
    cover, colour = paint((cos * x + sin * y) / scale, (cos * y - sin * x) / scale, scale)
    colour = np.broadcast_to(colour, (*cover.shape, 3))
    for f in range(len(video)):
        y0, y1 = max(top[f], 0), min(top[f] + 2 * far + 1, rows)
        x0, x1 = max(left[f], 0), min(left[f] + 2 * far + 1, columns)
        inside = (f, slice(y0 - top[f], y1 - top[f]), slice(x0 - left[f], x1 - left[f]))
        region = video[f, y0:y1, x0:x1]
        region += cover[inside][..., None] * (colour[inside] - region)


# --- Words ---

MOTION_WORDS: dict[str, tuple[str, ...]] = {
    **{
        way: (f"moves {way}", f"slides {way}", f"is moving {way}", f"goes {way}", f"travels {way}")
        for way in ("left", "right", "up", "down")
    },
    "bounce": ("bounces", "is bouncing", "bounces up and down", "hops up and down"),
    "orbit": ("orbits", "is orbiting", "goes round and round", "orbits around"),
    "spin": ("spins", "is spinning", "rotates", "is rotating", "turns in place"),
    "grow": ("grows", "is growing", "gets bigger", "becomes larger"),
    "shrink": ("shrinks", "is shrinking", "gets smaller", "becomes smaller"),
    "still": ("stays still", "stands still", "does not move", "rests"),
}
MOTION_WORDS |= {way: (*MOTION_WORDS[way], f"moves to the {way}") for way in ("left", "right")}


def article(words: str) -> str:
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"
