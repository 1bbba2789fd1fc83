"""What every room shares: extents, the text record, and all arithmetic between pixels, latents and tokens.

Axis letters, here and everywhere: b clip, c channel, f frame, h row, w column, n token, s place in a frame,
l text position, k head, d width. An extent is always `Size(frames, rows, columns)`, never (width, height).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


class UserError(Exception):
    """A mistake of the user's: one sentence that says what to type instead."""


class Size(NamedTuple):
    """The extent of a clip, of its latents or of its tokens."""

    frames: int
    rows: int
    columns: int

    @property
    def count(self) -> int:
        return self.frames * self.rows * self.columns

    def __str__(self) -> str:
        return f"{self.frames} frames of {self.rows}x{self.columns}"


class Text(NamedTuple):
    """What conditions a clip; every field is optional, and the last label index is the blank."""

    sequence: Float[Tensor, "b l d"] | None = None
    pooled: Float[Tensor, "b d"] | None = None
    mask: Bool[Tensor, "b l"] | None = None
    label: Int[Tensor, "b"] | None = None
    picture: Float[Tensor, "b e"] | None = None  # what a given first frame shows

    def map(self, change) -> Text:
        """The same record with `change` applied to every field that is there."""
        return Text(*(None if field is None else change(field) for field in self))


def parse_extent(text: str) -> tuple[int, int]:
    """'64x96' -> (64, 96): rows, then columns."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*[xX]\s*(\d{1,6})\s*", text)
    if not match:
        raise UserError(f"--size takes ROWSxCOLUMNS such as 64x64, not {text!r}.")
    return int(match[1]), int(match[2])


def latent_size(video: Size, *, space: int, time: int) -> Size:
    """The latents of a clip whose autoencoder divides rows and columns by `space` and frames by `time`.

    One frame is an image: it has one latent frame whatever `time` is.
    """
    if video.frames < 1 or video.rows < 1 or video.columns < 1:
        raise UserError(f"{video} is empty: frames, rows and columns start at 1.")
    if video.frames > 1 and video.frames % time:
        raise UserError(f"{video.frames} frames do not fit: use {_around(video.frames, time)} (multiples of {time}), or 1 for an image.")
    for name, value in (("rows", video.rows), ("columns", video.columns)):
        if value % space:
            raise UserError(f"{value} {name} do not fit: use {_around(value, space)} (multiples of {space}).")
    return Size(1 if video.frames == 1 else video.frames // time, video.rows // space, video.columns // space)


def video_size(latents: Size, *, space: int, time: int, image: bool = False) -> Size:
    """The clip that latents of this size decode to; one latent frame is an image only when `image` says so."""
    return Size(1 if image else latents.frames * time, latents.rows * space, latents.columns * space)


def token_size(latents: Size, patch: tuple[int, int, int]) -> Size:
    """The tokens of a latent grid, cut into patches of (frames, rows, columns)."""
    for name, value, step in zip(Size._fields, latents, patch, strict=True):
        if value % step:
            raise UserError(f"{value} latent {name} do not fit patches of {step}: use {_around(value, step)} latent {name}.")
    return Size(*(value // step for value, step in zip(latents, patch, strict=True)))


def _around(value: int, step: int) -> str:
    below = value // step * step
    return f"{below} or {below + step}" if below else f"{step}"
