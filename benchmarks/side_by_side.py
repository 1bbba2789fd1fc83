"""Two or more functions timed against each other in one process: taken in turns, least time of each, ratios to the first.

Between the turns a matrix multiplication of fixed size is timed. Where its times spread too far the machine is doing
something else, and no figure is given. With one thread it is the processor's time that counts, which other programs do not add to.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import torch

NOISE = 1.25  # the slowest quarter of the multiplications over the fastest


class Noisy(Exception):
    """The machine's speed changed too much while it was measured."""


def least_times(functions: dict[str, Callable[[], object]], *, repeats: int = 7) -> dict[str, float]:
    """Seconds of the fastest of `repeats` turns of each function, one turn of all before that for warming up."""
    weight = torch.randn(1024, 1024)
    ceiling, times = [], {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            gc.collect()
            ceiling.append(_seconds(lambda: [weight @ weight for _ in range(8)]))
            spent = _seconds(function)
            if turn:
                times[name].append(spent)
    ceiling.sort()
    spread = ceiling[len(ceiling) * 3 // 4] / ceiling[0]
    if spread > NOISE:
        raise Noisy(f"The machine is too noisy: the same multiplication took {spread:.2f} times its least time in a quarter of the tries.")
    return {name: min(values) for name, values in times.items()}


def _seconds(function: Callable[[], object]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    function()
    return clock() - start
