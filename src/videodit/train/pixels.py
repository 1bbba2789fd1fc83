"""What an autoencoder's run reads: clips of video files, of a drawn world, or of both. Clip i is a function of (seed, i)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from videodit.data.clips import Clips, shots, window
from videodit.shapes import Size

Drawn = Callable[[int, np.random.Generator], np.ndarray]  # clip of a drawn world: index, chance -> f h w 3


class Pixels:
    """As often as `clips.share` says a clip is of the files, where there are any; else it is drawn."""

    def __init__(self, seed: int, size: Size, clips: Clips, drawn: Drawn) -> None:
        self.seed, self.size, self.clips, self.drawn = seed, size, clips, drawn
        self.shots = shots(clips, size)

    def batch(self, start: int, count: int) -> Float[Tensor, "b c f h w"]:
        """Clips `start` and on, in -1..1."""
        videos = [torch.from_numpy(np.ascontiguousarray(self.clip(index))) for index in range(start, start + count)]
        return torch.stack(videos).permute(0, 4, 1, 2, 3).float() / 127.5 - 1

    def clip(self, index: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, index, 8])
        return window(self.shots, self.size, self.clips.every, rng) if self.filmed(index) else self.drawn(index, rng)

    def filmed(self, index: int) -> bool:
        """Whether a clip is of the files."""
        return bool(self.shots) and np.random.default_rng([self.seed, index, 9]).random() < self.clips.share
