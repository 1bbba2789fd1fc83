"""A clip longer than the network's, in windows of latent frames that overlap: where they do, their velocities are blended."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.diffusion.guidance import Field
from videodit.shapes import UserError


def starts(frames: int, window: int, overlap: int) -> list[int]:
    """Where windows begin: each shares at least `overlap` latent frames with the one before, and the last ends with the clip."""
    if not 0 <= overlap < window:
        raise UserError(f"Windows of {window} latent frames cannot share {overlap}: use 0 to {window - 1}.")
    if frames <= window:
        return [0]
    return [*range(0, frames - window, window - overlap), frames - window]


def shared(count: int, begins: Sequence[int], window: int, frames: int) -> list[int]:
    """Which of so many each window has, where they share a clip's frames evenly: by its middle."""
    return [(2 * at + window) * count // (2 * max(frames, window) + 1) for at in begins]


def margin(overlap: int) -> int:
    """How many frames at a window's inner edges count for nothing, where windows share so many: those that a network sees without their
    neighbours, if it looks no further than this. The frames between two margins are blended."""
    return max(overlap - 1, 0) // 2


def weights(window: int, first: bool, last: bool, margin: int = 0) -> Float[Tensor, "w"]:
    """Rising from a window's edges, or the margins within, to its middle; the clip's own ends belong to one window alone."""
    rising = (torch.arange(1, window + 1, dtype=torch.float32) - margin).clamp(min=0)
    left = torch.full((window,), float(window)) if first else rising
    right = torch.full((window,), float(window)) if last else rising.flip(0)
    return torch.minimum(left, right)


def windowed(fields: Sequence[Field], begins: Sequence[int], window: int, margin: int = 0) -> Field:
    """The field of the whole clip from a field for each window, which knows its own words; the whole itself for a network that looks no
    further than the margin."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        whole, total = x.new_zeros(()), x.new_zeros(x.shape[2], 1, 1)
        for i, (field, start) in enumerate(zip(fields, begins, strict=True)):
            part = slice(start, start + window)
            weight = weights(min(window, x.shape[2]), i == 0, i == len(begins) - 1, margin)
            weight = weight.to(x, non_blocking=True).view(-1, 1, 1)
            answer = field(x[:, :, part], t if t.ndim == 1 else t[:, part])  # with a variance, from networks that learned it
            whole = whole if whole.ndim else x.new_zeros(len(x), answer.shape[1], *x.shape[2:])
            whole[:, :, part] += weight * answer
            total[part] += weight
        return whole / total

    return velocity
