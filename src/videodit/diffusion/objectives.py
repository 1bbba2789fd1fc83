"""What the network is asked: t = 0 is data, t = 1 is noise, and the velocity is noise - clean (SD3's convention)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def spread(t: Float[Tensor, "b"], like: Tensor) -> Tensor:
    """One time a clip, shaped to multiply a grid."""
    return t.view(-1, *(1,) * (like.ndim - 1))


def corrupt(clean: Float[Tensor, "b c f h w"], noise: Float[Tensor, "b c f h w"], t: Float[Tensor, "b"]) -> Float[Tensor, "b c f h w"]:
    """The straight line from data to noise."""
    t = spread(t, clean)
    return (1 - t) * clean + t * noise


def target(clean: Float[Tensor, "b c f h w"], noise: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
    """The velocity along that line."""
    return noise - clean
