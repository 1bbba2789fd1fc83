"""More than memory holds: a causal autoencoder on an endless clip, piece by piece, and any on overlapping parts of a large one.

Pieces of a causal autoencoder are exact. Parts of a clip (windows of a symmetric one, tiles of a large frame) are not: what lies beyond a
part is not seen, so parts overlap and are blended where they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.autoencoder.model import DPVAE, PerFrame, Posterior
from videodit.autoencoder.pseudo3d import Past
from videodit.config import setting
from videodit.shapes import UserError

AXES = {"groups": 2, "rows": 3, "columns": 4}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """How a clip is cut, in latents; 0 leaves an axis whole. Two parts share at least `overlap` of an axis."""

    groups: int = setting(0, doc="groups of a window")
    rows: int = setting(0, doc="latent rows of a tile")
    columns: int = setting(0, doc="latent columns of a tile")
    overlap: int = setting(4, doc="latents that neighbouring parts share")


def encode_stream(autoencoder: DPVAE, pieces: Iterable[Tensor]) -> Iterator[Posterior]:
    """Latents of an endless clip; each piece (b c f h w) holds whole groups."""
    past = _causal(autoencoder)
    for piece in pieces:
        if piece.shape[2] % autoencoder.time:
            raise UserError(f"A piece of {piece.shape[2]} frames is not made of whole groups: use a multiple of {autoencoder.time}.")
        yield autoencoder.encode_step(piece, past)


def decode_stream(autoencoder: DPVAE, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Frames (b c f h w) of endless latents."""
    past = _causal(autoencoder)
    for piece in pieces:
        yield autoencoder.decode_step(piece, past)


def _causal(autoencoder: DPVAE) -> Past:
    if autoencoder.settings.reach != "causal":
        raise UserError("This autoencoder sees the future, so it cannot stream: use parts, or train one with groups.reach=causal.")
    return Past()


def encode_in_parts(autoencoder: PerFrame, video: Float[Tensor, "b c f h w"], parts: Parts) -> Posterior:
    """The posterior of a clip, encoded part by part."""

    def encode(part: Tensor) -> Tensor:
        posterior = autoencoder.encode(part)
        return torch.cat([posterior.mean, posterior.std], dim=1)

    if isinstance(autoencoder, DPVAE):
        video = autoencoder.whole_groups(video)
    ratios = {name: Fraction(1, factor) for name, factor in _factors(autoencoder).items()}
    return Posterior(*_over_axes(encode, video, parts, ratios).chunk(2, dim=1))


def decode_in_parts(autoencoder: PerFrame, latents: Float[Tensor, "b d t y x"], parts: Parts) -> Float[Tensor, "b c f h w"]:
    """The frames of latents, decoded part by part."""
    ratios = {name: Fraction(factor) for name, factor in _factors(autoencoder).items()}
    return _over_axes(autoencoder.decode, latents, parts, ratios)


def _factors(autoencoder: PerFrame) -> dict[str, int]:
    return {"groups": autoencoder.time, "rows": autoencoder.space, "columns": autoencoder.space}


def _over_axes(function: Callable[[Tensor], Tensor], x: Tensor, parts: Parts, ratios: dict[str, Fraction]) -> Tensor:
    for name, axis in AXES.items():
        if part := getattr(parts, name):
            if part <= parts.overlap:
                raise UserError(f"Parts of {part} {name} that share {parts.overlap} never end: use more {name} or a smaller overlap.")
            function = _along(function, axis, part, parts.overlap, ratios[name])
    return function(x)


def _along(function: Callable[[Tensor], Tensor], axis: int, part: int, overlap: int, ratio: Fraction) -> Callable[[Tensor], Tensor]:
    """`function` over overlapping parts of one axis; `part` and `overlap` count latents, `ratio` is output to input."""
    unit = max(1, ratio.denominator)  # inputs a latent

    def over(x: Tensor) -> Tensor:
        done: Tensor | None = None
        for start in range(0, max(1, x.shape[axis] // unit - overlap), part - overlap):
            piece = function(x.narrow(axis, start * unit, min(part * unit, x.shape[axis] - start * unit)))
            shared = 0 if done is None else int(overlap * unit * ratio)
            done = piece if done is None else _blended(done, piece, axis, shared)
        assert done is not None
        return done

    return over


def _blended(done: Tensor, piece: Tensor, axis: int, shared: int) -> Tensor:
    """One after the other; where they overlap, from the first into the second."""
    before, tail = done.split([done.shape[axis] - shared, shared], dim=axis)
    head, after = piece.split([shared, piece.shape[axis] - shared], dim=axis)
    weight = (torch.arange(shared, device=done.device, dtype=done.dtype) + 1) / (shared + 1)
    weight = weight.reshape([-1 if i == axis else 1 for i in range(done.ndim)])
    return torch.cat([before, tail + weight * (head - tail), after], dim=axis)
