"""Blocks compiled for training: `torch.compile`, block by block, so that all blocks alike share one compilation."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.nn import functional as F

from videodit.shapes import Text, UserError

COMPILER = "g++"  # what torch.compile calls on a CPU, unless CXX names another
WORDS = 8  # sentences are as long as multiples of this: half a minute of compiling each, for what is given as for what is not
SHAPES = 64  # that one kind of block is compiled for; torch stops at 8, fewer than tasks, pictures and lengths have


def compile_blocks(blocks: Iterable[nn.Module], device: str, *, alike: bool) -> None:
    """Compile in place; `alike`: passes have few shapes, each of which is compiled for itself."""
    compiler = os.environ.get("CXX", COMPILER)
    if device == "cpu" and not shutil.which(compiler):
        raise UserError(f"compiled=true needs the C++ compiler {compiler}, which is not there: install it, or leave compiled out.")
    from torch._dynamo import config as dynamo  # which takes seconds

    dynamo.recompile_limit = max(dynamo.recompile_limit, SHAPES)
    for block in blocks:
        block.compile(dynamic=False if alike else None)


def evened(words: Text) -> Text:
    """With words that nobody attends to, so that sentences have few lengths."""
    if words.sequence is None or words.mask is None:
        return words
    more = -words.mask.shape[1] % WORDS
    return words._replace(sequence=F.pad(words.sequence, (0, 0, 0, more)), mask=F.pad(words.mask, (0, more)))


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
