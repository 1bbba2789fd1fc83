"""What a run on files of many extents reads at pass n: clips of one extent, or of any in one sequence; a function of (seed, n).

Clips are dealt: all of an epoch are put into passes of as many tokens as the settings allow, and passes that cost alike share a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from videodit.autoencoder import PerFrame
from videodit.backbone import DiT, DualTransformer, Transformer, flops
from videodit.data.buckets import Buckets, One, Packed
from videodit.data.packing import dealt, pack
from videodit.data.text import TextEncoder
from videodit.data.text_sd3 import SD3Text
from videodit.diffusion.objectives import Objective
from videodit.shapes import Size, Text, UserError
from videodit.train.latents import Batch, Latents
from videodit.train.looks import by_time

if TYPE_CHECKING:
    from videodit.train.backbone import BackboneRun

ROUND = 50  # passes dealt at once, for each that shares a step: of fewer, neighbours differ in cost


class Deal(NamedTuple):
    """Steps from `first` on, each a list of passes; `left`: clips of passes that found no step; `epoch`: the next to be drawn."""

    first: int
    steps: list[list[list[int]]]
    left: list[int]
    epoch: int


class Deals:
    """Which clips share pass n. In an epoch each comes as often as its weight says, and of equal weights each once."""

    def __init__(
        self,
        sizes: Sequence[Size],
        weights: Sequence[float],
        table: Buckets,
        cost: Callable[[Size], int],
        *,
        packs: bool,
        passes: int,
        seed: int,
    ) -> None:
        self.sizes, self.table, self.packs, self.passes, self.seed = sizes, table, packs, passes, seed
        self.costs = {size: cost(size) for size in set(sizes)}
        self.shares = np.asarray(weights) / np.sum(weights) * len(sizes)
        filled = float(self.shares @ np.array([table.count(size) for size in sizes])) / table.tokens  # passes of an epoch, at least
        self.epochs = 1 if passes == 1 else math.ceil(ROUND * passes / filled)
        self._deal = Deal(0, [], [], 0)

    def at(self, index: int) -> list[int]:
        """The clips of pass n."""
        step, turn = divmod(index, self.passes)
        if step < self._deal.first:
            self._deal = Deal(0, [], [], 0)
        while step >= self._deal.first + len(self._deal.steps):
            self._deal = self._next(self._deal)
        return self._deal.steps[step - self._deal.first][turn]

    def _next(self, last: Deal) -> Deal:
        stop, rng = last.epoch + self.epochs, np.random.default_rng([self.seed, last.epoch, 12])
        clips = last.left + [clip for epoch in range(last.epoch, stop) for clip in self.epoch(epoch)]
        order = [clips[i] for i in rng.permutation(len(clips))]  # which of several as long share a pass
        sizes, seed = [self.sizes[clip] for clip in order], int(rng.integers(2**31))
        groups = pack([self.table.count(size) for size in sizes], self.table.tokens) if self.packs else self.table.batches(sizes, seed)
        steps, left = dealt([sum(self.costs[sizes[i]] for i in group) for group in groups], self.passes, seed)
        made = [[[order[i] for i in groups[one]] for one in step] for step in steps]
        return Deal(last.first + len(last.steps), made, [order[i] for one in left for i in groups[one]], stop)

    def epoch(self, epoch: int) -> list[int]:
        """Each clip as often as its share, or the whole number above or below it."""
        upto = np.floor(self.shares.cumsum().round(9) + np.random.default_rng([self.seed, epoch, 13]).random()).astype(int)
        return np.repeat(np.arange(len(upto)), np.diff(upto, prepend=0)).tolist()


class Pack(NamedTuple):
    """Clips that share a sequence."""

    clean: list[Tensor]
    text: Text | list[str]
    times: Tensor
    noise: list[Tensor]
    names: tuple[str, ...] = ()  # which these are


class Mixed(Latents):
    """Clips and pictures in one pool, dealt."""

    def __init__(
        self, settings: BackboneRun, autoencoder: PerFrame, frozen: TextEncoder | SD3Text | None, takes: str, shape: Transformer | DiT
    ) -> None:
        fits(settings, shape)
        super().__init__(settings, autoencoder, frozen, takes)
        assert not isinstance(settings.sizes, One)
        self.packs = isinstance(settings.sizes, Packed)
        self.pool = next(iter(self.pools.values()))  # both kinds are in it
        weights, words = self.pool.weights, max((x.longest for x in self.features.values()), default=0)
        assert weights is not None
        shapes, which = self.pool.latents.shapes("latents")
        sizes = [Size(*shape[1:]) for shape in shapes]
        self.deals = Deals(
            [sizes[shape] for shape in which],
            weights.tolist(),
            settings.sizes.table(space=1, time=1, patch=shape.patch),
            lambda size: flops.cost(shape, size, words).total,
            packs=self.packs,
            passes=settings.accumulate,
            seed=settings.seed,
        )

    def batch(self, step: int) -> Batch | Pack:
        settings, kind = self.settings, next(iter(self.pools))
        rng, generator = np.random.default_rng([settings.seed, step, 9]), torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        indices = np.array(self.deals.at(step))
        dropped = rng.random(len(indices)) < settings.text_dropout
        clean, noise, times = [x.float() for x in self.pool.latents.read("latents", indices)], [], []
        for x in clean:
            noise.append(torch.randn(x[None].shape, generator=generator))
            times.append(settings.objective.draw(settings.times, 1, x.shape[1], x[0].numel(), generator))
            if settings.prior.kind != "independent":
                noise[-1] = settings.prior.correlated(noise[-1], torch.randn(x[None, :, :1].shape, generator=generator))
        text = self._text(step, kind, indices, dropped)
        if self.packs:
            return Pack(clean, text, torch.cat(times), [x[0] for x in noise], self.pool.names(indices))
        frames = clean[0].shape[1]
        length = frames * self.autoencoder.time - self.autoencoder.lead
        told = self._given(self.pool, self._mask(step, frames), length, frames, indices)
        drawn = torch.cat(noise)
        drawn = drawn if told is None else settings.prior.lent(drawn, told.first)
        return Batch(torch.stack(clean), text, torch.cat(times), drawn, told, names=self.pool.names(indices))


def fits(settings: BackboneRun, shape: Transformer | DiT) -> None:
    """Whether a transformer of this shape takes what the settings deal."""
    if not isinstance(settings.sizes, Packed):
        return
    if not isinstance(shape, Transformer) or shape.layout != "global":
        raise UserError("sizes.kind=packed is for transformers of two streams where all tokens see each other: use sizes.kind=buckets.")
    if settings.parallel.sequence > 1:
        raise UserError("Clips that are packed are not split over processes: set parallel.sequence=1, or sizes.kind=buckets.")
    if settings.times.each != "clip":
        raise UserError("Clips that are packed have one time each: set times.each=clip, or sizes.kind=buckets.")


def missed(objective: Objective, network: DualTransformer, batch: Pack, text: Text) -> tuple[Tensor, dict[str, Tensor]]:
    """By how much the answers miss, every number counting alike, whichever clips share a sequence."""
    t = batch.times
    each = list(zip(batch.clean, batch.noise, t.split(1), strict=True))
    said = network([objective.corrupt(clean[None], noise[None], at)[0] for clean, noise, at in each], objective.clock(t), text)
    errors = [objective.loss(one.float()[None], clean[None], noise[None], at) for one, (clean, noise, at) in zip(said, each, strict=True)]
    figures = by_time("loss", torch.stack([error.detach().mean() for error in errors]), t)
    for name, kind in (("image", [error for error in errors if error.shape[2] == 1]), ("video", [e for e in errors if e.shape[2] > 1])):
        if kind:
            figures[name] = mean(kind).detach()
    return mean(errors), figures


def mean(errors: Sequence[Tensor]) -> Tensor:
    """Of all numbers of all tensors."""
    return torch.stack([error.sum() for error in errors]).sum() / sum(error.numel() for error in errors)
