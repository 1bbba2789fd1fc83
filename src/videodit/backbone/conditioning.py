"""The signal: diffusion time and pooled text as one vector, which scales, shifts and gates every block."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from videodit.backbone.positions import waves

TIME_WAVES = 256


class Signal(nn.Module):
    """t (0 data, 1 noise) and the pooled text to one vector."""

    def __init__(self, width: int, pooled: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(TIME_WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.text = nn.Sequential(nn.Linear(pooled, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Float[Tensor, "b"], pooled: Float[Tensor, "b e"]) -> Float[Tensor, "b d"]:
        return self.time(waves(t * 1000, TIME_WAVES).to(pooled.dtype)) + self.text(pooled)


class Modulation(nn.Module):
    """`count` vectors from the signal, zero at the start: every block begins as the identity."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.act, self.linear = nn.SiLU(), nn.Linear(width, count * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, signal: Float[Tensor, "b d"]) -> tuple[Float[Tensor, "b 1 d"], ...]:
        return self.linear(self.act(signal))[:, None].chunk(self.count, dim=-1)


def modulate(x: Float[Tensor, "b n d"], shift: Float[Tensor, "b 1 d"], scale: Float[Tensor, "b 1 d"]) -> Float[Tensor, "b n d"]:
    return x * (1 + scale) + shift
