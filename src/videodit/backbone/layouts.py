"""Who attends to whom. A layout is handed to every block's attention, the one submodule that others may replace.

Tokens stand frame by frame, (f s). A clip of one frame is a picture: it takes part in space and stays out of time, so that what attends
through time leaves images as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from videodit.backbone.attention import attend
from videodit.shapes import Size, UserError

Heads = Float[Tensor, "b k n d"]  # words behind each other, then tokens frame by frame


class Clip(NamedTuple):
    """One of several clips in a sequence: its words, its tokens, and how many times it has, one for all or one a frame."""

    words: int
    tokens: int
    times: int = 1


class Layout(NamedTuple):
    """What attention has to know of its tokens.

    `visible` (b 1 1 l): the words that may be seen; None where all are. `angles`: how video tokens turn, if they do.
    `grid`: the frames, rows and columns of tokens. `still`: they are pictures, and nothing attends through time. `packed`: the clips that
    stand behind each other, if they are several; then the words of all stand behind each other too, and `grid` is a row of all tokens.
    """

    visible: Bool[Tensor, "b 1 1 l"] | None
    angles: Float[Tensor, "m half"] | None = None
    grid: Size = Size(1, 1, 1)
    still: bool = False
    packed: tuple[Clip, ...] = ()

    def of_words(self, words: Tensor) -> int | list[int]:
        """How many words there are, or hear each signal."""
        return [clip.words for clip in self.packed] or words.shape[1]

    def of_video(self, video: Tensor) -> int | list[int]:
        """How many tokens there are, or hear each signal."""
        return [clip.tokens // clip.times for clip in self.packed for _ in range(clip.times)] or video.shape[1]

    def of_frame(self) -> Layout:
        """For frames that are folded into the batch, each by itself, as an image, with its copy of the words."""
        place = self.grid.rows * self.grid.columns
        visible = None if self.visible is None else self.visible.repeat_interleave(self.grid.frames, dim=0)
        return Layout(visible, None if self.angles is None else self.angles[:place], self.grid._replace(frames=1))


class GlobalAttention(nn.Module):
    """Every token sees every visible one, over space and time alike: for one frame, the image model's own attention."""

    def forward(self, query: Heads, key: Heads, value: Heads, layout: Layout) -> Heads:
        if layout.packed:
            return _clip_by_clip(query, key, value, layout)
        return attend(query, key, value, layout.visible)


def _clip_by_clip(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """Each clip with its own words, if words stand before the video; none sees another."""
    tokens = [clip.tokens for clip in layout.packed]
    words = [clip.words if query.shape[2] > sum(tokens) else 0 for clip in layout.packed]
    parts = list(zip(*(x.split(words + tokens, dim=2) for x in (query, key, value)), strict=True))
    count, seen = len(tokens), []
    for i in range(count):
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(parts[i], parts[count + i], strict=True))
        seen.append(attend(q, k, v, None).split([words[i], tokens[i]], dim=2))
    return torch.cat([said for said, _ in seen] + [video for _, video in seen], dim=2)


class Heard(NamedTuple):
    """The words that stand beside a video: their keys and values, and which may be seen."""

    key: Float[Tensor, "b k l d"]
    value: Float[Tensor, "b k l d"]
    visible: Bool[Tensor, "b 1 1 l"] | None


class GroupedAttention(nn.Module):
    """A token sees its group, and the words if they stand beside it: `pattern` says which groups there are, by putting them into the
    batch."""

    pattern: str

    def sizes(self, grid: Size) -> dict[str, int]:
        return {"f": grid.frames, "h": grid.rows, "w": grid.columns}

    def forward(self, query: Heads, key: Heads, value: Heads, layout: Layout, words: Heard | None = None) -> Heads:
        return self.within(query, key, value, layout.grid, None, words)

    def within(self, query: Tensor, key: Tensor, value: Tensor, grid: Size, visible: Tensor | None, words: Heard | None = None) -> Tensor:
        tokens, groups = self.pattern.split(" -> ")
        sizes = self.sizes(grid)
        query, key, value = (rearrange(x, self.pattern, **sizes) for x in (query, key, value))
        if words is not None:
            key, value, visible = _behind(words, key, value, visible)
        return rearrange(attend(query, key, value, visible), f"{groups} -> {tokens}", **sizes)


def _behind(words: Heard, key: Tensor, value: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Each group's keys and values behind a copy of its clip's words."""
    copies = len(key) // len(words.key)
    said, heard = (x.repeat_interleave(copies, dim=0) for x in (words.key, words.value))
    known = None if words.visible is None else words.visible.repeat_interleave(copies, dim=0)
    if visible is not None:
        known = torch.ones_like(said[:, :1, None, :, 0], dtype=torch.bool) if known is None else known
        known = torch.cat([known.expand(-1, -1, visible.shape[2], -1), visible], dim=3)
    return torch.cat([said, key], dim=2), torch.cat([heard, value], dim=2), known


class SpatialAttention(GroupedAttention):
    """A token sees its own frame."""

    pattern = "b k (f h w) d -> (b f) k (h w) d"


class RowAttention(GroupedAttention):
    """A token sees its own row of its own frame."""

    pattern = "b k (f h w) d -> (b f h) k w d"


class ColumnAttention(GroupedAttention):
    """A token sees its own column of its own frame."""

    pattern = "b k (f h w) d -> (b f w) k h d"


class TemporalAttention(GroupedAttention):
    """A token sees its own place in all frames of the clip; what a picture's tokens see is nothing, zero."""

    pattern = "b k (f h w) d -> (b h w) k f d"

    def forward(self, query: Heads, key: Heads, value: Heads, layout: Layout) -> Heads:
        return torch.zeros_like(value) if layout.still else super().forward(query, key, value, layout)


class LocalAttention(GroupedAttention):
    """A token sees its own quarter of all frames."""

    pattern = "b k (f p h q w) d -> (b p q) k (f h w) d"

    def sizes(self, grid: Size) -> dict[str, int]:
        _even(grid, ("rows", "columns"))
        return {"f": grid.frames, "p": 2, "h": grid.rows // 2, "q": 2, "w": grid.columns // 2}


class SparseAttention(GroupedAttention):
    """A token sees every second frame, row and column from its own."""

    pattern = "b k (f i h p w q) d -> (b i p q) k (f h w) d"

    def sizes(self, grid: Size) -> dict[str, int]:
        _even(grid, ("rows", "columns") if grid.frames == 1 else ("frames", "rows", "columns"))
        step = min(2, grid.frames)
        return {"f": grid.frames // step, "i": step, "h": grid.rows // 2, "p": 2, "w": grid.columns // 2, "q": 2}


class WindowAttention(GroupedAttention):
    """A token sees its own window of its own frame; `shifted`: windows begin half a window later, and what they lose at one edge is a part
    of its own at the other."""

    pattern = "b k (f p h q w) d -> (b f p q) k (h w) d"

    def __init__(self, window: int = 8, *, shifted: bool = False) -> None:
        super().__init__()
        self.window, self.shifted = window, shifted

    def sizes(self, grid: Size) -> dict[str, int]:
        h, w = min(self.window, grid.rows), min(self.window, grid.columns)
        if grid.rows % h or grid.columns % w:
            raise UserError(f"{grid.rows} x {grid.columns} tokens do not fit windows of {self.window}: use multiples of it.")
        return {"f": grid.frames, "p": grid.rows // h, "h": h, "q": grid.columns // w, "w": w}

    def forward(self, query: Heads, key: Heads, value: Heads, layout: Layout, words: Heard | None = None) -> Heads:
        if not self.shifted:
            return super().forward(query, key, value, layout, words)
        sizes = self.sizes(layout.grid)
        by = [sizes["h"] // 2 if sizes["p"] > 1 else 0, sizes["w"] // 2 if sizes["q"] > 1 else 0]
        visible = self._apart(layout.grid, by, sizes, like=query).repeat(len(query), 1, 1, 1)
        back = [-shift for shift in by]
        query, key, value = (x.unflatten(2, layout.grid).roll(back, (3, 4)).flatten(2, 4) for x in (query, key, value))
        seen = self.within(query, key, value, layout.grid, visible, words)
        return seen.unflatten(2, layout.grid).roll(by, (3, 4)).flatten(2, 4)

    def _apart(self, grid: Size, by: list[int], sizes: dict[str, int], *, like: Tensor) -> Bool[Tensor, "g 1 m m"]:
        """Which tokens of a rolled window come from the same side of the frame's edge."""
        row, column = (torch.arange(n, device=like.device) >= n - shift for n, shift in zip(grid[1:], by, strict=True))
        side = (2 * row[:, None] + column).expand(grid).flatten()
        window = rearrange(side, "(f p h q w) -> (f p q) (h w)", **sizes)
        return (window[:, None, :, None] == window[:, None, None, :]).contiguous()


def _even(grid: Size, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(grid, name) % 2:
            raise UserError(f"{getattr(grid, name)} {name} of tokens cannot be halved: use an even number.")


class SplitAttention(nn.Module):
    """LAVITA's fourth variant: the first half of the heads attends in space, the other half in time."""

    def __init__(self) -> None:
        super().__init__()
        self.space, self.time = SpatialAttention(), TemporalAttention()

    def forward(self, query: Heads, key: Heads, value: Heads, layout: Layout, words: Heard | None = None) -> Heads:
        """What stands in time sees no words."""
        half = query.shape[1] // 2
        space, time = zip(*(x.split([half, x.shape[1] - half], dim=1) for x in (query, key, value)), strict=True)
        known = None if words is None else Heard(words.key[:, :half], words.value[:, :half], words.visible)
        return torch.cat([self.space(*space, layout, known), self.time(*time, layout)], dim=1)


class JointAttention(nn.Module):
    """Words stand before the video and see every token; a video token sees the words, and of the video what `video` lets it see."""

    def __init__(self, video: GroupedAttention | SplitAttention) -> None:
        super().__init__()
        self.video = video

    def forward(self, query: Heads, key: Heads, value: Heads, layout: Layout) -> Heads:
        words = query.shape[2] - layout.grid.count
        said = attend(query[:, :, :words], key, value, layout.visible)
        heard = Heard(key[:, :, :words], value[:, :, :words], layout.visible)
        return torch.cat([said, self.video(*(x[:, :, words:] for x in (query, key, value)), layout, heard)], dim=2)
