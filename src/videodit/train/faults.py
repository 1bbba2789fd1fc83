"""What goes wrong in passing: signals, numbers that are not finite, and two runs in one folder."""

from __future__ import annotations

import fcntl
import math
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from torch import nn

from videodit.config import setting
from videodit.parallel.sharding import whole
from videodit.shapes import UserError
from videodit.train.progress import note

ABORTED = 128 + signal.SIGKILL
NAMED = 4  # clips or files of passes that are not finite
GRACE = 1.0  # seconds that an abort leaves Python to unwind
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The user, or the machine's keeper, stopped a run; its checkpoint is written. `status` is the exit status: 130 or 143."""

    def __init__(self, *said: Any, number: int = signal.SIGINT) -> None:
        super().__init__(*said)
        self.status = 128 + number


class Aborted(KeyboardInterrupt):
    """A second signal: nothing more is written."""

    status = ABORTED


@dataclass(frozen=True, kw_only=True)
class Faults:
    skip: int = setting(3, doc="the run stops at so many steps in a row whose loss or gradient is not finite; fewer are left out")
    wait: float = setting(
        8.0, doc="seconds that processes wait for one that does nothing; eight times as many for one that is late and works"
    )

    def __post_init__(self) -> None:
        if self.skip < 1 or self.wait < 2:
            raise UserError(f"faults.skip takes 1 or more and faults.wait 2 or more, not {self.skip} and {self.wait:g}")


@contextmanager
def stopping() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM so that the step under way is finished; a second one ends at once, even inside a kernel."""
    caught: list[int] = []

    def heard(number: int, frame: Any) -> None:
        caught.append(number)
        if len(caught) > 1:
            raise Aborted("Stopped at once; the last checkpoint is good.")
        note("Stopping after this step; once more stops at once.")

    try:
        before = {number: signal.signal(number, heard) for number in SIGNALS}
    except ValueError:  # not the main thread: whoever runs us there stops us in another way
        yield caught
        return
    end, start = os.pipe()
    os.set_blocking(start, False)
    over, outer = Event(), signal.set_wakeup_fd(start, warn_on_full_buffer=False)
    Thread(target=_abort_at_second, args=(end, over), daemon=True, name="signals").start()
    try:
        yield caught
    finally:
        over.set()
        signal.set_wakeup_fd(outer)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(start)


def _abort_at_second(end: int, over: Event) -> None:
    """Python hears of a signal between two of its own instructions, which may be a whole pass away; this thread hears at once."""
    count = 0
    while heard := os.read(end, 16):
        count += sum(number in SIGNALS for number in heard)
        if count > 1 and not over.wait(GRACE):
            os._exit(ABORTED)
    os.close(end)


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Refuse a folder that another run is writing into; a lock ends with its process, however that ends."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = (output / ".lock").open("w")
    except OSError:  # of which the record of the run speaks
        yield
        return
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise UserError(f"Another run is writing into {output}: wait until it ends, or choose another folder by output.") from error
        except OSError:  # a file system that knows no locks
            pass
        yield


def is_finite(losses: Iterable[float], norms: Iterable[float]) -> bool:
    return all(map(math.isfinite, (*losses, *norms)))


def layer(networks: Sequence[nn.Module]) -> str | None:
    """The parameter whose gradient was the first in the backward pass not to be finite; None where all are."""
    for network in networks:
        for name, p in reversed(list(network.named_parameters())):
            if p.grad is not None and not torch.isfinite(whole(p.grad)).all():
                return name
    return None


def sentence(step: int, passes: Mapping[int, Sequence[str]], where: str | None) -> str:
    """What was not finite, with the first of the clips or files of such passes, and where; counted from 1 as the log does, passes from 0
    as they are drawn."""
    of = f"pass{'' if len(passes) == 1 else 'es'} {', '.join(map(str, passes))}"
    if names := list(dict.fromkeys(name for each in passes.values() for name in each)):
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        of += f" ({', '.join(names[:NAMED])}{more})"
    return f"step {step + 1}, {of}, " + (f"first in the gradient of {where}" if where else "in the loss alone")


def broken(steps: int, fault: str | None) -> str:
    return (
        f"The loss or gradient of {steps} step{'s' if steps > 1 else ''} in a row is not finite: lower optimizer.learning_rate; "
        f"the last checkpoint is good (the last such: {fault})."
    )
