"""What is given of a clip, and a network that generates the rest around it.

Given latent frames are held: the network finds them clean where the others are noisy, and their velocity is zero, so that they come out as
they went in. A lone picture fixes no group: it stands behind the clip as a latent frame of its own, clean and at its place in time, outside
loss and decoding; or, for networks that take hints, its latents stand as extra channels beside those of the group that it heads, which is
generated whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from videodit.config import setting
from videodit.diffusion.guidance import Network
from videodit.shapes import Text, UserError


class Given(NamedTuple):
    """`mask`: 1 where `latents` are given; `images` stand at `places`, counted in latent frames; `hint`: a mask and latents, not held;
    `picture`: what the first frame shows."""

    mask: Float[Tensor, "b 1 f h w"]
    latents: Float[Tensor, "b c f h w"]
    images: Float[Tensor, "b c i h w"]
    places: tuple[float, ...] = ()
    hint: Float[Tensor, "b k f h w"] | None = None
    picture: Float[Tensor, "b e"] | None = None

    @property
    def holds(self) -> bool:
        """Whether any latents are given, not only told of."""
        return bool(self.places or self.mask.any())

    @property
    def first(self) -> Float[Tensor, "b c 1 h w"] | None:
        """The first frame, or the group that it begins, where that is given."""
        firsts = [self.images[:, :, at : at + 1] for at, place in enumerate(self.places) if place == 0]
        firsts += [self.latents[:, :, :1]] if bool(self.mask[:, :, 0].all()) else []
        firsts += [self.hint[:, 1:, :1]] if self.hint is not None and bool(self.hint[:, 0, 0].all()) else []
        return firsts[0] if firsts else None

    def map(self, change: Callable[[Tensor], Tensor]) -> Given:
        hint, picture = (None if x is None else change(x) for x in (self.hint, self.picture))
        return Given(*(change(x) for x in self[:3]), places=self.places, hint=hint, picture=picture)

    def repeated(self, count: int) -> Given:
        """For a batch that holds this one several times."""
        return self.map(lambda x: x.repeat(count // len(x), *(1,) * (x.ndim - 1)))

    def to(self, device: torch.device | str) -> Given:
        return self.map(lambda x: x.to(device))

    def hold(self, noisy: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """The given latents over the noisy ones."""
        return torch.where(self.mask > 0, self.latents, noisy)


Conditioned = Callable[..., Tensor]  # (noisy, t, text, given, hint=, when=): told what is given, and when its frames stand


def around(network: Conditioned, given: Given) -> Network:
    """The network that generates around what is given."""
    frames, images = given.latents.shape[2], len(given.places)
    when = [*range(frames), *given.places] if images else None
    held = given.holds
    if not held and given.hint is None:
        return network

    def velocity(noisy: Tensor, t: Tensor, text: Text) -> Tensor:
        here = given.repeated(len(noisy))
        whole = torch.cat([here.hold(noisy), here.images], dim=2)
        mask = torch.cat([here.mask, torch.ones_like(here.images[:, :1])], dim=2)
        times = t if t.ndim == 1 or not images else torch.cat([t, t.new_zeros(len(t), images)], dim=1)
        text = text if here.picture is None else text._replace(picture=here.picture)
        told = {} if here.hint is None else {"hint": F.pad(here.hint, (0, 0, 0, 0, 0, images))}
        return network(whole, times, text, mask if held else None, when=when, **told)[:, :, :frames] * (1 - here.mask)

    return velocity


def without(network: Network, given: Given, noise: Float[Tensor, "b c f h w"]) -> Network:
    """The network that is told nothing of what is given: where that stands it finds it as far noised as the rest."""
    if not bool(given.mask.any()):
        return network

    def velocity(noisy: Tensor, t: Tensor, text: Text) -> Tensor:
        here, s = given.repeated(len(noisy)), t.view(len(t), 1, -1, 1, 1).to(noisy, non_blocking=True)
        drawn = noise.repeat(len(noisy) // len(noise), 1, 1, 1, 1)
        there = (1 - s) * here.latents + s * drawn
        return network(torch.where(here.mask > 0, there, noisy), t, text) * (1 - here.mask)

    return velocity


class Mask(NamedTuple):
    """Which latent frames are given, and which lone pictures: 0 the first frame, -1 the last; or `heads`, the first of these groups."""

    frames: tuple[int, ...] = ()
    images: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()

    @property
    def begins(self) -> bool:
        """Whether the first frame is given."""
        return 0 in self.frames or 0 in self.images

    def placed(self, time: int, lead: int = 0) -> Mask:
        """The same with heads as pictures, where groups have so many frames, and the first lacks `lead`."""
        return Mask(self.frames, (*self.images, *(max(time * group - lead, 0) for group in self.heads)))

    @property
    def runs(self) -> list[tuple[int, int]]:
        """The given latent frames as (start, stop): what stands together is encoded together, and alone."""
        starts = [i for i in self.frames if i - 1 not in self.frames]
        stops = [i + 1 for i in self.frames if i + 1 not in self.frames]
        return list(zip(starts, stops, strict=True))


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """How often each mask is trained; the weights are divided by their sum."""

    none: float = setting(1.0, doc="nothing is given")
    first: float = setting(0.0, doc="the first frame, a picture")
    last: float = setting(0.0, doc="the last frame, a picture")
    both: float = setting(0.0, doc="the first frame and the last, pictures")
    keys: float = setting(0.0, doc="the first frames of groups at random, pictures")
    prefix: float = setting(0.0, doc="the first groups of frames")
    suffix: float = setting(0.0, doc="the last groups of frames")
    every: float = setting(0.0, doc="every second or third group of frames")
    random: float = setting(0.0, doc="groups of frames at random")
    clips: int = setting(2000, doc="clips of a drawn world whose parts are encoded alone, for all masks but none")

    def __post_init__(self) -> None:
        if min(self.weights.values()) < 0 or not 0 < sum(self.weights.values()) < math.inf or self.clips < 1:
            raise UserError("tasks takes weights of at least 0, not all 0 and none infinite, and at least 1 clip.")

    @property
    def weights(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "clips"}

    @property
    def gives(self) -> bool:
        """Whether anything is ever given."""
        return any(weight for name, weight in self.weights.items() if name != "none")

    @property
    def begins(self) -> bool:
        """Whether the first frame is ever given."""
        return any((self.first, self.both, self.keys, self.prefix, self.every, self.random))

    def draw(self, rng: np.random.Generator, frames: int) -> Mask:
        """What is given of a clip of so many latent frames; of a single one, nothing."""
        weights = np.array(list(self.weights.values()))
        name = rng.choice(list(self.weights), p=weights / weights.sum())
        return MASKS[str(name)](rng, frames) if frames > 1 else Mask()

    def all(self, frames: int) -> list[Mask]:
        """Masks that hold every run, and every picture, that a draw may give."""
        if frames == 1:
            return []
        names = [name for name, weight in self.weights.items() if weight and name != "random"]
        drawn = {MASKS[name](np.random.default_rng(i), frames) for name in names for i in range(16 * frames)}
        spans = [tuple(range(i, j)) for i in range(frames) for j in range(i + 1, frames + 1)]
        drawn |= {Mask(heads=span) for span in spans if self.keys}  # which are runs where groups have one frame each
        return sorted(drawn | {Mask(span) for span in spans if self.random and len(span) < frames})


def _every(rng: np.random.Generator, frames: int) -> Mask:
    step = int(rng.integers(2, max(2, min(3, frames - 1)) + 1))
    return Mask(tuple(range(int(rng.integers(min(step, frames))), frames, step)))


def _some(rng: np.random.Generator, frames: int, most: int) -> tuple[int, ...]:
    return tuple(sorted(int(i) for i in rng.choice(frames, int(rng.integers(1, most + 1)), replace=False)))


MASKS: dict[str, Callable[[np.random.Generator, int], Mask]] = {
    "none": lambda rng, frames: Mask(),
    "first": lambda rng, frames: Mask(images=(0,)),
    "last": lambda rng, frames: Mask(images=(-1,)),
    "both": lambda rng, frames: Mask(images=(0, -1)),
    "keys": lambda rng, frames: Mask(heads=_some(rng, frames, frames)),
    "prefix": lambda rng, frames: Mask(tuple(range(int(rng.integers(1, frames))))),
    "suffix": lambda rng, frames: Mask(tuple(range(int(rng.integers(1, frames)), frames))),
    "every": _every,
    "random": lambda rng, frames: Mask(_some(rng, frames, frames - 1)),
}
