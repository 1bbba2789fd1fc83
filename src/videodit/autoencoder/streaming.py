"""More than memory holds: a causal autoencoder on an endless clip, piece by piece, and a symmetric one in overlapping windows.

Pieces of a causal autoencoder are exact. Windows are not: what lies beyond one is not seen, so they overlap and are blended where they do.
Both go together with tiles of large frames (tiles.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.autoencoder.model import DPVAE, PerFrame, Posterior
from videodit.autoencoder.pseudo3d import Past
from videodit.config import setting
from videodit.shapes import UserError


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How a clip is cut, in groups of pictures."""

    groups: int = setting(8, doc="groups of a window")
    overlap: int = setting(4, doc="groups that neighbouring windows of a symmetric autoencoder share")


def encode_stream(autoencoder: DPVAE, pieces: Iterable[Tensor]) -> Iterator[Posterior]:
    """Latents of an endless clip; each piece (b c f h w) holds whole groups, the first one frame before them where that stands alone."""
    yield from _encoded(autoencoder, (_led(autoencoder, piece) if i == 0 else piece for i, piece in enumerate(pieces)))


def decode_stream(autoencoder: DPVAE, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Frames (b c f h w) of endless latents."""
    past = _causal(autoencoder)
    for i, piece in enumerate(pieces):
        yield autoencoder.decode_step(piece, past)[:, :, 0 if i else autoencoder.lead :]


def _encoded(autoencoder: DPVAE, pieces: Iterable[Tensor]) -> Iterator[Posterior]:
    """Of pieces that are whole groups."""
    past = _causal(autoencoder)
    for piece in pieces:
        if piece.shape[2] % autoencoder.time:
            raise UserError(f"A piece of {piece.shape[2]} frames is not made of whole groups: use a multiple of {autoencoder.time}.")
        yield autoencoder.encode_step(piece, past)


def _led(autoencoder: DPVAE, piece: Tensor) -> Tensor:
    """The first piece, which begins with a whole group."""
    if (piece.shape[2] + autoencoder.lead) % autoencoder.time:
        more = " and 1 more" if autoencoder.lead else ""
        raise UserError(f"A first piece of {piece.shape[2]} frames is not whole groups: use a multiple of {autoencoder.time}{more}.")
    return autoencoder.whole_groups(piece)


def _causal(autoencoder: DPVAE) -> Past:
    if autoencoder.settings.reach != "causal":
        raise UserError("This autoencoder sees the future, so it cannot stream: use windows, or train one with groups.reach=causal.")
    return Past()


def encode_in_windows(autoencoder: PerFrame, video: Float[Tensor, "b c f h w"], windows: Windows) -> Posterior:
    """The posterior of a clip, encoded window by window; a causal autoencoder's windows need no overlap."""
    if not isinstance(autoencoder, DPVAE) or video.shape[2] == 1:
        return autoencoder.encode(video)
    if autoencoder.settings.reach == "causal":
        pieces = list(_encoded(autoencoder, autoencoder.whole_groups(video).split(windows.groups * autoencoder.time, dim=2)))
        return Posterior(*(torch.cat([getattr(piece, name) for piece in pieces], dim=2) for name in ("mean", "std")))

    def encode(part: Tensor) -> Tensor:
        posterior = autoencoder.encode_step(part)
        return torch.cat([posterior.mean, posterior.std], dim=1)

    return Posterior(*_over_time(encode, autoencoder.whole_groups(video), windows, autoencoder.time, 1).chunk(2, dim=1))


def decode_in_windows(
    autoencoder: PerFrame, latents: Float[Tensor, "b d t y x"], windows: Windows, frames: int | None = None
) -> Float[Tensor, "b c f h w"]:
    """The frames of latents, or the first `frames`, decoded window by window."""
    if not isinstance(autoencoder, DPVAE) or frames == 1:
        return autoencoder.decode(latents, frames)
    autoencoder.holds(latents, frames)
    if autoencoder.settings.reach == "causal":
        return torch.cat(list(decode_stream(autoencoder, latents.split(windows.groups, dim=2))), dim=2)[:, :, :frames]
    video = _over_time(autoencoder.decode_step, latents, windows, 1, autoencoder.time)
    return video[:, :, autoencoder.lead :][:, :, :frames]


def _over_time(function: Callable[[Tensor], Tensor], x: Tensor, windows: Windows, going: int, coming: int) -> Tensor:
    """`function` over windows of x; a group is so many frames `going` in and `coming` out."""
    groups, overlap = windows.groups, windows.overlap
    if groups <= overlap:
        raise UserError(f"Windows of {groups} groups that share {overlap} never end: use more groups or a smaller overlap.")
    done: Tensor | None = None
    for start in range(0, max(1, x.shape[2] // going - overlap), groups - overlap):
        piece = function(x[:, :, start * going : (start + groups) * going])
        done = piece if done is None else _blended(done, piece, overlap * coming)
    assert done is not None
    return done


def _blended(done: Tensor, piece: Tensor, shared: int) -> Tensor:
    """One after the other; where they overlap, from the first into the second."""
    before, tail = done.split([done.shape[2] - shared, shared], dim=2)
    head, after = piece.split([shared, piece.shape[2] - shared], dim=2)
    weight = ((torch.arange(shared, device=done.device, dtype=done.dtype) + 1) / (shared + 1))[:, None, None]
    return torch.cat([before, tail + weight * (head - tail), after], dim=2)
