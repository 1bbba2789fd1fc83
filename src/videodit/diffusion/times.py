"""How often each time is trained, and which times sampling visits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.config import setting
from videodit.shapes import UserError


@dataclass(frozen=True, kw_only=True)
class Times:
    """Times of a flow (SD3), then shifted towards noise: t -> s t / (1 + (s - 1) t)."""

    density: Literal["logit-normal", "uniform", "mode"] = setting("logit-normal", doc="which times are trained most, before the shift")
    mean: float = setting(0.0, doc="mean of the logit of t in training, for logit-normal")
    deviation: float = setting(1.0, doc="deviation of the logit of t in training, for logit-normal")
    heaviness: float = setting(1.29, doc="how much the middle is preferred (negative: the ends), for mode")
    shift: float = setting(1.0, doc="over 1 spends more of training and sampling near noise, as larger extents need")
    places: int = setting(0, doc="latent places the shift is meant for; it grows with the root of how many more there are; 0: never")
    each: Literal["clip", "frame", "monotone"] = setting(
        "clip", doc="one time a clip; one a latent frame, independent; or one a latent frame, never falling through the clip"
    )

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf or self.places < 0:
            raise UserError(f"times.shift takes a number above 0 and times.places 0 or more, not {self.shift} and {self.places}.")
        if not math.isfinite(self.mean) or not 0 <= self.deviation < math.inf or not -1 <= self.heaviness <= 2 / (math.pi - 2):
            raise UserError("times takes a finite mean, a deviation of 0 or more and a heaviness of -1 to 1.75.")

    def shifted(self, t: Tensor, places: int = 0) -> Tensor:
        shift = self.shift * math.sqrt(places / self.places) if self.places and places else self.shift
        return shift * t / (1 + (shift - 1) * t)

    def draw(self, clips: int, frames: int, places: int, generator: torch.Generator) -> Float[Tensor, "b *f"]:
        """Times for training: clips of so many latent frames, which have so many latent places in all."""
        shape = (clips,) if self.each == "clip" else (clips, frames)
        t = self.shifted(self._drawn(shape, generator), places)
        return t.sort(dim=-1).values if self.each == "monotone" else t

    def _drawn(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        if self.density == "logit-normal":
            return torch.sigmoid(self.mean + self.deviation * torch.randn(shape, generator=generator, device=generator.device))
        even = torch.rand(shape, generator=generator, device=generator.device)
        if self.density == "uniform":
            return even
        return 1 - even - self.heaviness * ((math.pi / 2 * even).cos().square() - 1 + even)

    def schedule(self, steps: int, places: int = 0) -> Float[Tensor, "s"]:
        """Times from 1 to 0 for sampling: steps + 1 of them."""
        return self.shifted(torch.linspace(1, 0, steps + 1), places)
