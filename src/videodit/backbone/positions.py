"""Where a token stands: sine-cosine tables over rows and columns, or over frames, rows and columns.

A table is centred, as SD3's cropped one is: the middle of the frame keeps its place when the frame grows. Time starts at 0,
where an image stands.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.shapes import Size


def waves(places: Float[Tensor, "n"], width: int, *, longest: float = 10_000.0) -> Float[Tensor, "n d"]:
    """Sines, then cosines, of places at `width` / 2 frequencies."""
    rates = longest ** -(torch.arange(width // 2, dtype=torch.float32, device=places.device) / (width // 2))
    angles = places.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_positions(grid: Size, width: int, *, axes: int, like: Tensor) -> Float[Tensor, "n d"]:
    """The table of a token grid; `axes` 2 leaves time out, 3 shares the width between frames, rows and columns."""
    share = width // axes // 2 * 2
    steps = [torch.arange(count, dtype=torch.float32, device=like.device) for count in grid]
    places = [steps[0], steps[1] - (grid.rows - 1) / 2, steps[2] - (grid.columns - 1) / 2]
    shares = [share] * (axes - 1) + [width - share * (axes - 1)]
    tables = [waves(place, part, longest=100.0) for place, part in zip(places[3 - axes :], shares, strict=True)]
    spread = torch.meshgrid(*(torch.arange(count, device=like.device) for count in grid[3 - axes :]), indexing="ij")
    return torch.cat([table[index.flatten()] for table, index in zip(tables, spread, strict=True)], dim=1).to(like.dtype)
