"""The tokens of one clip in several processes. Tokens are split before the first block and gathered behind the last.

By heads (Ulysses), where every token sees every other: around attention, parts of all heads become all tokens of some heads. Words stand
whole in each process. Or there in a ring (ring.py), for more processes than heads. By frames, where tokens see their own frame, or their
own place in all frames: for the latter, frames become places.
A picture has no frames to split: where clips are split by frames, each process computes it whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from videodit.backbone import DiT, DualTransformer, SingleTransformer, Transformer
from videodit.backbone.blocks import SelfAttention, Tokens
from videodit.backbone.layouts import GlobalAttention, Layout, SplitAttention, TemporalAttention
from videodit.parallel.exchange import Part
from videodit.parallel.ring import ByRing
from videodit.shapes import Size, UserError

BY = {"dual": {"global": "heads", "spatial": "frames"}, "single": {"global": "heads"}}
FRAMED = ("spatial", "late", "interleaved", "factorised", "split", "divided", "axial", "windows")
BY["single"] |= dict.fromkeys(FRAMED, "frames")


def way(settings: Transformer | DiT) -> str:
    """By what a layout's tokens are shared out."""
    if (by := BY[settings.kind].get(settings.layout)) is None:
        raise UserError(f"The layout {settings.layout} cannot be split over processes: set parallel.sequence=1, or take another layout.")
    return by


def shared(grid: Size, by: str, size: int, *, each: bool) -> None:
    """Refuse tokens that so many processes cannot share. `each`: every frame has a signal of its own, so frames are not to be cut."""
    if by == "heads" and grid.count % size:
        raise UserError(f"{grid.count} tokens cannot be shared by {size} processes: set parallel.sequence to a divisor.")
    if (by == "frames" or each) and grid.frames % size:
        raise UserError(f"{grid.frames} latent frames cannot be shared by {size} processes: set parallel.sequence to a divisor.")


def split(network: DualTransformer | SingleTransformer, group: dist.ProcessGroup, *, ring: bool = False) -> None:
    """Make a network compute its tokens in the processes of a group, which are all to be given the same."""
    settings, part = network.settings, Part(group, group.rank(), group.size())
    by = way(settings)
    if ring and by != "heads":
        raise UserError(f"A ring is for layouts where all tokens see each other, not {settings.layout}: set parallel.ring=false.")
    if by == "heads" and not ring and settings.heads % part.size:
        raise UserError(
            f"{settings.heads} heads cannot be shared by {part.size} processes: set parallel.sequence to a divisor, or parallel.ring=true."
        )
    for module in list(network.modules()):
        attention = getattr(module, "attention", None)
        if by == "heads" and isinstance(attention, GlobalAttention):
            module.attention = ByRing(part) if ring else ByHeads(attention, part)
        elif isinstance(module, SelfAttention) and isinstance(attention, TemporalAttention):
            module.forward = _by_places(module.forward, part)  # pyright: ignore[reportAttributeAccessIssue]
        elif isinstance(module, SplitAttention):
            module.add_module("time", ByPlaces(module.time, part))
    if isinstance(network, DualTransformer):
        network.blocks.forward = _split_dual(network.blocks.forward, by, part)
    else:
        _split_single(network, by, part)


class ByHeads(nn.Module):
    """Some tokens of all heads -> all tokens of some heads -> attention -> and back. Words, which all have, are sent only behind it."""

    def __init__(self, attention: nn.Module, part: Part) -> None:
        super().__init__()
        self.attention, self.part = attention, part

    def forward(
        self, query: Float[Tensor, "b k n d"], key: Float[Tensor, "b k n d"], value: Float[Tensor, "b k n d"], layout: Layout
    ) -> Float[Tensor, "b k n d"]:
        part, mine = self.part, layout.grid.count // self.part.size
        words, video = torch.stack((query, key, value)).split([query.shape[2] - mine, mine], dim=3)
        video = part.exchanged(rearrange(video, "qkv b (p k) m d -> p qkv b k m d", p=part.size))
        video = rearrange(video, "p qkv b k m d -> qkv b k (p m) d")
        seen = self.attention(*torch.cat([part.mine(words, 2), video], dim=3).unbind(), layout)
        words, video = seen.split([words.shape[3], layout.grid.count], dim=2)
        video = part.exchanged(rearrange(video, "b k (p m) d -> p b k m d", p=part.size))
        video = rearrange(video, "p b k m d -> b (p k) m d")
        return torch.cat([part.gathered(words, 1), video], dim=2) if words.shape[2] else video


class ByPlaces(nn.Module):
    """Attention through time of tokens that are split by frames."""

    def __init__(self, attention: nn.Module, part: Part) -> None:
        super().__init__()
        self.attention, self.part = attention, part

    def forward(
        self, query: Float[Tensor, "b k n d"], key: Float[Tensor, "b k n d"], value: Float[Tensor, "b k n d"], layout: Layout
    ) -> Float[Tensor, "b k n d"]:
        if layout.still:
            return self.attention(query, key, value, layout)
        frames, clips, grid = layout.grid.frames, len(query), _places(layout, self.part)
        tokens = self.part.to_places(torch.stack((query, key, value)).flatten(0, 2), frames)
        seen = self.attention(*rearrange(tokens, "(qkv b k) n d -> qkv b k n d", qkv=3, b=clips).unbind(), grid)
        return self.part.to_frames(seen.flatten(0, 1), frames).unflatten(0, seen.shape[:2])


def _by_places(attend: Callable[[Tokens, Layout], Tokens], part: Part) -> Callable[[Tokens, Layout], Tokens]:
    """The same for a layer with its projections: one tensor each way, not three and one."""

    def forward(x: Tokens, layout: Layout) -> Tokens:
        frames, all_frames = layout.grid.frames, _places(layout, part)
        return part.to_frames(attend(part.to_places(x, frames), all_frames), frames)

    return forward


def _places(layout: Layout, part: Part) -> Layout:
    """All frames of some places. These see each other from one place, so the turns of any place in each frame are enough, and sent."""
    grid = layout.grid
    places = grid.rows * grid.columns
    if places % part.size:
        raise UserError(f"{places} tokens of a frame cannot be shared by {part.size} processes: set parallel.sequence to a divisor.")
    angles = layout.angles
    if angles is not None:
        angles = part.gathered(angles[::places], 0).repeat_interleave(places // part.size, dim=0)
    return Layout(None, angles, grid._replace(frames=grid.frames * part.size, rows=1, columns=places // part.size))


def _mine(layout: Layout, by: str, part: Part, *, each: bool) -> Layout:
    """What a process's attention has to know."""
    grid = layout.grid
    if layout.packed:
        raise UserError("Packed clips cannot be split over processes: set parallel.sequence=1, or give clips of one extent.")
    shared(grid, by, part.size, each=each)
    angles = None if layout.angles is None else part.mine(layout.angles, 0)
    return layout._replace(angles=angles, grid=grid if by == "heads" else grid._replace(frames=grid.frames // part.size))


def _split_dual(blocks: Callable[..., Tokens], by: str, part: Part) -> Callable[..., Tokens]:
    def forward(words: Tokens, video: Tokens, signal: Tensor, layout: Layout) -> Tokens:
        if by == "frames" and layout.grid.frames == 1:
            return blocks(words, video, signal, layout)
        each = signal.shape[1] > 1
        own = _mine(layout, by, part, each=each)
        own = own._replace(angles=layout.angles) if by == "frames" else own  # frame by frame all turn as the first does
        heard = torch.cat([part.mine(signal[:, :-1], 1), signal[:, -1:]], dim=1) if each else signal
        return part.gathered(blocks(words, part.mine(video, 1), heard, own), 1)

    return forward


def _split_single(network: SingleTransformer, by: str, part: Part) -> None:
    last = len(network.blocks) - 1

    def wrapped(at: int, block: Callable[..., Tokens]) -> Callable[..., Tokens]:
        def forward(x: Tokens, signal: Tensor, words: Any, layout: Layout) -> Tokens:
            if by == "frames" and layout.grid.frames == 1:
                return block(x, signal, words, layout)
            each = signal.shape[1] > 1
            own = _mine(layout, by, part, each=each)
            x = block(part.mine(x, 1) if at == 0 else x, part.mine(signal, 1) if each else signal, words, own)
            return part.gathered(x, 1) if at == last else x

        return forward

    for at, block in enumerate(network.blocks):
        block.forward = wrapped(at, block.forward)
    if network._first_in_time() > 0:  # frames get their places in time when they are split already
        network._timed = _timed(network._timed, part)


def _timed(timed: Callable[..., Tokens], part: Part) -> Callable[..., Tokens]:
    def forward(x: Tokens, layout: Layout, when: Any) -> Tokens:
        if layout.grid.frames == 1:
            return timed(x, layout, when)
        own = _mine(layout, "frames", part, each=False)
        places = list(range(layout.grid.frames) if when is None else when)
        return timed(x, own, places[part.rank * own.grid.frames :][: own.grid.frames])

    return forward
