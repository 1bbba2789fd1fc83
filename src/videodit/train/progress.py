"""What a run tells while it lasts: a bar on a terminal, now and then a line elsewhere; all on standard error."""

from __future__ import annotations

import io
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

SECONDS = 20.0  # between two lines where there is no terminal


class Progress:
    """Follows a run: `step(step, total, figures)` after each step. One process of a launch talks, the others are silent."""

    def __init__(
        self, stream: io.TextIOBase | None = None, *, seconds: float = SECONDS, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        self.stream: Any = stream or sys.stderr
        self.seconds, self.device, self.precision = seconds, device, precision
        self._done = {"tokens": 0.0, "operations": 0.0}  # since the first call
        self._ceiling = 0.0
        self.talks = os.environ.get("RANK", "0") == "0"
        self._bar: Bar | None = None
        self._begun: tuple[int, float] | None = None  # step and time of the first call: a run may be taken up in its middle
        self._told = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar:
            self._bar.stop()

    def begins(self, device: str, precision: str) -> None:
        """A run, or another stage of one, whose steps are counted from here."""
        self.__exit__()
        self._bar = self._begun = None
        if (device, precision) != (self.device, self.precision):
            self.device, self.precision, self._ceiling = device, precision, 0.0

    def step(self, step: int, total: int, figures: dict[str, float]) -> None:
        now = time.monotonic()
        first = self._begun is None
        began, at = self._begun = self._begun or (step, now)
        if not self.talks:
            return
        rate = (step - began) / (now - at) if step > began and now > at else 0.0
        self._done = {name: 0.0 if first else done + figures.get(name, 0.0) for name, done in self._done.items()}
        if self.stream.isatty():
            self._show(step, total, told(rate, figures, self._work(now - at)))
        elif first or step >= total or now - self._told >= self.seconds:
            self._told = now
            left = f"{span((total - step) / rate)} left, " if rate and step < total else ""
            print(f"step {step}/{total}, {left}{told(rate, figures, self._work(now - at))}", file=self.stream, flush=True)

    def _work(self, seconds: float) -> list[str]:
        """Tokens a second, what part of the machine's fastest product of matrices that is, and the most memory held."""
        memory = [f"{held(self.device) / 2**30:.1f} GiB"]
        if not self._done["tokens"] or not seconds:
            return memory
        self._ceiling = self._ceiling or ceiling(self.device, self.precision) * int(os.environ.get("WORLD_SIZE", "1"))
        share = self._done["operations"] / seconds / self._ceiling
        return [f"{self._done['tokens'] / seconds:.3g} tokens/s ({100 * share:.0f} % of peak)", *memory]

    def _show(self, step: int, total: int, text: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False)
            self._bar = Bar(*columns, console=Console(file=self.stream), refresh_per_second=4)
            self._bar.add_task("", total=total, completed=step)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=step, description=text)


def told(rate: float, figures: dict[str, float], work: Sequence[str] = ()) -> str:
    """'2.5 steps/s, loss 0.1234': a slow run counts seconds a step instead; what is told by parts is left to the log."""
    speed = [pace(rate, "step")] if rate else []
    shown = {name: value for name, value in figures.items() if " [" not in name and name not in ("tokens", "operations")}
    return ", ".join([*speed, *work, *(f"{name} {value:.4g}" for name, value in shown.items())])


def pace(rate: float, each: str) -> str:
    return f"{rate:.3g} {each}s/s" if rate >= 1 else f"{1 / rate:.3g} s/{each}"


def held(device: str) -> int:
    """The most bytes that this process has held, of the device's memory."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def ceiling(device: str, precision: str, side: int = 1024) -> float:
    """Multiply-adds a second of the product of two large matrices: the best of a few."""
    import torch

    a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    best = 0.0
    for _ in range(4):
        start = time.perf_counter()
        float((a @ a)[0, 0])  # which waits for the device
        best = max(best, side**3 / (time.perf_counter() - start))
    return best


def span(seconds: float) -> str:
    hours, minutes = int(seconds // 3600), int(seconds % 3600 // 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {int(seconds % 60):02d} s"


def counting(what: str, stream: io.TextIOBase | None = None, *, each: str = "clip", seconds: float = SECONDS) -> Callable[[int, int], None]:
    """Follows work: `counting("clips encoded")(done, total)` is a line that counts on a terminal, elsewhere one now and then.

    The rate is that since the first call, which may find work taken up in its middle; a count that falls is other work.
    """
    to: Any = stream or sys.stderr
    told = time.monotonic()
    begun, last, spoken = (0, told), 0, False

    def count(done: int, total: int) -> None:
        nonlocal told, begun, last, spoken
        now = time.monotonic()
        if done < last or not last:
            begun = done, now
        last = done
        if os.environ.get("RANK", "0") != "0" or not (to.isatty() or now - told >= seconds or (spoken and done >= total)):
            return
        told, spoken = now, done < total
        rate = (done - begun[0]) / (now - begun[1]) if now > begun[1] else 0.0
        left = [f"{span((total - done) / rate)} left"] if rate and done < total else []
        line = ", ".join([f"{what}: {done}/{total}", *([pace(rate, each)] if rate else []), *left])
        print(f"\r{line:<76}" if to.isatty() else line, end="" if to.isatty() and done < total else "\n", file=to, flush=True)

    return count


def note(line: str) -> None:
    """A line for people, above the bar if there is one."""
    print(line, file=sys.stderr, flush=True)
