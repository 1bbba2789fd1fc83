"""The toybox evaluation: the judge's table for a model, and beside it for rendered truth and for shuffled captions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from videodit.data import toybox
from videodit.data.toybox import Scene
from videodit.evaluate import tasks
from videodit.evaluate.tasks import Task
from videodit.evaluate.toybox import judge, score, table
from videodit.generate import Generator

Prompts = Literal["held-out", "seen", "two"]
SEED = 20_000  # of the scenes that are asked for: no training run has it
BATCH = 20


def scenes(prompts: Prompts, count: int) -> list[Scene]:
    """The scenes whose prompts are asked: combinations held out of training, seen in it, or two things from it."""
    if prompts == "two":
        return [toybox.scene(SEED, i, objects=2) for i in range(count)]
    return [toybox.scene(SEED, i, split="held-out" if prompts == "held-out" else "train", objects=1) for i in range(count)]


def toybox_table(
    model: Generator,
    *,
    prompts: Prompts = "held-out",
    task: Task = "t2v",
    count: int = 200,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Rates in 0..1: `model`; `truth`, the same scenes drawn; `shuffled`, the model's videos against the next scene's words.

    A task that is given frames adds what was measured of the others; a picture has no motion to judge.
    """
    wanted = scenes(prompts, count)
    verdicts, truth, figures = [], [], []
    size = model.size._replace(frames=1) if task == "t2i" else model.size
    for start in range(0, count, BATCH):
        part = wanted[start : start + BATCH]
        made = tasks.make(task, model, part, start, seed=seed, steps=steps, guidance=guidance)
        verdicts += [judge(video) for video in made.judged]
        figures += made.figures
        truth += [score(judge(toybox.render(what, size)), what) for what in part]
        if progress:
            progress(min(start + BATCH, count), count)
    order = np.random.default_rng(SEED).permutation(count)
    shuffled = [score(verdict, wanted[i]) for verdict, i in zip(verdicts, order, strict=True)]
    scores = [score(verdict, what) for verdict, what in zip(verdicts, wanted, strict=True)]
    rows = {"model": scores, "truth": truth, "shuffled": shuffled}
    rates = {name: _rates(row, still=task == "t2i") for name, row in rows.items()}
    return {"count": count, "prompts": prompts, "task": task, "seed": seed, **rates, **tasks.summary(figures)}


def _rates(scores: list[dict[str, Any]], *, still: bool) -> dict[str, float | None]:
    """Of a picture, all is its shape and its colour."""
    if still:
        scores = [{**one, "all": one["shape"] and one["colour"]} for one in scores]
    means = table(scores)
    return {name: None if still and name == "motion" else round(float(means[name]), 4) for name in ("shape", "colour", "motion", "all")}
