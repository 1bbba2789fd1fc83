"""Who shares a sequence: clips of any extent side by side, up to as many tokens as a sequence has; and which sequences share a step."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from videodit.shapes import UserError


def pack(tokens: Sequence[int], budget: int) -> list[list[int]]:
    """Every clip in one sequence of at most `budget` tokens: the longest first, each where it leaves the least room."""
    if tokens and max(tokens) > budget:
        raise UserError(f"A clip of {max(tokens)} tokens does not fit a sequence of {budget}: raise the budget, or take smaller buckets.")
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []  # what is left, and in which; in order
    for clip in sorted(range(len(tokens)), key=lambda i: -tokens[i]):
        at = bisect_left(room, (tokens[clip], 0))
        if at == len(room):
            left, pack = budget, len(packs)
            packs.append([])
        else:
            left, pack = room.pop(at)
        packs[pack].append(clip)
        insort(room, (left - tokens[clip], pack))
    return packs


def useful(tokens: Sequence[int], packs: Sequence[Sequence[int]], budget: int) -> float:
    """The part of computed tokens that belong to clips, where every sequence is filled up to the budget."""
    return sum(tokens[clip] for pack in packs for clip in pack) / (budget * len(packs)) if packs else 1.0


def dealt(costs: Sequence[float | int], ranks: int, seed: int) -> tuple[list[list[int]], list[int]]:
    """Steps of one sequence for each rank, in an order that the seed decides, and those left for the next deal, fewer than ranks.

    Neighbours in cost share a step. Left are those without which ranks wait least for each other. Deal some 50 sequences a rank at a time:
    of fewer, neighbours differ.
    """
    order = sorted(range(len(costs)), key=lambda i: costs[i])
    spare = len(costs) % ranks
    best = np.full((len(costs) + 1, spare + 1), np.inf)  # of the cheapest so many, with so many left: the time of all steps
    best[0, 0] = 0
    for n in range(1, len(costs) + 1):
        best[n, 1:] = best[n - 1, :-1]
        if n >= ranks:
            best[n] = np.minimum(best[n], best[n - ranks] + costs[order[n - 1]])
    steps, left, n = [], [], len(costs)
    while n:
        if spare and best[n, spare] == best[n - 1, spare - 1]:
            n, spare = n - 1, spare - 1
            left.append(order[n])
        else:
            n -= ranks
            steps.append(order[n : n + ranks])
    rng = np.random.default_rng([seed, len(costs)])
    drawn = [[int(i) for i in rng.permutation(step)] for step in steps]
    return [drawn[at] for at in rng.permutation(len(steps))], left


def imbalance(costs: Sequence[float | int], steps: Sequence[Sequence[int]]) -> float:
    """By how much the ranks' waiting for the slowest prolongs all steps together."""
    slowest = sum(max(costs[i] for i in step) * len(step) for step in steps)
    return slowest / sum(costs[i] for step in steps for i in step) - 1
