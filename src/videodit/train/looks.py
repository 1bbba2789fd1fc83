"""What a transformer makes while it learns, at every so many steps: videos, the judge's score, and its loss on clips it does not learn."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from videodit.autoencoder import PerFrame
from videodit.config import setting
from videodit.data import sources, video
from videodit.data.buckets import One
from videodit.data.cache import remembered
from videodit.data.labels import Labels
from videodit.data.sources import Drawn, Filed
from videodit.diffusion.tasks import Tasks
from videodit.evaluate import judges
from videodit.evaluate.judges import Judge
from videodit.generate import Generator
from videodit.models import Model
from videodit.shapes import UserError
from videodit.train.parts import encoded
from videodit.train.pools import Pool, cache, pools, scenes_key

if TYPE_CHECKING:
    from videodit.train.backbone import BackboneRun

SEED = 40_000  # of the held-out scenes of a drawn world that are looked at: neither training nor `evaluate` has it
BATCH = 8
BINS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What is looked at while a run lasts; no step depends on it."""

    every: int = setting(0, doc="steps between looks, and one at the end; 0: never")
    clips: int = setting(8, doc="videos made at each look, kept in OUTPUT/samples")
    held: int = setting(32, doc="clips that are not trained, and as many that are, whose loss is measured at each look; 0: none")
    prompts: tuple[str, ...] = setting((), doc="what the videos are of; without any the clips that are not trained are asked for")
    data: Filed | None = setting(
        None, doc="clips that are not trained, of a run on files; drawn worlds hold out their own, which are judged"
    )

    def __post_init__(self) -> None:
        if self.every < 0 or self.clips < 1 or self.held < 0:
            raise UserError("looks takes every and held of 0 or more, and clips of 1 or more.")


class Held(NamedTuple):
    """Clips to look at: latents (n c f h w), their words; of those not trained what is asked for, and of drawn worlds the scenes."""

    latents: Tensor
    said: list[str]
    asked: Sequence[str] = ()
    scenes: Sequence[Any] = ()
    judge: Judge | None = None


def held(settings: BackboneRun, autoencoder: PerFrame, takes: str) -> Held:
    """Clips, or pictures where a run has no clips."""
    looks, moving = settings.looks, settings.joint.video_probability > 0
    if looks.prompts and takes != "text":
        raise UserError(f"looks.prompts are words, and this model is told {takes if takes == 'nothing' else 'labels'}: leave them out.")
    if isinstance(settings.data, Drawn):
        judge = judges.judge(settings.data)
        size, world = settings.size if moving else settings.size._replace(frames=1), judge.world
        draw = world.clip if moving else world.picture
        drawn = [draw(SEED, i, size, split="held-out") for i in range(max(looks.clips, looks.held))]
        frames = [one.video for one in drawn]
        parts = {"latents": lambda pixels: autoencoder.encode(pixels).mode()}
        key = scenes_key(settings.data, SEED, size, autoencoder, settings.precision) | {"split": "held-out", "count": looks.held}
        make = partial(encoded, settings, lambda start, stop: frames[start:stop], looks.held, parts)
        latents = remembered(cache(settings), key, make)["latents"] if looks.held else torch.zeros(0)
        said, shown = [one.caption for one in drawn], [one.scene for one in drawn]
        asked = [world.prompt(what) for what in shown] if moving else said
        labels = [getattr(what.things[0], settings.labels) for what in shown] if takes == "label" else []
        return Held(latents, labels or said, asked, shown, judge)
    if looks.data is None:
        words = [words for item in sources.items(settings.data) for words in item.captions[:1]]
        return Held(torch.zeros(0), words[: looks.clips], words, [])
    files = replace(settings, data=looks.data, tasks=Tasks(), lone="frames", sight=None, sizes=One())  # of which nothing is given
    pool = pools(files, autoencoder, takes, [moving], anew=False)[moving]
    words = [pool.captions[whose[0]] for whose in pool.whose]
    return Held(pool.together(np.arange(min(looks.held, len(pool.latents)))), words, words, [])


def learnt(settings: BackboneRun, pool: Pool) -> Held:
    """As many of what is trained, alike in extent."""
    if not settings.looks.held:
        return Held(torch.zeros(0), [])
    which = pool.alike(settings.looks.held, moves=settings.joint.video_probability > 0)
    return Held(pool.together(which), [pool.captions[pool.whose[i][0] if pool.whose else i] for i in which])


@dataclass(frozen=True)
class Look:
    """One run's looks, each a function of the weights alone."""

    settings: BackboneRun
    model: Callable[[], Model]  # as it stands
    held: Held
    learnt: Held

    def __post_init__(self) -> None:
        text = self.model().text
        if isinstance(text, Labels) and text.takes == "label" and len(self.held.latents):
            text.check(self.held.said)

    def due(self, step: int) -> bool:
        every = self.settings.looks.every
        return every > 0 and (step % every == 0 or step == self.settings.steps)

    def __call__(self, step: int) -> dict[str, float]:
        """Figures of the weights as they stand; their videos are left in OUTPUT/samples."""
        model = self.model()
        model.backbone.eval()
        try:
            made, both = self._made(model, step), {"held": self.held, "learnt": self.learnt}
            return made | {key: value for name, clips in both.items() for key, value in missed(self.settings, model, name, clips).items()}
        finally:
            model.backbone.train()

    def _made(self, model: Model, step: int) -> dict[str, float]:
        prompts, generator, judge = self._prompts(model), Generator(model), self.held.judge
        folder = self.settings.output / "samples" / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        scores = []
        for start in range(0, len(prompts), BATCH):
            for at, clip in enumerate(generator.generate(prompts[start : start + BATCH], first=start), start):
                name = re.sub(r"[^\w .,-]", "", prompts[at])[:80].strip()
                video.write(folder / f"{at + 1:02d} {name}{'.mp4' if len(clip) > 1 else '.png'}", clip, generator.fps)
                if judge and len(clip) > 1 and prompts[at] == self.held.asked[at]:
                    scores.append(judge.score(judge.judge(clip), self.held.scenes[at]))
        rates = judge.rates(scores) if judge else {}
        return {f"judged [{name}]": rate for name, rate in rates.items() if rate is not None}

    def _prompts(self, model: Model) -> list[str]:
        looks = self.settings.looks
        if model.text.takes != "text":
            names = getattr(model.settings.text, "names", ()) or ("",)
            return [names[i % len(names)] for i in range(looks.clips)]
        return list(looks.prompts or self.held.asked)[: looks.clips]


def missed(settings: BackboneRun, model: Model, name: str, clips: Held) -> dict[str, float]:
    """The loss on clips at times and with noise that are the same at every look."""
    objective, clean = settings.objective, clips.latents.float()
    if not len(clean):
        return {}
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(clean.shape, generator=generator)
    times = objective.draw(settings.times, len(clean), clean.shape[2], clean[0, 0].numel(), generator)
    if settings.prior.kind != "independent":
        noise = settings.prior.correlated(noise, torch.randn(clean[:, :, :1].shape, generator=generator))
    told = clips.said if model.text.takes != "nothing" else [""] * len(clean)
    errors = []
    with torch.no_grad():
        for start in range(0, len(clean), BATCH):
            some = [x[start : start + BATCH].to(settings.device) for x in (clean, noise, times)]
            text = model.text(told[start : start + len(some[0])]).map(lambda x: x.to(settings.device))
            output = model.backbone(objective.corrupt(*some), objective.clock(some[2]), text)
            errors.append(objective.loss(output.float(), *some).flatten(1).mean(1).cpu())
    error = torch.cat(errors)
    return {name: error.mean().item()} | {key: value.item() for key, value in by_time(name, error, times).items()}


def by_time(name: str, error: Float[Tensor, "b"], times: Float[Tensor, "b *f"]) -> dict[str, Tensor]:
    """The mean error of the clips of each quarter of t, of those quarters that have any."""
    t = times.reshape(len(times), -1).mean(1)
    inside = {f"{name} [t {low:.2f}-{high:.2f}]": (t >= low) & (t < high) for low, high in itertools.pairwise(BINS)}
    return {key: error[which].mean() for key, which in inside.items() if which.any()}
