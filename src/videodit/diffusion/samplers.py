"""From noise to data along a field, each sampler the algorithm of its paper with one signature: (field, noise, times, draw, seen).

`draw(step)` is fresh noise, for samplers that add some; `seen(step, x)` is called after each step. All move on the line
(1 - t) clean + t noise, where the field's answer is the velocity and, from a network that learned it, the variance of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from videodit.diffusion.guidance import Field
from videodit.diffusion.objectives import Diffusion, posterior, variance

Grid = Float[Tensor, "b c f h w"]
Draw = Callable[[int], Tensor]
Seen = Callable[[int, Tensor], None]
Sampler = Callable[[Field, Tensor, Tensor, Draw, Seen], Tensor]


def unseen(step: int, x: Tensor) -> None:
    """Where nobody looks."""


def euler(field: Field, noise: Grid, times: Float[Tensor, "s"], draw: Draw, seen: Seen = unseen) -> Grid:
    """First order; DDIM, for a diffusion."""
    x = noise
    for step, (now, then) in enumerate(pairwise(times)):
        x = x + (then - now) * velocity(field, x, now)
        seen(step + 1, x)
    return x


def heun(field: Field, noise: Grid, times: Float[Tensor, "s"], draw: Draw, seen: Seen = unseen) -> Grid:
    """Second order: the mean of the velocities at both ends of a step; two evaluations a step."""
    x = noise
    for step, (now, then) in enumerate(pairwise(times)):
        first = velocity(field, x, now)
        second = velocity(field, x + (then - now) * first, then)
        x = x + (then - now) * (first + second) / 2
        seen(step + 1, x)
    return x


def rf_solver(field: Field, noise: Grid, times: Float[Tensor, "s"], draw: Draw, seen: Seen = unseen) -> Grid:
    """RF-Solver's second order: the velocity's own slope, from a look half a step ahead; two evaluations a step."""
    x = noise
    for step, (now, then) in enumerate(pairwise(times)):
        ahead = (then - now) / 2
        first = velocity(field, x, now)
        slope = (velocity(field, x + ahead * first, now + ahead) - first) / ahead
        x = x + (then - now) * first + (then - now) ** 2 / 2 * slope
        seen(step + 1, x)
    return x


def ancestral(field: Field, noise: Grid, times: Float[Tensor, "s"], draw: Draw, seen: Seen = unseen) -> Grid:
    """DDPM: a draw from the posterior of every step, with the learned variance where there is one."""
    x = noise
    for step, (now, then) in enumerate(pairwise(times)):
        answer = field(x, now.expand(len(x)))
        scale, after = (sum(Diffusion.shares(t)) for t in (now, then))
        clean = x - now * answer[:, : x.shape[1]]
        mean, least, most = posterior(clean, scale * x, now, then)
        spread = variance(answer[:, x.shape[1] :], least, most) if answer.shape[1] > x.shape[1] else least
        fresh = (spread / 2).exp() * draw(step) if step < len(times) - 2 else 0
        x = (mean + fresh) / after
        seen(step + 1, x)
    return x


def ddim(field: Field, noise: Grid, times: Float[Tensor, "s"], draw: Draw, seen: Seen = unseen) -> Grid:
    """DDIM without noise of its own: the data and the noise that are seen, mixed anew. On the line that is Euler."""
    x = noise
    for step, (now, then) in enumerate(pairwise(times)):
        v = velocity(field, x, now)
        clean, past = x - now * v, x + (1 - now) * v
        a, s = Diffusion.shares(then)
        x = (a * clean + s * past) / (a + s)
        seen(step + 1, x)
    return x


def velocity(field: Field, x: Grid, t: Float[Tensor, ""]) -> Grid:
    return field(x, t.expand(len(x)))[:, : x.shape[1]]


SAMPLERS: dict[str, Sampler] = {"euler": euler, "heun": heun, "rf-solver": rf_solver, "ancestral": ancestral, "ddim": ddim}
EVALUATIONS = {"heun": 2, "rf-solver": 2}  # of the field, in a step; else one
