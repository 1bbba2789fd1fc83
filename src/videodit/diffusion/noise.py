"""Noise is a function of (seed, clip): the same for any batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def noise(seed: int, clips: Sequence[int], shape: tuple[int, ...]) -> Float[Tensor, "b c f h w"]:
    """Standard normal noise for each clip number, c f h w."""
    return torch.stack(
        [torch.from_numpy(np.random.Generator(np.random.Philox(key=[seed, clip])).standard_normal(shape, np.float32)) for clip in clips]
    )
