"""Classifier-free guidance: the velocity with the text, pushed away from the one without."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from videodit.shapes import Text

Network = Callable[[Tensor, Tensor, Text], Tensor]
Field = Callable[[Tensor, Tensor], Tensor]


def guided(network: Network, text: Text, blank: Text, scale: float) -> Field:
    """A field (noisy, t) -> velocity; both texts, of equal length, are evaluated in one batch."""
    if scale == 1.0:
        return lambda noisy, t: network(noisy, t, text)
    both = Text(*(None if one is None or two is None else torch.cat([one, two]) for one, two in zip(text, blank, strict=True)))

    def field(noisy: Tensor, t: Tensor) -> Tensor:
        with_text, without = network(torch.cat([noisy, noisy]), torch.cat([t, t]), both).chunk(2)
        return without + scale * (with_text - without)

    return field
