"""A run's figures for other programs to show."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from videodit.shapes import UserError

Track = Literal["nothing", "tensorboard"]
Told = Callable[[int, dict[str, float]], None]


def tracked(track: Track, output: Path, done: int) -> Told:
    """What is told each step's figures; a run that is taken up goes on where it stood."""
    return TRACKERS[track](output, done)


def _nothing(output: Path, done: int) -> Told:
    return lambda step, figures: None


def _tensorboard(output: Path, done: int) -> Told:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("track=tensorboard needs its package: pip install 'videodit[track]', or use track=nothing.") from error
    writer = SummaryWriter(str(output / "tensorboard"), purge_step=done + 1, flush_secs=10)

    def told(step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(re.sub(r" \[(.+)\]", r"/\1", name), value, step)

    return told


TRACKERS: dict[str, Callable[[Path, int], Told]] = {"nothing": _nothing, "tensorboard": _tensorboard}
