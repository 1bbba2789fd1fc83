"""Who attends to whom. A layout is handed to every block's attention, the one submodule that others may replace.

Tokens stand frame by frame, (f s). The last `images` frames are pictures of their own: they take part in space and stay out of time. A
clip of one frame is a picture, so that what attends through time leaves images as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.shapes import Size

PLAIN_TOKENS = 1024  # beyond, the memory of all scores counts; benchmarks/attention.py compares


class Layout(NamedTuple):
    """What attention has to know of its tokens.

    `visible` (b 1 1 n): the text and video tokens that may be seen; None where all are. `angles`: how video tokens turn, if they do.
    `grid`: the frames, rows and columns of tokens, of which the last `images` frames are pictures.
    """

    visible: Bool[Tensor, "b 1 1 n"] | None
    angles: Float[Tensor, "m half"] | None = None
    grid: Size = Size(1, 1, 1)
    images: int = 0

    @property
    def clip(self) -> int:
        """Frames that follow each other in time."""
        return self.grid.frames - self.images

    @property
    def parts(self) -> list[int]:
        """Tokens of the clip, and of the pictures."""
        place = self.grid.rows * self.grid.columns
        return [self.clip * place, self.images * place]

    def of_clip(self) -> Layout:
        """The same without the pictures."""
        angles = None if self.angles is None else self.angles[: self.parts[0]]
        return Layout(self.visible, angles, self.grid._replace(frames=self.clip))

    def of_frame(self, words: int) -> Layout:
        """For frames that are folded into the batch, each by itself, as an image, with its copy of so many words."""
        place = self.grid.rows * self.grid.columns
        visible = None if self.visible is None else self.visible[..., : words + place].repeat_interleave(self.grid.frames, dim=0)
        return Layout(visible, None if self.angles is None else self.angles[:place], self.grid._replace(frames=1))


class GlobalAttention(nn.Module):
    """Every token sees every visible one, over space and time alike: for one frame, the image model's own attention."""

    def forward(
        self, query: Float[Tensor, "b k n d"], key: Float[Tensor, "b k n d"], value: Float[Tensor, "b k n d"], layout: Layout
    ) -> Float[Tensor, "b k n d"]:
        return attend(query, key, value, layout.visible)


class SpatialAttention(nn.Module):
    """A token sees its own frame."""

    def forward(
        self, query: Float[Tensor, "b k n d"], key: Float[Tensor, "b k n d"], value: Float[Tensor, "b k n d"], layout: Layout
    ) -> Float[Tensor, "b k n d"]:
        frames = layout.grid.frames
        query, key, value = (rearrange(x, "b k (f s) d -> (b f) k s d", f=frames) for x in (query, key, value))
        return rearrange(attend(query, key, value, None), "(b f) k s d -> b k (f s) d", f=frames)


class TemporalAttention(nn.Module):
    """A token sees its own place in all frames of the clip; what a picture's tokens see is nothing, zero."""

    def forward(
        self, query: Float[Tensor, "b k n d"], key: Float[Tensor, "b k n d"], value: Float[Tensor, "b k n d"], layout: Layout
    ) -> Float[Tensor, "b k n d"]:
        tokens, others = layout.parts
        if not tokens:
            return torch.zeros_like(value)
        clips = len(query)
        query, key, value = (rearrange(x[:, :, :tokens], "b k (f s) d -> (b s) k f d", f=layout.clip) for x in (query, key, value))
        seen = rearrange(attend(query, key, value, None), "(b s) k f d -> b k (f s) d", b=clips)
        return F.pad(seen, (0, 0, 0, others))


class SplitAttention(nn.Module):
    """LAVITA's fourth variant: the first half of the heads attends in space, the other half in time."""

    def __init__(self) -> None:
        super().__init__()
        self.space, self.time = SpatialAttention(), TemporalAttention()

    def forward(
        self, query: Float[Tensor, "b k n d"], key: Float[Tensor, "b k n d"], value: Float[Tensor, "b k n d"], layout: Layout
    ) -> Float[Tensor, "b k n d"]:
        halves = zip(*(x.chunk(2, dim=1) for x in (query, key, value)), strict=True)
        parts = [attention(*half, layout) for attention, half in zip((self.space, self.time), halves, strict=True)]
        return torch.cat(parts, dim=1)


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
    """Softmax attention. On a CPU in half precision few tokens learn by plain products: the kernel is twice as slow backward."""
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad and key.shape[2] <= PLAIN_TOKENS
    if not slow:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    with torch.autocast("cpu", enabled=False):  # which would take the scores to single precision and back
        scores = (query * query.shape[-1] ** -0.5) @ key.mT
        if visible is not None:
            scores = scores + torch.zeros_like(visible, dtype=scores.dtype).masked_fill(~visible, float("-inf"))
        return scores.softmax(dim=-1) @ value
