"""The layouts by name: what each block of a transformer attends to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from videodit.backbone.layouts import (
    ColumnAttention,
    GlobalAttention,
    LocalAttention,
    RowAttention,
    SparseAttention,
    SpatialAttention,
    SplitAttention,
    TemporalAttention,
    WindowAttention,
)
from videodit.shapes import UserError

Variant = Literal[
    "global", "spatial", "late", "interleaved", "factorised", "split", "divided", "axial", "local-global", "windows", "beside"
]  # fmt: skip
BLOCKS: dict[str, Callable[[int], list[nn.Module]]] = {  # told how wide a window is
    "global": lambda window: [GlobalAttention()],
    "spatial": lambda window: [SpatialAttention()],
    "temporal": lambda window: [TemporalAttention()],
    "factorised": lambda window: [SpatialAttention(), TemporalAttention()],
    "split": lambda window: [SplitAttention()],
    "divided": lambda window: [TemporalAttention(), SpatialAttention()],
    "axial": lambda window: [TemporalAttention(), RowAttention(), ColumnAttention()],
    "local-global": lambda window: [LocalAttention(), SparseAttention()],
    "window": lambda window: [WindowAttention(window)],
    "shifted": lambda window: [WindowAttention(window, shifted=True)],
}
TURNS: dict[str, tuple[str, ...]] = {"interleaved": ("spatial", "temporal"), "windows": ("window", "temporal", "shifted", "temporal")}
STILL = ("spatial", "window", "shifted")  # which see one frame
SHAPED = ("axial", "local-global", "windows")  # which need the grid as it is
LEAST = {1: ("channels", "width", "depth", "heads", "patch", "tube", "window"), 0: ("text", "pooled", "labels", "picture", "twice")}
BRANCHES = ("video.", "given.", "hints.", "picture.")  # beside the blocks, what an image model lacks
NEW = {"joint", "to_words", "to_video"}  # parts of the names of what stands beside an image model's blocks
DOC = (
    "half of the blocks in space, then half in time (late), in turns (interleaved), space then time in each block (factorised), half of "
    "the heads each (split); time then space (divided); time, rows, columns (axial); quarters of the frame, then every second token "
    "(local-global); time and windows in turns, every second window shifted (windows); each block frozen over frames and a copy of it over "
    "the clip (beside)"
)


def sound(shape: Any) -> None:
    """Refuse a shape of which no transformer can be made."""
    for least, names in LEAST.items():
        for name in names:
            if (value := getattr(shape, name, least)) < least:
                raise UserError(f"{name} takes {least} or more, not {value}.")
    if shape.width % shape.heads or shape.width % 2:
        raise UserError(f"A width of {shape.width} does not go with {shape.heads} heads: it is even, and a multiple of them.")


def freeze(network: nn.Module) -> None:
    """Where blocks stand beside an image model's, only what that had not learns."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(BRANCHES) or bool(NEW & set(name.split("."))))


def arranged(layout: str, depth: int) -> tuple[str, ...]:
    """What each block is, a name of BLOCKS."""
    half = depth // 2
    if layout == "late":
        return ("spatial",) * (depth - half) + ("temporal",) * half
    turns = TURNS.get(layout, (layout,))
    return (turns * depth)[:depth]
