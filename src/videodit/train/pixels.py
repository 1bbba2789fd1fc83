"""What an autoencoder's run reads: clips of files, of a drawn world, or of both. Clip i is a function of (seed, i)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from videodit.data.clips import Clips, shots, window
from videodit.data.sources import Filed, Files
from videodit.shapes import Size, UserError
from videodit.train.progress import counting

Drawn = Callable[[int, np.random.Generator], np.ndarray]  # clip of a drawn world: index, chance -> f h w 3


class Pixels:
    """As often as `clips.share` says a clip is of the files, where there are any; else it is drawn. `output`: the run's."""

    def __init__(self, seed: int, size: Size, data: Filed | None, clips: Clips, output: Path, drawn: Drawn) -> None:
        self.seed, self.size, self.share, self.drawn, self.shots = seed, size, clips.share, drawn, None
        if data is None:
            return
        report = output / "unreadable.jsonl"
        report.unlink(missing_ok=True)  # files may have been mended
        self.every = data.every
        self.shots = shots(data, clips, size, output.parent / "cache", report, counting("files read", each="file"))

    def batch(self, start: int, count: int) -> Float[Tensor, "b c f h w"]:
        """Clips `start` and on, in -1..1."""
        videos = [torch.from_numpy(np.ascontiguousarray(self.clip(index))) for index in range(start, start + count)]
        return torch.stack(videos).permute(0, 4, 1, 2, 3).float() / 127.5 - 1

    def clip(self, index: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, index, 8])
        return window(self.shots, self.size, self.every, rng) if self.shots and self.filmed(index) else self.drawn(index, rng)

    def filmed(self, index: int) -> bool:
        """Whether a clip is of the files."""
        return self.shots is not None and np.random.default_rng([self.seed, index, 9]).random() < self.share


def check(data: Filed | None) -> None:
    """Whether all that is said of files is asked for."""
    if data is not None and data.most != Files().most:
        raise UserError("data.most counts clips that are cut from a file, and this run draws them anywhere in it: leave it out.")
