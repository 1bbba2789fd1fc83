"""Blocks compiled for training: `torch.compile`, block by block, so that all blocks alike share one compilation."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from torch import nn

from videodit.shapes import UserError

COMPILER = "g++"  # what torch.compile calls on a CPU, unless CXX names another


def compile_blocks(blocks: Iterable[nn.Module], device: str, *, alike: bool) -> None:
    """Compile in place; `alike`: passes have few shapes, each of which is compiled for itself."""
    compiler = os.environ.get("CXX", COMPILER)
    if device == "cpu" and not shutil.which(compiler):
        raise UserError(f"compiled=true needs the C++ compiler {compiler}, which is not there: install it, or leave compiled out.")
    for block in blocks:
        block.compile(dynamic=False if alike else None)
