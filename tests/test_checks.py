"""While tests run, every call is checked: axes that have to agree, and plain types."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError

from videodit.cli import terminal
from videodit.diffusion import samplers
from videodit.diffusion.times import Times


def test_shapes_are_checked() -> None:
    grid: Any = torch.zeros(1, 2, 1, 2, 2)
    times = Times().schedule(2)
    samplers.euler(lambda x, t: x, grid, times, lambda step: grid)
    with pytest.raises(TypeCheckError):
        samplers.euler(lambda x, t: x, grid[0], times, lambda step: grid)


def test_plain_types_are_checked_and_so_is_what_a_dataclass_is_made_of() -> None:
    wrong: Any = 3
    terminal.check_ranges(argparse.Namespace(count=1), ["count"])
    with pytest.raises(TypeError):
        terminal.check_ranges(argparse.Namespace(count=1), wrong)
    with pytest.raises(TypeError):
        Times(shift="much")  # type: ignore[arg-type]
