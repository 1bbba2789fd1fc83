"""How far a thing turns, read from pictures of it alone: each is unrolled around its middle, so that turning is a shift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

SAMPLES = 32  # the side of a square that is unrolled: a thing fills about the middle half of it
RINGS, WAYS = 10, 128
LAGS = (1, 2, 3)
RATES = np.linspace(-1, 1, 81)  # turns in a clip
SLOWEST = 0.25  # turns: what turns less does not turn
BETTER = 0.7  # a turn leaves at most this part of the unlikeness that no turn leaves


def unrolled(square: Array) -> Array:
    """A square (4 s s) around a thing's middle as rings by ways: 4 rings ways, without the mean of each ring."""
    side = square.shape[-1]
    radius = (np.arange(RINGS) + 1.5) / (RINGS + 1) * 0.45 * side
    way = 2 * np.pi * np.arange(WAYS) / WAYS
    x, y = (side / 2 - 0.5 + radius[:, None] * ways for ways in (np.cos(way), np.sin(way)))
    left, top = np.clip(x.astype(int), 0, side - 2), np.clip(y.astype(int), 0, side - 2)
    right, down = x - left, y - top
    above = square[:, top, left] * (1 - right) + square[:, top, left + 1] * right
    below = square[:, top + 1, left] * (1 - right) + square[:, top + 1, left + 1] * right
    rings = (above * (1 - down) + below * down) * np.sqrt(radius)[:, None]
    return rings - rings.mean(-1, keepdims=True)


def turning(polar: Array, u: Array) -> Array:
    """The angle over time (radians) of unrolled pictures (f 4 rings ways): a steady turn, or zero unless it explains them better."""
    spectra = np.fft.rfft(polar, axis=-1)
    power = np.sqrt((polar**2).sum((1, 2, 3)) + 1e-6)
    total, count = np.zeros(len(RATES)), 0
    for lag in (lag for lag in LAGS if lag < len(polar)):
        like = np.fft.irfft((np.conj(spectra[:-lag]) * spectra[lag:]).sum((1, 2)), WAYS, axis=-1) / (power[:-lag] * power[lag:])[:, None]
        shift = RATES[:, None] * (u[lag:] - u[:-lag]) * WAYS  # in ways, of each rate and pair
        below = np.floor(shift).astype(int)
        pairs, part = np.arange(like.shape[0]), shift - below
        total += (like[pairs, below % WAYS] * (1 - part) + like[pairs, (below + 1) % WAYS] * part).mean(1)
        count += 1
    unlike = 1 - total / max(count, 1)
    moving = np.flatnonzero(abs(RATES) >= SLOWEST)
    best = moving[(unlike[moving] + 1e-3 * abs(RATES[moving])).argmin()]
    none = unlike[len(RATES) // 2]
    return 2 * np.pi * RATES[best] * u if unlike[best] < BETTER * none and none > 0.05 else np.zeros(len(u))
