"""Where a token stands: sine-cosine tables over rows and columns, or over frames, rows and columns; and rotary turns.

Places are centred: the middle of the frame keeps its place when the frame grows. Time starts at 0, where an image stands, so a turn by the
frame alone leaves an image as it is. SD3's own table is the middle of a larger one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from videodit.config import setting
from videodit.shapes import Size, UserError


@dataclass(frozen=True, kw_only=True)
class Centred:
    """Rows and columns counted from the middle of the frame."""

    kind: Literal["centred"] = "centred"


@dataclass(frozen=True, kw_only=True)
class Cropped:
    """SD3's: the middle of a table of `side` tokens, whose places are those of `base` tokens spread over it."""

    kind: Literal["cropped"] = "cropped"
    side: int = setting(192, doc="rows and columns of the whole table: the most that a frame may have")
    base: int = setting(64, doc="rows and columns the model was first trained at")

    def __post_init__(self) -> None:
        if self.side < 1 or self.base < 1:
            raise UserError(f"A table of places has a side of 1 or more, and so has its base, not {self.side} and {self.base}.")


@dataclass(frozen=True, kw_only=True)
class Length:
    """For clips longer than those of training."""

    scale: float = setting(1.0, doc="places in time are divided by it, so that a longer clip keeps to places that were trained")
    repeats: int = setting(
        0, doc="latent frames after which motion repeats, 0 if it does not: the turn of that period is slowed to outlast the clip (RIFLEx)"
    )


Places = Centred | Cropped
When = Sequence[float | int] | None  # places in time of latent frames, where they do not simply follow each other
Rotary = Literal["none", "time", "space-time"]
FASTEST, SLOWEST = math.pi / 2, math.pi / 32  # turns of a pair of channels from a token to the next


def waves(places: Float[Tensor, "n"], width: int, *, longest: float = 10_000.0, reached: bool = False) -> Float[Tensor, "n d"]:
    """Sines, then cosines, of places at `width` / 2 frequencies; `reached`: the slowest is `longest` itself, not one step faster."""
    steps = width // 2 - reached
    rates = torch.exp(-math.log(longest) * torch.arange(width // 2, dtype=torch.float32, device=places.device) / steps)
    angles = places.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_positions(grid: Size, width: int, *, axes: int, like: Tensor, scale: float = 1.0, when: When = None) -> Float[Tensor, "n d"]:
    """The table of a token grid; `axes` 2 leaves time out, 3 shares the width between frames, rows and columns."""
    share = width // axes // 2 * 2
    shares = [share] * (axes - 1) + [width - share * (axes - 1)]
    tables = [waves(place, part, longest=100.0) for place, part in zip(_places(grid, like, scale, when)[3 - axes :], shares, strict=True)]
    return _spread(tables, grid[3 - axes :]).to(like.dtype)


def frame_positions(grid: Size, width: int, places: Places, *, like: Tensor) -> Float[Tensor, "n d"]:
    """The table of one frame's tokens."""
    if isinstance(places, Centred):
        return grid_positions(Size(1, grid.rows, grid.columns), width, axes=2, like=like)
    if max(grid.rows, grid.columns) > places.side:
        raise UserError(
            f"The table of places has {places.side} rows and columns of tokens, not {grid.rows} x {grid.columns}: use a smaller frame."
        )
    rows, columns = (
        waves((torch.arange(n, device=like.device) + (places.side - n) // 2) * (places.base / places.side), width // 2)
        for n in (grid.rows, grid.columns)
    )
    return torch.cat([columns.repeat(grid.rows, 1), rows.repeat_interleave(grid.columns, dim=0)], dim=1).to(like.dtype)


TRAINED = Length()
OUTLASTS = 0.9  # of a period is the whole clip, where it would repeat


def rotary_angles(
    grid: Size, width: int, rotary: Rotary, *, like: Tensor, length: Length = TRAINED, when: When = None
) -> Float[Tensor, "n half"]:
    """By how much each pair of a head's `width` channels turns: half of the pairs with time, or all, shared between the axes."""
    pairs = width // 2
    shares = {"none": (0, 0, 0), "time": (pairs // 2, 0, 0), "space-time": (pairs - pairs // 3 * 2, pairs // 3, pairs // 3)}[rotary]
    rates = [FASTEST * (SLOWEST / FASTEST) ** torch.linspace(0, 1, share, device=like.device) for share in shares]
    frames = grid.frames if when is None else max(when) + 1
    if length.repeats and frames > length.repeats and shares[0]:
        at = (2 * math.pi / rates[0] - length.repeats).abs().argmin()
        rates[0] = rates[0].index_fill(0, at, OUTLASTS * 2 * math.pi / frames)
    tables = [place[:, None] * rate for place, rate in zip(_places(grid, like, length.scale, when), rates, strict=True)]
    return F.pad(_spread(tables, grid), (0, pairs - sum(shares)))


def turned(x: Float[Tensor, "b k n d"], angles: Float[Tensor, "n half"]) -> Float[Tensor, "b k n d"]:
    """Queries or keys turned: channel i and channel i + d / 2 are a pair."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    one, other = x.chunk(2, dim=-1)
    return torch.cat([one * cos - other * sin, one * sin + other * cos], dim=-1)


def _places(grid: Size, like: Tensor, scale: float, when: When) -> list[Tensor]:
    steps = [torch.arange(count, dtype=torch.float32, device=like.device) for count in grid]
    times = steps[0] if when is None else torch.tensor(when, dtype=torch.float32).to(like.device, non_blocking=True)
    return [times / scale, steps[1] - (grid.rows - 1) / 2, steps[2] - (grid.columns - 1) / 2]


def _spread(tables: Sequence[Tensor], grid: Sequence[int]) -> Float[Tensor, "n d"]:
    """Tables of each axis side by side, for every token of the grid."""
    indices = torch.meshgrid(*(torch.arange(count, device=tables[0].device) for count in grid), indexing="ij")
    return torch.cat([table[index.flatten()] for table, index in zip(tables, indices, strict=True)], dim=1)
