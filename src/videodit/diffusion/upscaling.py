"""A clip told of at a lower resolution, so that a network makes it larger: in every latent frame, in part under noise.

The share s of noise is said with it: the branch for hints sees 1 - s and (1 - s) low + s noise, so that a share of 1 is not being told.
Noise in training hides what the clips of another model have and enlarged ones have not (Ho et al., cascaded diffusion).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.config import setting
from videodit.diffusion.tasks import Given
from videodit.shapes import Size, UserError

Grid = Float[Tensor, "b c f h w"]


@dataclass(frozen=True, kw_only=True)
class Upscale:
    """How many times larger a model makes rows and columns of a clip that it is told of, and under how much noise."""

    factor: int = setting(2, doc="how many times larger rows and columns become")
    most: float = setting(0.3, doc="largest share of noise in what is told: training draws evenly from 0 to it")
    softened: float = setting(0.1, doc="the share when sampling, unless asked otherwise: more where the clip has faults of its own")

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise UserError(f"upscale.factor takes 2 or more, not {self.factor}: leave [upscale] out for a model of clips of its own.")
        if not 0 <= self.most < 1 or not 0 <= self.softened <= self.most:
            raise UserError("upscale.most takes 0 up to, not including, 1, and upscale.softened 0 to upscale.most.")

    def lower(self, size: Size) -> Size:
        """The extent of what is told of a clip of this size."""
        for name, value in zip(Size._fields[1:], size[1:], strict=True):
            if value % self.factor:
                raise UserError(f"{value} {name} are not {self.factor} times as many as before: use multiples of {self.factor}.")
        return Size(size.frames, size.rows // self.factor, size.columns // self.factor)

    def shares(self, count: int, generator: torch.Generator) -> Float[Tensor, "b"]:
        """Shares of noise for training."""
        return self.most * torch.rand(count, generator=generator)


def told(low: Grid, noise: Grid, shares: Float[Tensor, "b"]) -> Given:
    """What a network is given that makes these clips larger: nothing is held, all is hinted at."""
    s = shares.to(low).view(-1, 1, 1, 1, 1)
    mask = (1 - s).expand(-1, -1, *low.shape[2:])
    hint = torch.cat([mask, low + s / (1 - s) * noise], dim=1)  # the branch multiplies by the mask
    return Given(torch.zeros_like(low[:, :1]), torch.zeros_like(low), low[:, :, :0], (), hint)
