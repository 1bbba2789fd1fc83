"""Several processes of one launch (torchrun) share a run: each takes its part of a step's passes, and all move alike.

A step is `accumulate` passes whoever computes them, so with as many processes as passes the weights are those of one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from videodit.shapes import UserError

PATIENCE = timedelta(hours=6)  # while the first process encodes a data set, or saves


@dataclass(frozen=True)
class Launch:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def share(self, accumulate: int) -> int:
        """How many passes of a step are this process's."""
        if accumulate % self.size:
            raise UserError(
                f"{self.size} processes cannot share the passes of a step, which accumulate={accumulate} says: set accumulate to a "
                f"multiple of {self.size}, and batch to as much less."
            )
        return accumulate // self.size

    def add(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Make every gradient the sum over all processes; where a process has none, it adds zero."""
        if self.size == 1:
            return
        every = [p for p in parameters if p.requires_grad]
        for p in every:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        gradients = [p.grad for p in every if p.grad is not None]
        whole = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(whole)
        for gradient, part in zip(gradients, whole.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def gathered(self, mine: Any) -> list[Any]:
        """What every process has, in their order."""
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, mine)
        return found

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes ahead, with everyone's threads: what it leaves on disk the others find."""
        threads = torch.get_num_threads()
        if self.size > 1 and not self.first:
            dist.barrier()
        torch.set_num_threads(threads * self.size if self.first else threads)
        yield
        torch.set_num_threads(threads)
        if self.size > 1 and self.first:
            dist.barrier()


@contextmanager
def joined(device: str) -> Iterator[Launch]:
    """The launch that this process belongs to; alone, it is a launch of one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Launch()
        return
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    try:
        yield Launch(dist.get_rank(), size)
        dist.barrier()
    finally:
        dist.destroy_process_group()
