"""Several clips of any extents in one sequence: what every token passes is computed for all at once, and no clip sees another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.backbone.conditioning import frame_times, modulate, of_video
from videodit.backbone.layouts import Clip, Layout
from videodit.backbone.patches import embedded, unpatch
from videodit.backbone.positions import rotary_angles
from videodit.shapes import Size, Text, UserError, token_size

if TYPE_CHECKING:
    from videodit.backbone.model import DualTransformer

Grid = Float[Tensor, "c _ _ _"]
Mask = Float[Tensor, "1 _ _ _"]


def packed(
    network: DualTransformer, noisy: Sequence[Grid], t: Float[Tensor, "b"], text: Text, given: Sequence[Mask] | None = None
) -> list[Grid]:
    """What a network says of each of several clips, with the words of each; words that are padding are left out."""
    s = network.settings
    if s.layout != "global":
        raise UserError(f"Clips are packed where all tokens see each other; with the layout {s.layout} give them one by one.")
    assert text.sequence is not None and text.pooled is not None
    masks = [None] * len(noisy) if given is None else [mask[None] for mask in given]
    times = [_times(x, mask) if s.given == "time" else x for x, mask in zip(t[:, None], masks, strict=True)]
    grids = [token_size(Size(*x.shape[1:]), (1, s.patch, s.patch)) for x in noisy]
    words = [x if text.mask is None else x[text.mask[i]] for i, x in enumerate(text.sequence)]
    clips = tuple(Clip(len(said), grid.count, len(time)) for said, grid, time in zip(words, grids, times, strict=True))
    turns = s.rotary != "none"
    angles = [rotary_angles(grid, s.width // s.heads, s.rotary, like=noisy[0], length=s.length) for grid in grids] if turns else []
    layout = Layout(None, torch.cat(angles) if turns else None, Size(1, 1, sum(grid.count for grid in grids)), packed=clips)
    parts = [embedded(x[None], mask, network.patches, network.video, network.given) for x, mask in zip(noisy, masks, strict=True)]
    signal = _signals(network, times, text.pooled)
    video = network.blocks(network.text(torch.cat(words)[None]), torch.cat(parts, dim=1), signal, layout)
    shift, scale = network.modulation(of_video(signal, len(clips)), layout.of_video(video))
    out = network.out(modulate(network.norm(video), shift, scale)).split([clip.tokens for clip in clips], dim=1)
    return [unpatch(one, Size(*x.shape[1:]), (1, s.patch, s.patch))[0] for one, x in zip(out, noisy, strict=True)]


def _times(t: Float[Tensor, "1"], mask: Float[Tensor, "1 1 f h w"] | None) -> Float[Tensor, "g"]:
    return t if mask is None else frame_times(t, mask)[0]


def _signals(network: DualTransformer, times: list[Tensor], pooled: Float[Tensor, "b e"]) -> Float[Tensor, "1 g d"]:
    """One for each time of each clip, then what the words of each clip hear: its noisiest frame's."""
    whose = [clip for clip, time in enumerate(times) for _ in time]
    signal = network.signal(torch.cat(times)[None], Text(pooled=pooled[whose][None]))
    noisiest, first = [], 0
    for time in times:
        noisiest.append(first + (int(time.argmax()) if len(time) > 1 else 0))
        first += len(time)
    return torch.cat([signal, signal[:, noisiest]], dim=1)
