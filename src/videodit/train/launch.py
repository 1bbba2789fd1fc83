"""Several processes of one launch (torchrun) share a run: each takes its part of a step's passes, and all move alike.

A step is `accumulate` passes whoever computes them, so with as many processes as passes the weights are those of one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from videodit.parallel.sharding import in_shards
from videodit.shapes import UserError
from videodit.train.compiling import excused
from videodit.train.pulse import Lost, Pulse, cut

PATIENCE = timedelta(hours=6)  # while the first process encodes a data set, or saves; who is gone or hangs is found by the pulse


@dataclass(frozen=True)
class Launch:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1
    pulse: Pulse | None = None
    sequence: int = 1  # processes, next to each other, that compute the same passes
    shared: bool = False  # whether processes need each other within a pass

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    @property
    def readers(self) -> int:
        """How many there are that read different passes."""
        return self.size // self.sequence

    @property
    def reader(self) -> int:
        """Which of them this process belongs to."""
        return self.rank // self.sequence

    def share(self, accumulate: int) -> int:
        """How many passes of a step are this process's."""
        if accumulate % self.readers:
            raise UserError(
                f"{self.readers} processes cannot share the passes of a step, which accumulate={accumulate} says: set accumulate to a "
                f"multiple of {self.readers}, and batch to as much less."
            )
        return accumulate // self.readers

    def add(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Make every gradient the sum over all processes; where one has none, it adds zero, and where none has any, there stays none, as
        in a process alone: the optimiser leaves such weights as they are. Shards are added already."""
        if self.size == 1:
            return
        every = [p for p in parameters if p.requires_grad and not in_shards(p)]
        if not every:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in every]
        mine = gradients[0].new_tensor([float(p.grad is not None) for p in every])
        whole = torch.cat([*(g.flatten() for g in gradients), mine])
        with self._meeting():
            dist.all_reduce(whole)
        *parts, having = whole.split([*(g.numel() for g in gradients), len(every)])
        for p, gradient, part, have in zip(every, gradients, parts, having.tolist(), strict=True):
            p.grad = gradient.copy_(part.view_as(gradient)) if have else None

    def gathered(self, mine: Any) -> list[Any]:
        """What every process has, in their order."""
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        with self._meeting():
            dist.all_gather_object(found, mine)
        return found

    def _meeting(self) -> AbstractContextManager[None]:
        return self.pulse.meeting() if self.pulse else nullcontext()

    def busy(self) -> AbstractContextManager[None]:
        """The others wait for this process for a good reason, such as a slow disk."""
        return self.pulse.busy() if self.pulse else nullcontext()

    @contextmanager
    def stepping(self, wait: float) -> Iterator[None]:
        """In here nobody may be behind the others by more than so many seconds, unless it is busy or compiles."""
        if self.pulse:
            self.pulse.wait = wait
        try:
            with excused(self.busy):
                yield
        except RuntimeError as error:  # passes that processes compute together send much outside of meetings
            if self.pulse and cut(error):
                raise self.pulse.lost() from error
            raise
        if self.pulse:
            self.pulse.wait = None

    def together(self) -> AbstractContextManager[None]:
        """Inside a pass that processes may compute together: who does not come to it is waited for."""
        return self.pulse.together() if self.pulse and self.shared else nullcontext()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes ahead, with everyone's threads: what it leaves on disk the others find."""
        threads = torch.get_num_threads()
        if self.size > 1 and not self.first:
            self._barrier()
        torch.set_num_threads(threads * self.size if self.first else threads)
        yield
        torch.set_num_threads(threads)
        if self.size > 1 and self.first:
            self._barrier()

    def _barrier(self) -> None:
        with self._meeting():
            dist.barrier()


def there(device: str) -> None:
    """Refuse a device that this machine has not."""
    kind, _, number = device.partition(":")
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(kind, 1)
    if int(number or 0) >= count:
        raise UserError(f"There is no {device} here: set device=cpu, or another that `videodit doctor` finds.")


@contextmanager
def joined(device: str, *, offload: bool = False) -> Iterator[Launch]:
    """The launch that this process belongs to; alone, it is a launch of one. `offload`: what is in main memory is sent too."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Launch()
        return
    if device == "cuda" and (count := torch.cuda.device_count()):  # each process of a machine has a GPU of its own
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % count)
    backend = ("cpu:gloo,cuda:nccl" if offload else "nccl") if device.startswith("cuda") else "gloo"
    if again := int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        dist.init_process_group(backend, store=_apart(again), rank=int(os.environ["RANK"]), world_size=size, timeout=PATIENCE)
    else:
        dist.init_process_group(backend, timeout=PATIENCE)
    pulse = Pulse(dist.get_rank(), size)
    launch = Launch(dist.get_rank(), size, pulse)
    dist.barrier()
    pulse.start()
    try:
        yield launch
        with pulse.meeting():
            dist.barrier()
        pulse.end()
    except Lost:  # the connections may wait for ever
        raise
    except (UserError, KeyboardInterrupt):  # as the others do
        pulse.end()
        raise
    except Exception as error:
        pulse.failed(error)
        raise
    finally:
        if not pulse.verdict:
            dist.destroy_process_group()


def _apart(again: int) -> Any:
    """The store that processes meet at once more: torchrun's keeps the addresses of those that are gone, which must not be found."""
    hosts = os.environ["RANK"] == "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    place, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(place, port, is_master=hosts, timeout=timedelta(minutes=5))  # pyright: ignore[reportPrivateImportUsage]
    return dist.PrefixStore(f"again-{again}", store)  # pyright: ignore[reportPrivateImportUsage]
