"""Noise is a function of (seed, clip, frame, level): the same for any batch, any window and any number of processes.

A prior makes it from independent noise, frame by frame, the same way in training and in sampling. Every frame stays standard normal; what
a prior decides is how alike two frames are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from videodit.config import setting
from videodit.shapes import UserError

Grid = Float[Tensor, "b c f h w"]
BASE = 2**32  # the frame whose noise all frames may share
FAR = 2**34  # frames between two draws


@dataclass(frozen=True, kw_only=True)
class Prior:
    """How alike the noise of two frames is: `share` is the covariance of neighbours."""

    kind: Literal["independent", "shared", "progressive"] = setting(
        "independent",
        doc="frames are independent; or share a base (VideoFusion, PYoCo's mixed); or follow from the one before (PYoCo's progressive)",
    )
    share: float = setting(0.0, doc="covariance of two neighbouring frames; in PYoCo's terms a^2 / (1 + a^2), progressive its root")
    middle: bool = setting(False, doc="whether the middle frame is the shared base itself (VideoFusion)")
    lows: float = setting(
        0.0, doc="cutoff below which noise is lent the given first frame's frequencies (FrameInit), such as 0.25; 0 is never"
    )
    still: float = setting(0.9, doc="the time of what is lent: how much of it is noise")

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1 or (self.share > 0) != (self.kind != "independent"):
            raise UserError("prior.share is 0 for independent noise, and between 0 and 1 for other kinds.")
        if not 0 <= self.lows <= 1 or not 0 <= self.still <= 1:
            raise UserError("prior.lows and prior.still take 0 to 1.")
        if self.middle and self.kind != "shared":
            raise UserError("prior.middle is for a shared base: set prior.kind=shared.")

    def correlated(self, noise: Grid, base: Float[Tensor, "b c 1 h w"], middle: int | None = None) -> Grid:
        """From independent frames and the base: those of a whole clip, or some of one whose middle frame is `middle`, counted from the
        first of these; progressive ones need all from the first."""
        frames, share = noise.shape[2], self.share
        if self.kind == "shared":
            own = torch.full((frames,), (1 - share) ** 0.5)
            middle = (frames - 1) // 2 if middle is None else middle
            if self.middle and 0 <= middle < frames:
                own[middle] = 0
            own = own.to(noise).view(-1, 1, 1)
            return (1 - own.square()).sqrt() * base + own * noise
        if self.kind == "progressive":
            steps = accumulate(noise.unbind(2), lambda before, fresh: share * before + (1 - share**2) ** 0.5 * fresh)
            return torch.stack(list(steps), dim=2)
        return noise

    def lent(self, noise: Grid, first: Float[Tensor, "b c 1 h w"] | None) -> Grid:
        """The noise with the low frequencies of a first frame, where one is given and the prior says so."""
        return noise if first is None or not self.lows else first_frame_lows(noise, first, self.still, self.lows)

    def covariance(self, frames: int) -> Float[Tensor, "f f"]:
        """Between the frames of a clip."""
        at = torch.arange(frames)
        if self.kind == "progressive":
            return self.share ** (at[:, None] - at).abs().double()
        ties = torch.full((frames,), self.share**0.5, dtype=torch.float64)
        if self.middle:
            ties[(frames - 1) // 2] = 1
        return torch.eye(frames, dtype=torch.float64) + ties[:, None] * ties * (1 - torch.eye(frames))


INDEPENDENT = Prior()


def noise(
    seed: int,
    clips: Sequence[int],
    shape: tuple[int, ...],
    *,
    start: int = 0,
    prior: Prior = INDEPENDENT,
    whole: range | None = None,
    draw: int = 0,
    level: int = 0,
) -> Grid:
    """Standard normal noise for each clip number: frames `start` and on, c f h w.

    `whole`: the frames of the clip of which these are some, and whose middle one a prior may lean on; without it these are all. A chunk of
    a longer video is a clip of its own: its frames go on counting, and it has a middle of its own, as the model was trained. `draw`: other
    noise for the same frames, as a sampler adds step by step. `level`: that of another video, which has nothing to do with the first:
    0 is one from noise alone, 1 that which is made between its frames.
    """
    channels, frames, rows, columns = shape
    whole = whole or range(start, start + frames)

    def fresh(first: int, count: int) -> Tensor:
        first += draw * FAR
        drawn = [[_frame(seed, clip, first + i, level, (channels, rows, columns)) for i in range(count)] for clip in clips]
        return torch.from_numpy(np.stack([np.stack(frames, axis=1) for frames in drawn]))

    if prior.kind == "independent":
        return fresh(start, frames)
    first = 0 if prior.kind == "progressive" else start
    middle = (whole.start + whole.stop - 1) // 2 - first
    return prior.correlated(fresh(first, start + frames - first), fresh(BASE, 1), middle)[:, :, start - first :]


def _frame(seed: int, clip: int, frame: int, level: int, shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, clip], counter=[0, 0, level, frame])).standard_normal(shape, np.float32)


def rescheduled(noise: Grid, window: int, seed: int) -> Grid:
    """FreeNoise: frames beyond the first window repeat the noise of those before, window by window in an order of its own."""
    frames = noise.shape[2]
    order = list(range(min(window, frames)))
    rng = np.random.default_rng([seed, window])
    while len(order) < frames:
        order += [int(i) for i in rng.permutation(order[-window:])]
    return noise[:, :, order[:frames]]


def first_frame_lows(noise: Grid, first: Float[Tensor, "b c 1 h w"], t: float, cutoff: float = 0.25) -> Grid:
    """ConsistI2V's FrameInit: low frequencies of the first frame, standing still and with noise of time t, under the noise's high ones."""
    still = (1 - t) * first.expand_as(noise) + t * noise
    keep = _lows(noise.shape[2:], cutoff).to(noise.device)
    axes = (-3, -2, -1)
    mixed = torch.fft.fftn(still, dim=axes) * keep + torch.fft.fftn(noise, dim=axes) * (1 - keep)
    return torch.fft.ifftn(mixed, dim=axes).real


def _lows(shape: Sequence[int], cutoff: float) -> Float[Tensor, "f h w"]:
    """A Gaussian filter of three axes, 1 at frequency 0."""
    axes = torch.meshgrid(*(torch.fft.fftfreq(n) * 2 for n in shape), indexing="ij")
    distance = torch.stack(axes).square().sum(0)
    return torch.exp(-distance / (2 * cutoff**2))
