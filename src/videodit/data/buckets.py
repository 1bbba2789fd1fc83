"""Which extent a file is trained at: aspect x resolution x length, and how many of each make a batch. An image is of length one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from videodit.config import setting
from videodit.shapes import Size, UserError, latent_size, token_size


@dataclass(frozen=True, kw_only=True)
class Extents:
    """Resolutions, aspects and lengths that clips are trained at."""

    resolutions: tuple[int, ...] = setting((144, 240, 360, 480, 720), doc="rows of a frame of 16:9; other aspects have as many pixels")
    aspects: tuple[float, ...] = setting((9 / 16, 3 / 4, 1.0, 4 / 3, 16 / 9), doc="columns over rows")
    lengths: tuple[int, ...] = setting((1, 16, 32, 64, 128), doc="frames; 1 is an image")
    tokens: int = setting(131072, doc="tokens of a batch or a sequence, at most")

    def table(self, *, space: int, time: int, patch: int) -> Buckets:
        """What they are in the latents and tokens of a model."""
        return Buckets(**{name: value for name, value in asdict(self).items() if name != "kind"}, space=space, time=time, patch=patch)


@dataclass(frozen=True, kw_only=True)
class One:
    """Every clip at the run's size."""

    kind: Literal["one"] = "one"


@dataclass(frozen=True, kw_only=True)
class Bucketed(Extents):
    """Each clip at about its own extent; a pass has clips of one."""

    kind: Literal["buckets"] = "buckets"


@dataclass(frozen=True, kw_only=True)
class Packed(Extents):
    """Each clip at about its own extent; a pass has clips of any, side by side in one sequence, none of which sees another."""

    kind: Literal["packed"] = "packed"


Sizes = One | Bucketed | Packed


@dataclass(frozen=True, kw_only=True)
class Buckets(Extents):
    """A table of extents; a file goes to the one of the nearest aspect that is the largest and longest it fills."""

    space: int = setting(8, doc="rows and columns of pixels in one of latents")
    time: int = setting(4, doc="frames in a latent frame")
    patch: int = setting(2, doc="rows and columns of latents in a token")

    def __post_init__(self) -> None:
        every = (*self.resolutions, *self.aspects, *self.lengths)
        if not (self.resolutions and self.aspects and self.lengths) or not all(0 < number < math.inf for number in every):
            raise UserError("Buckets need at least one resolution, one aspect and one length, all above 0 and none infinite.")
        for length in self.lengths:
            latent_size(Size(length, self.space, self.space), space=self.space, time=self.time)

    def size(self, resolution: int, aspect: float, length: int) -> Size:
        """Rows and columns that fit patches, of about the aspect and the pixels of the resolution."""
        step, pixels = self.space * self.patch, resolution**2 * 16 / 9
        rows = max(1, round(math.sqrt(pixels / aspect) / step)) * step
        return Size(length, rows, max(1, round(rows * aspect / step)) * step)

    def of(self, video: Size) -> Size | None:
        """The extent at which a file is trained; None where it is smaller than all."""
        lengths = [length for length in self.lengths if length <= video.frames]
        aspect = min(self.aspects, key=lambda a: abs(math.log(a * video.rows / video.columns)))
        fits = [
            size
            for resolution in self.resolutions
            if (size := self.size(resolution, aspect, max(lengths, default=0))).rows <= video.rows and size.columns <= video.columns
        ]
        return max(fits, key=lambda size: size.count) if lengths and fits else None

    def count(self, size: Size) -> int:
        """Tokens of a clip."""
        return token_size(latent_size(size, space=self.space, time=self.time), (1, self.patch, self.patch)).count

    def batch(self, size: Size) -> int:
        """Clips of this extent in a batch."""
        if self.count(size) > self.tokens:
            raise UserError(f"{size} are {self.count(size)} tokens, above tokens={self.tokens}: raise it, or leave that bucket out.")
        return self.tokens // self.count(size)

    def batches(self, sizes: Sequence[Size], seed: int) -> list[list[int]]:
        """Every clip once, each batch of one extent, in an order that the seed decides; the last of an extent may be smaller."""
        rng = np.random.default_rng([seed, len(sizes)])
        buckets: dict[Size, list[int]] = {}
        for clip in rng.permutation(len(sizes)):
            buckets.setdefault(sizes[clip], []).append(int(clip))
        made = [
            clips[at : at + self.batch(size)] for size, clips in sorted(buckets.items()) for at in range(0, len(clips), self.batch(size))
        ]
        return [made[at] for at in rng.permutation(len(made))]
