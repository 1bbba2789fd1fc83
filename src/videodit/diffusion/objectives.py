"""What a network learns, in each paper's own way, and how its answer becomes a velocity.

In every objective t is the share of noise: 0 is data, 1 is noise, and all samplers move along (1 - t) clean + t noise, whose velocity is
noise - clean (SD3's convention). A diffusion's own grid, a clean + s noise with a^2 + s^2 = 1, is that line times a + s, where
t = s / (a + s); so Euler along the line is DDIM.

t is one number a clip, or one a latent frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.config import setting
from videodit.diffusion.guidance import Network
from videodit.diffusion.times import Times
from videodit.shapes import UserError

Grid = Float[Tensor, "b c f h w"]
Time = Float[Tensor, "b *f"]


def spread(t: Time, like: Tensor) -> Tensor:
    """One time a clip or a frame, shaped to multiply a grid."""
    return t.view(len(t), 1, -1, *(1,) * (like.ndim - 3))


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Rectified flow: the network answers with the velocity itself."""

    kind: Literal["flow"] = "flow"

    @property
    def variance(self) -> bool:
        return False

    def draw(self, times: Times, clips: int, frames: int, places: int, generator: torch.Generator) -> Time:
        """Times for training."""
        return times.draw(clips, frames, places, generator)

    def schedule(self, times: Times, steps: int, places: int) -> Float[Tensor, "s"]:
        """Times from noise to data for sampling: steps + 1 of them."""
        return times.schedule(steps, places)

    def begin(self, noise: Grid, t: Tensor) -> Grid:
        """Where sampling begins, at the first time of its schedule."""
        return noise

    def corrupt(self, clean: Grid, noise: Grid, t: Time) -> Grid:
        """The straight line from data to noise."""
        t = spread(t, clean)
        return (1 - t) * clean + t * noise

    def clock(self, t: Time) -> Time:
        """The time as the network hears it."""
        return t

    def target(self, clean: Grid, noise: Grid, t: Time) -> Grid:
        """The velocity along the line."""
        return noise - clean

    def loss(self, output: Grid, clean: Grid, noise: Grid, t: Time) -> Grid:
        return (output - self.target(clean, noise, t)).square()

    def expected(self, output: Grid, noisy: Grid, t: Time) -> Grid:
        """The data that an answer means."""
        return noisy - spread(t, noisy) * output

    def flow(self, network: Network) -> Network:
        """The network as a velocity along the line, whatever it answers with."""
        return network


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """DDPM: the network answers with the noise, or with v = a noise - s clean, at one of `steps` levels, and the variance if told to."""

    kind: Literal["diffusion"] = "diffusion"
    prediction: Literal["noise", "v"] = setting("noise", doc="what the network answers with")
    variance: bool = setting(False, doc="whether it also answers with the variance of a step back (L_simple + L_vlb)")
    betas: Literal["linear", "scaled-linear", "cosine"] = setting("linear", doc="how noise grows from level to level")
    first: float = setting(1e-4, doc="variance added by the first level, where it grows linearly")
    last: float = setting(0.02, doc="variance added by the last level, where it grows linearly")
    steps: int = setting(1000, doc="levels of noise")

    def __post_init__(self) -> None:
        if not 0 < self.first < self.last < 1 or self.steps < 2:
            raise UserError("objective takes 0 < first < last < 1 and at least 2 steps.")

    @cached_property
    def kept(self) -> Float[Tensor, "n"]:
        """a^2 at each level: how much of the data's variance is left."""
        n = self.steps
        if self.betas == "cosine":
            angle = (torch.linspace(0, 1, n + 1, dtype=torch.float64) + 0.008) / 1.008 * math.pi / 2
            growth = (1 - (angle[1:].cos() / angle[:-1].cos()).square()).clamp(max=0.999)
        elif self.betas == "linear":
            growth = torch.linspace(self.first, self.last, n, dtype=torch.float64)
        else:
            growth = torch.linspace(self.first**0.5, self.last**0.5, n, dtype=torch.float64).square()
        return (1 - growth).cumprod(0)

    @cached_property
    def levels(self) -> Float[Tensor, "n"]:
        """t at each level."""
        a, s = self.kept.sqrt(), (1 - self.kept).sqrt()
        return s / (a + s)

    def draw(self, times: Times, clips: int, frames: int, places: int, generator: torch.Generator) -> Time:
        """Every level equally often."""
        shape = (clips,) if times.each == "clip" else (clips, frames)
        at = torch.randint(self.steps, shape, generator=generator, device=generator.device)
        at = at.sort(dim=-1).values if times.each == "monotone" else at
        return self.levels.to(at.device)[at].float()

    def schedule(self, times: Times, steps: int, places: int) -> Float[Tensor, "s"]:
        at = torch.linspace(self.steps - 1, 0, min(steps, self.steps)).round().long()
        return torch.cat([self.levels[at], self.levels.new_zeros(1)]).float()

    def begin(self, noise: Grid, t: Tensor) -> Grid:
        """Pure noise in the diffusion's own grid, although its last level keeps a little of the data."""
        a, s = self.shares(t)
        return noise / (a + s).to(noise)

    def corrupt(self, clean: Grid, noise: Grid, t: Time) -> Grid:
        a, s = self.shares(spread(t, clean))
        return a * clean + s * noise

    def clock(self, t: Time) -> Time:
        """The number of the level, between levels a part of the way; a thousandth of it, as the network counts."""
        levels = self.levels.to(t.device, non_blocking=True)
        above = torch.searchsorted(levels, t.double().contiguous()).clamp(1, self.steps - 1)
        part = (t - levels[above - 1]) / (levels[above] - levels[above - 1])
        level = above - 1 + part.clamp(0, 1)
        nearest = level.round()
        return (torch.where((level - nearest).abs() < 1e-3, nearest, level) / 1000).float()

    def target(self, clean: Grid, noise: Grid, t: Time) -> Grid:
        a, s = self.shares(spread(t, clean))
        return noise if self.prediction == "noise" else a * noise - s * clean

    def loss(self, output: Tensor, clean: Grid, noise: Grid, t: Time) -> Grid:
        """L_simple, and L_vlb beside it where the variance is learned: it teaches the variance alone."""
        mean, *raw = output.split(clean.shape[1], dim=1)
        error = (mean - self.target(clean, noise, t)).square()
        return error + self.bound(mean.detach(), raw[0], clean, noise, t) if raw else error

    def expected(self, output: Tensor, noisy: Grid, t: Time) -> Grid:
        """The data that an answer means."""
        return self.parts(output[:, : noisy.shape[1]], noisy, t)[0]

    def flow(self, network: Network) -> Network:
        """The network on the line's grid, answering with the velocity; what it says of the variance comes after."""

        def velocity(noisy: Tensor, t: Tensor, text: object, given: Tensor | None = None, **more: object) -> Tensor:
            a, s = self.shares(spread(t, noisy))
            own = noisy * (a + s) if given is None else torch.where(given > 0, noisy, noisy * (a + s))
            told = (text,) if given is None else (text, given)
            answer, *raw = network(own, self.clock(t), *told, **more).split(noisy.shape[1], dim=1)
            clean, noise = self.parts(answer, own, t)
            return torch.cat([noise - clean, *raw], dim=1)

        return velocity

    def parts(self, answer: Grid, own: Grid, t: Time) -> tuple[Grid, Grid]:
        """Data and noise, as the network sees them in its own grid."""
        a, s = self.shares(spread(t, own))
        if self.prediction == "noise":
            return (own - s * answer) / a, answer
        return a * own - s * answer, s * own + a * answer

    @staticmethod
    def shares(t: Tensor) -> tuple[Tensor, Tensor]:
        """a and s of a time."""
        length = ((1 - t).square() + t.square()).sqrt()
        return (1 - t) / length, t / length

    def bound(self, answer: Grid, raw: Grid, clean: Grid, noise: Grid, t: Time) -> Grid:
        """The variational bound of a step back, in bits: how far the learned posterior is from the true one."""
        then = self.before(t)
        own = self.corrupt(clean, noise, t)
        seen, _ = self.parts(answer, own, t)
        now, later = spread(t, clean), spread(then, clean)
        mean, true, most = posterior(clean, own, now, later)
        guess, *_ = posterior(seen, own, now, later)
        true = torch.where(later > 0, true, self._second())  # the step to data has no variance, and no log of it
        learned = variance(raw, true, most)
        gap = ((true - learned).exp() - 1 + learned - true + (mean - guess).square() * (-learned).exp()) / 2
        return torch.where(later > 0, gap, -likelihood(clean, guess, learned / 2)) / math.log(2)

    def _second(self) -> float:
        """The log of the posterior's variance at the second level."""
        first, second = float(self.kept[0]), float(self.kept[1])
        return math.log((1 - second / first) * (1 - first) / (1 - second))

    def before(self, t: Time) -> Time:
        """The level below, or 0."""
        levels = self.levels.to(t.device)
        at = (self.clock(t) * 1000).round().long()
        return torch.where(at > 0, levels[(at - 1).clamp(min=0)], 0.0).float()


Objective = Flow | Diffusion


def posterior(clean: Grid, own: Grid, now: Tensor, then: Tensor) -> tuple[Grid, Tensor, Tensor]:
    """DDPM's q(own at `then` | own, clean): its mean, the log of its variance, and the most that a learned one may be."""
    (a, s), (b, r) = Diffusion.shares(now.double()), Diffusion.shares(then.double())
    step = (a / b).square()
    most = (1 - step).clamp(min=1e-20)
    least = most * r.square() / s.square()
    mean = (b * most / s.square()).to(own.dtype) * clean + (step.sqrt() * r.square() / s.square()).to(own.dtype) * own
    return mean, least.clamp(min=1e-20).log().to(own.dtype), most.log().to(own.dtype)


def variance(raw: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """The log of the learned variance: -1 is the least, 1 the most."""
    share = (raw + 1) / 2
    return share * most + (1 - share) * least


def likelihood(x: Grid, mean: Grid, log_deviation: Grid) -> Grid:
    """Log of how likely x is, rounded to one of 256 values in -1..1, under a normal distribution."""

    def below(edge: Tensor) -> Tensor:
        return torch.special.ndtr((edge - mean) * (-log_deviation).exp())

    upper, lower = below(x + 1 / 255), below(x - 1 / 255)
    share = torch.where(x < -0.999, upper, torch.where(x > 0.999, 1 - lower, upper - lower))
    return share.clamp(min=1e-12).log()
