"""A model asked for scenes of a drawn world: the judge's table, beside the truth, drawn and rebuilt, and shuffled captions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from videodit.evaluate import surface, tasks
from videodit.evaluate.asked import DRAWS, Prompts, Task
from videodit.evaluate.intervals import of_mean, rows
from videodit.evaluate.judges import SEED, Judge
from videodit.evaluate.protocol import OWN, Asked, Card, Estimator, Figure, Sampled, Score, Seen, depended, of_figures
from videodit.generate import Generator
from videodit.models import Sampling, digest
from videodit.shapes import Size

BATCH = 20
ESTIMATOR = Estimator(resamples=DRAWS)
NEEDS = ("scipy", "diffusers", "tokenizers")  # the judges, the autoencoder, the text encoder
Clips = Sequence[dict[str, Any]]  # of each what was found, by name


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
    estimator: Estimator = ESTIMATOR,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Rates in 0..1: `model`; `truth`, the same scenes drawn; `rebuilt`, these through its autoencoder; `shuffled`, against other words.

    `flicker` and `sharpness` are the model's beside those of the truth, rebuilt and as it is. A task that is given frames adds what was
    measured of the others; a picture has no motion to judge. `figures` has the interval of each, by where it stands.
    """
    world, wanted = judge.world, judge.scenes(prompts, count)
    verdicts, truth, rebuilt, figures = [], [], [], []
    surfaces: dict[str, list[dict[str, float | None]]] = {"model": [], "rebuilt": [], "truth": []}
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
        surfaces["model"] += surface.figures(made.judged)
        surfaces["rebuilt"] += surface.figures(again)
        surfaces["truth"] += surface.figures(real)
        if progress:
            progress(min(start + BATCH, count), count)
    shuffled = [judge.score(verdict, wanted[i]) for verdict, i in zip(verdicts, others(count), strict=True)] if count > 1 else []
    scores = [judge.score(verdict, what) for verdict, what in zip(verdicts, wanted, strict=True)]
    judged = {"model": scores, "rebuilt": rebuilt, "truth": truth, "shuffled": shuffled}
    rates = {name: judge.rates(row, still=size.frames == 1) for name, row in judged.items()}
    asked = {"count": count, "prompts": prompts, "task": task, "seed": seed}
    if size.frames == 1:
        judged = {name: judge.of_pictures(row) for name, row in judged.items()}
    found = _of_rates(judge, judged, estimator) | _of_surfaces(surfaces, estimator) | _of_tasks(figures, estimator)
    sure = {"figures": {name: asdict(one) for name, one in found.items()}}
    return asked | rates | surface.beside(**surfaces) | tasks.summary(figures) | sure


def scored(result: dict[str, Any], judge: Judge, how: Sampling, size: Size, estimator: Estimator = ESTIMATOR, **fake: str) -> Score:
    """What was measured of a model (`fake`: its name, `fake_digest`), with its card; `how` and `size`: as it made its videos."""
    weights = "" if judge.weights is None else digest(judge.weights)
    prompts = [judge.world.prompt(what) for what in judge.scenes(result["prompts"], result["count"])]
    frames = 1 if result["task"] == "t2i" else size.frames
    card = Card(
        measure=judge.name,
        protocol=OWN,
        extractor=Seen(name=f"judge of {judge.name}", digest=weights, takes="frames as they are, in 0..255"),
        real=Asked(world=judge.name, prompts=result["prompts"], task=result["task"], count=result["count"], frames=frames),
        fake=Sampled(sampler=how.sampler, steps=how.steps, guidance=how.guidance, seed=result["seed"]),
        real_digest=judge.world.content(),
        extent=(size.rows, size.columns),
        crop="none",
        words=hashlib.sha256("\n".join(prompts).encode()).hexdigest(),
        estimator=estimator,
        versions=depended(*NEEDS),
    )
    return of_figures(result["figures"], card=card, **fake)


def _of_rates(judge: Judge, judged: Mapping[str, Clips], estimator: Estimator) -> dict[str, Figure]:
    """What chance gives, for the model's, is what its videos have of other scenes' words."""
    names = ("all", *judge.parts)
    found = {
        f"{row}.{name}": of_mean(rows([one[name] for one in clips]), estimator, least=0.0, most=1.0)
        for row, clips in judged.items()
        for name in names
    }
    chance = {f"model.{name}": one.value for name in names if (one := found[f"shuffled.{name}"])}
    return {name: replace(one, floor=chance.get(name)) for name, one in found.items() if one}


def _of_surfaces(surfaces: Mapping[str, Clips], estimator: Estimator) -> dict[str, Figure]:
    found = {}
    for name in surface.FIGURES:
        held = {row: rows([one[name] for one in clips]) for row, clips in surfaces.items()}
        held["ratio"] = torch.stack([held["model"][:, 0], held["truth"][:, 0]], 1)
        found |= {f"{name}.{row}": of_mean(clips, estimator, least=0.0) for row, clips in held.items()}
    return {name: one for name, one in found.items() if one}


def _of_tasks(measured: Clips, estimator: Estimator) -> dict[str, Figure]:
    """Of a task that is given frames: PSNR, beside the better copy, and how much changes where chunks meet."""
    if not measured or "model" not in measured[0]:
        return {}
    errors = {name: rows([one[name] for one in measured]) for name in ("model", "repeat", "blend", "given")}
    found = {name: of_mean(clips, estimator, told=tasks.psnr, digits=3) for name, clips in errors.items()}
    best = max(one.value for name in ("repeat", "blend") if (one := found[name]))
    named = {"psnr": found["model"] and replace(found["model"], floor=best), "given_psnr": found["given"]}
    if "seam" in measured[0]:
        named["seam"] = of_mean(rows([one["seam"] for one in measured]), estimator, digits=3)
    return {name: one for name, one in named.items() if one}


def others(count: int) -> np.ndarray:
    """Whose words each video is held against: of the orders that a seed draws, the first in which none meets its own."""
    rng = np.random.default_rng(SEED)
    while True:
        order = rng.permutation(count)
        if count < 2 or (order != np.arange(count)).all():
            return order
