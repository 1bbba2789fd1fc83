"""Which motion a thing makes: each motion of the toybox is fitted to its path, and the one that leaves least is named.

What changes over time is told in four channels, all in fractions of the short side: column, row, diameter, and the
arc that the thing's rim turns by. Every motion has one direction in these, and its amount is fitted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from videodit.data import toybox
from videodit.evaluate import toybox_shapes as shapes

Array = NDArray[np.floating]

FRAMES = 4  # fewer cannot tell a bounce from standing still
PRESENCE = 0.85  # of the frames have to show the thing
CALM = 2 / 64  # what may stay unexplained, whatever the motion: a third of the least that a motion changes
EXPLAINED = 0.8  # else this part of what changes has to be explained
JUMP = 6 / 64  # a step this much longer than the motion's own is a jump
TURNS = 0.75  # a turning thing leaves at most this part of the misfit that it would leave if it did not turn


def name_motion(
    *, frames: NDArray[np.integer], total: int, centre: Array, area: Array, shape: str, misfit: Array
) -> tuple[str | None, str]:
    """The motion of a thing seen in `frames` out of `total`, or None and a note about `{what}`."""
    if words := enough(frames, total):
        return None, words
    u = toybox.times(total)[frames].astype(np.float64)
    radius = np.sqrt(area / shapes.measures()[shape][0])
    return fitted(frames, u, centre, radius, _turn(u, shape, misfit))


def enough(frames: NDArray[np.integer], total: int) -> str:
    """Why a path is too short to be named; nothing where it is long enough."""
    if total == 1:
        return "{what}: one frame has no motion."
    if len(frames) < FRAMES:
        return f"{{what}}: {len(frames)} frames are too few to name a motion."
    if len(frames) < PRESENCE * total:
        return f"{{what}} is seen in {len(frames)} of {total} frames only: no motion named."
    return ""


def fitted(frames: NDArray[np.integer], u: Array, centre: Array, radius: Array, turn: Array) -> tuple[str | None, str]:
    """The motion that leaves least of a path (times, columns and rows, radii, angles), or None and a note."""
    data = np.stack([centre[:, 0], centre[:, 1], 2 * radius, turn * radius.mean()], 1).astype(np.float64)
    data = data - data.mean(0)
    fits = {name: model - model.mean(0) for name, model in _models(u, data, float(radius.mean()), float(radius.max())).items()}
    left = {name: float(((data - model) ** 2).sum(1).mean()) for name, model in fits.items()}
    best = min(left, key=lambda name: left[name])
    rest = data - fits[best]
    jump = np.linalg.norm(np.diff(rest[:, :2], axis=0), axis=1)
    if jump.max() > JUMP:
        return None, f"{{what}} jumps after frame {int(frames[jump.argmax()])}."
    if left[best] > CALM**2 and left[best] > (1 - EXPLAINED) * float((data**2).sum(1).mean()):
        return None, f"{{what}} moves like nothing in the toybox (nearest: {best})."
    return best, ""


def _turn(u: Array, shape: str, misfit: Array) -> Array:
    """The angle over time (radians): zero unless turning explains the pictures clearly better than not turning.

    A shape that looks alike after a part of a turn is unwrapped around the steady turn that its angles agree with best.
    """
    bank = shapes.bank()
    mine = bank.shape == list(toybox.SHAPES).index(shape)
    errors, angles, folds = misfit[:, mine], bank.angle[mine], shapes.SYMMETRY[shape]
    floor = errors.min(1).mean()
    if not folds or floor > TURNS * errors.mean(0).min():
        return np.zeros(len(misfit))
    seen = angles[errors.argmin(1)].astype(np.float64)
    rates = 2 * np.pi * np.linspace(-1, 1, 81)[:, None]
    agreement = np.exp(1j * folds * (seen - rates * u)).mean(1)
    best = int((abs(agreement) - 1e-3 * abs(rates[:, 0])).argmax())
    steady = rates[best] * u + np.angle(agreement[best]) / folds
    period = 2 * np.pi / folds
    return steady + (seen - steady + period / 2) % period - period / 2


def _models(u: Array, data: Array, radius: float, largest: float) -> dict[str, Array]:
    """For each motion, the path nearest to the data that goes at least half as far as the toybox's least."""
    least = {name: min(low for (low, _), _ in ranges) / 2 for name, ranges in toybox.AMOUNTS.items()}
    hop = abs(np.sin(2 * np.pi * u))
    arc = 2 * np.pi * least["spin"] * radius
    return {
        "left": _along(data, 0, -u, least["left"]),
        "right": _along(data, 0, u, least["right"]),
        "up": _along(data, 1, -u, least["up"]),
        "down": _along(data, 1, u, least["down"]),
        "bounce": _along(data, 1, -hop, least["bounce"]),
        "orbit": _nearer(data, _around(data, u, 1.0, least["orbit"]), _around(data, u, -1.0, least["orbit"])),
        "spin": _nearer(data, _along(data, 3, u, arc), _along(data, 3, -u, arc)),
        "grow": _along(data, 2, u, 2 * largest * least["grow"]),
        "shrink": _along(data, 2, -u, 2 * largest * least["shrink"]),
        "still": np.zeros_like(data),
    }


def _along(data: Array, channel: int, basis: Array, lowest: float) -> Array:
    """The nearest path in one channel, of an amount of `lowest` or more."""
    basis = basis - basis.mean()
    model = np.zeros_like(data)
    model[:, channel] = max(float(basis @ data[:, channel] / (basis @ basis)), lowest) * basis
    return model


def _around(data: Array, u: Array, way: float, lowest: float) -> Array:
    """The nearest circle, of a radius of `lowest` or more, from wherever it starts."""
    turn = 2 * np.pi * u
    basis = np.zeros((2, *data.shape))
    basis[0, :, 0], basis[0, :, 1] = np.cos(turn), way * np.sin(turn)
    basis[1, :, 0], basis[1, :, 1] = -np.sin(turn), way * np.cos(turn)
    basis -= basis.mean(1, keepdims=True)
    amounts = np.linalg.lstsq(basis.reshape(2, -1).T, data.ravel(), rcond=None)[0]
    wide = float(np.hypot(*amounts))
    amounts = amounts * max(1.0, lowest / wide) if wide > 1e-6 else np.array([lowest, 0.0])
    return np.tensordot(amounts, basis, 1)


def _nearer(data: Array, one: Array, other: Array) -> Array:
    return one if ((data - one) ** 2).sum() <= ((data - other) ** 2).sum() else other
