"""A model asked for scenes of a drawn world: the judge's table, beside the truth, drawn and rebuilt, and shuffled captions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from videodit.evaluate import surface, tasks
from videodit.evaluate.asked import Prompts, Task
from videodit.evaluate.judges import SEED, Judge
from videodit.generate import Generator

BATCH = 20


def measure(
    model: Generator,
    judge: Judge,
    *,
    prompts: Prompts = "held-out",
    task: Task = "t2v",
    count: int = 200,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Rates in 0..1: `model`; `truth`, the same scenes drawn; `rebuilt`, these through its autoencoder; `shuffled`, against other words.

    `flicker` and `sharpness` are the model's beside those of the truth, rebuilt and as it is. A task that is given frames adds what was
    measured of the others; a picture has no motion to judge.
    """
    world, wanted = judge.world, judge.scenes(prompts, count)
    verdicts, truth, rebuilt, figures = [], [], [], []
    surfaces: dict[str, list[dict[str, float | None]]] = {"made": [], "rebuilt": [], "truth": []}
    size = model.size._replace(frames=1) if task == "t2i" else model.size
    for start in range(0, count, BATCH):
        part = wanted[start : start + BATCH]
        made = tasks.make(task, model, world, part, start, seed=seed, steps=steps, guidance=guidance)
        real = [world.render(what, size) for what in part]
        verdicts += [judge.judge(video) for video in made.judged]
        truth += [judge.score(judge.judge(video), what) for video, what in zip(real, part, strict=True)]
        again = model.rebuilt(np.stack(real))
        rebuilt += [judge.score(judge.judge(video), what) for video, what in zip(again, part, strict=True)]
        figures += made.figures
        surfaces["made"] += surface.figures(made.judged)
        surfaces["rebuilt"] += surface.figures(again)
        surfaces["truth"] += surface.figures(real)
        if progress:
            progress(min(start + BATCH, count), count)
    shuffled = [judge.score(verdict, wanted[i]) for verdict, i in zip(verdicts, others(count), strict=True)] if count > 1 else []
    scores = [judge.score(verdict, what) for verdict, what in zip(verdicts, wanted, strict=True)]
    rows = {"model": scores, "rebuilt": rebuilt, "truth": truth, "shuffled": shuffled}
    rates = {name: judge.rates(row, still=size.frames == 1) for name, row in rows.items()}
    asked = {"count": count, "prompts": prompts, "task": task, "seed": seed}
    return asked | rates | surface.beside(**surfaces) | tasks.summary(figures)


def others(count: int) -> np.ndarray:
    """Whose words each video is held against: of the orders that a seed draws, the first in which none meets its own."""
    rng = np.random.default_rng(SEED)
    while True:
        order = rng.permutation(count)
        if count < 2 or (order != np.arange(count)).all():
            return order
