"""Blocks compiled for training: `torch.compile`, block by block, so that all blocks alike share one compilation."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import nn

from videodit.shapes import UserError

COMPILER = "g++"  # what torch.compile calls on a CPU, unless CXX names another
SHAPES = 64  # that one kind of block is compiled for; torch stops at 8, fewer than the lengths that a run's sentences have


def compile_blocks(blocks: Iterable[nn.Module], device: str, *, alike: bool) -> None:
    """Compile in place; `alike`: passes have few shapes, each of which is compiled for itself."""
    compiler = os.environ.get("CXX", COMPILER)
    if device == "cpu" and not shutil.which(compiler):
        raise UserError(f"compiled=true needs the C++ compiler {compiler}, which is not there: install it, or leave compiled out.")
    from torch._dynamo import config as dynamo  # which takes seconds

    dynamo.recompile_limit = max(dynamo.recompile_limit, SHAPES)
    for block in blocks:
        block.compile(dynamic=False if alike else None)


@contextmanager
def excused(busy: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """In here a process that compiles is `busy`: the others, which may have compiled already, wait for it for a good reason."""
    try:
        from torch._dynamo.callback import callback_handler as compiler
    except ImportError:  # a torch that does not say when it compiles
        yield
        return
    with ExitStack() as begun:

        def begins(told: Any) -> None:
            begun.enter_context(busy())

        def ends(told: Any) -> None:
            begun.close()

        compiler.register_start_callback(begins)
        compiler.register_end_callback(ends)
        try:
            yield
        finally:
            compiler.remove_start_callback(begins)
            compiler.remove_end_callback(ends)
