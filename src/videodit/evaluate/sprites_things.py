"""Which thing of the sprites stands in a square of a frame: a small convolutional network over what differs from the background.

Its weights are trained by `benchmarks/sprites_judge.py` on renders; it needs no font.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy import ndimage
from torch import Tensor, nn

from videodit.data import sprites
from videodit.shapes import UserError

Array = NDArray[np.floating]

WEIGHTS = Path(__file__).parents[1] / "weights" / "sprites_judge.safetensors"
SIDE = 32  # of what the network looks at
FULL = 60.0  # a pixel this far from its background, in RGB, is all of a thing
LITTLE, LITTLE_NEAR = 0.12, 4  # part of the box of a thing that may stand so many times further off from it
MARGIN = 1.12  # how much wider than the box around a thing the square is


class Recogniser(nn.Sequential):
    """Four convolutions and a linear layer; the mean of the first three channels says colour, the fourth says what is covered."""

    def __init__(self, names: int = len(sprites.NOUNS)) -> None:
        widths, strides = (4, 32, 64, 128, 128), (2, 2, 1, 2)
        layers: list[nn.Module] = []
        for one, other, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [nn.Conv2d(one, other, 3, stride, 1, bias=False), nn.BatchNorm2d(other), nn.ReLU()]
        super().__init__(*layers, nn.Flatten(), nn.Dropout(0.1), nn.Linear(widths[-1] * (SIDE // 8) ** 2, names))


@lru_cache(maxsize=1)
def recogniser(path: Path = WEIGHTS) -> Recogniser:
    if not path.is_file():
        raise UserError(f"There are no weights of the judge of sprites at {path}: train them by benchmarks/sprites_judge.py.")
    network = Recogniser()
    network.load_state_dict({name: x.float() if x.is_floating_point() else x for name, x in load_file(str(path)).items()})
    return network.eval()


def crop(frame: Array, away: Array, centre: tuple[float, float], half: float, side: int = SIDE) -> Array:
    """A square (column, row, half its side, in pixels) as the network sees it, 4 h w: the colours of what is covered, and how much is."""
    step = 2 * half / side
    x, y = (middle - half + step * (np.arange(side) + 0.5) for middle in centre)
    covered = np.clip(np.linalg.norm(away, axis=-1) / FULL, 0, 1)
    planes = np.concatenate([(frame / 255 - 0.5) * covered[..., None], covered[..., None]], -1)
    if step > 1.2:
        planes = ndimage.gaussian_filter(planes, (0.4 * step, 0.4 * step, 0))
    grid = np.broadcast_to(y[:, None] - 0.5, (side, side)), np.broadcast_to(x - 0.5, (side, side))
    return np.stack([ndimage.map_coordinates(planes[..., c], grid, order=1, mode="nearest") for c in range(4)]).astype(np.float32)


@torch.no_grad()
def likely(crops: Float[Tensor, "n 4 s s"], path: Path = WEIGHTS) -> Float[np.ndarray, "n k"]:
    """The logarithm of how likely each crop shows each noun."""
    return recogniser(path)(crops).log_softmax(-1).numpy()


def boxes(away: Array, seen: float) -> Int[np.ndarray, "n 4"]:
    """Boxes (left, top, right, bottom, ends excluded) around what stands out of the background of one frame; near parts belong together."""
    rows, columns = away.shape[:2]
    short = min(rows, columns)
    labels = np.zeros((rows, columns), np.int32)
    ndimage.label(np.linalg.norm(away, axis=-1) > seen, np.ones((3, 3), int), output=labels)
    if not labels.any():
        return np.zeros((0, 4), int)
    areas = np.bincount(labels.ravel())[1:]
    found = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)]
    left = [box for box, area in zip(found, areas, strict=True) if area >= max(3, 0.0008 * short**2)]
    near, done = max(1, round(0.02 * short)), []
    while left:
        box = left.pop()
        others = [i for i, other in enumerate(left) if _near(box, other, near)]
        if others:  # joined, it may be near to more
            other = left.pop(others[0])
            left.append((min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3])))
        else:
            done.append(box)
    return np.array([box for box in done if max(box[2] - box[0], box[3] - box[1]) >= 0.07 * short], int).reshape(-1, 4)


def _near(one: tuple[int, ...], other: tuple[int, ...], near: int) -> bool:
    """Whether two boxes belong together: they touch, nearly, or one is little beside the other and somewhat further off."""
    gap = max(max(one[i], other[i]) - min(one[i + 2], other[i + 2]) for i in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return gap <= (LITTLE_NEAR * near if min(areas) < LITTLE * max(areas) else near)


def square(box: NDArray[np.integer]) -> tuple[tuple[float, float], float]:
    """The centre and half the side of the square that is looked at."""
    left, top, right, bottom = (float(x) for x in box)
    return ((left + right) / 2, (top + bottom) / 2), MARGIN * max(right - left, bottom - top) / 2
