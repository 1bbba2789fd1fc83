"""The patch discriminator of equation 4, in 3D: it says of every patch of a clip whether it is real."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.config import setting
from videodit.shapes import UserError

Says = Callable[[Tensor], Tensor]  # above 0: real


@dataclass(frozen=True, kw_only=True)
class Discriminator:
    """Isola's patch discriminator with a third axis; a group normalisation, since batches of clips are small."""

    width: int = setting(64, doc="channels after the first layer; each further one doubles them")
    depth: int = setting(3, doc="layers that halve rows and columns; all but the first halve frames too")

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 1:
            raise UserError(f"A discriminator takes a width and a depth of 1 or more, not {self.width} and {self.depth}.")

    @property
    def least(self) -> int:
        """Rows and columns of which it sees a patch."""
        return 3 * 2**self.depth


class PatchDiscriminator(nn.Module):
    def __init__(self, settings: Discriminator) -> None:
        super().__init__()
        widths = [3, *(settings.width * 2 ** min(i, 3) for i in range(settings.depth + 1))]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(widths)):
            halve = 2 if i < settings.depth else 1
            layers.append(nn.Conv3d(before, after, (3, 4, 4), stride=(halve if i else 1, halve, halve), padding=1))
            layers += [nn.GroupNorm(math.gcd(8, after), after)] * (i > 0)
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Conv3d(widths[-1], 1, (3, 4, 4), padding=1))

    def forward(self, video: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b one g y x"]:
        """Above 0: real."""
        return self.layers(video)


def fools(discriminator: Says, rebuilt: Float[Tensor, "b c f h w"]) -> Tensor:
    """The autoencoder's side: the more real its clips look, the lower."""
    return -discriminator(rebuilt).float().mean()


def tells(discriminator: Says, real: Float[Tensor, "b c f h w"], rebuilt: Float[Tensor, "b c f h w"]) -> Tensor:
    """The discriminator's side, a hinge: real patches over 1, rebuilt ones under -1."""
    return 0.5 * (F.relu(1 - discriminator(real).float()).mean() + F.relu(1 + discriminator(rebuilt).float()).mean())
