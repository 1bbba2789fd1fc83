"""How dual-stream blocks stand together: over the whole clip, over each frame, or the one beside the other."""

from __future__ import annotations

from collections.abc import Callable

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from videodit.backbone.blocks import DualBlock, Signals, TimeBlock, Tokens, zero
from videodit.backbone.conditioning import of_video
from videodit.backbone.layouts import Layout
from videodit.backbone.variants import Variant

Make = Callable[[int], DualBlock | TimeBlock]
Folded = Float[Tensor, "bf _ d"]  # frames in the batch


class Blocks(nn.ModuleList):
    """One after the other, over all tokens of the clip and its words: with global attention the paper's 2D -> 3D."""

    def __init__(self, make: Make, depth: int) -> None:
        super().__init__(make(i) for i in range(depth))

    def forward(self, words: Tokens, video: Tokens, signal: Signals, layout: Layout) -> Tokens:
        for block in self:
            words, video = block(words, video, signal, layout)
        return video


class SpatialBlocks(Blocks):
    """Each frame by itself, with a copy of the words: the image model frame by frame."""

    def forward(self, words: Tokens, video: Tokens, signal: Signals, layout: Layout) -> Tokens:
        frames = layout.grid.frames
        alone = super().forward(copied(words, frames), folded(video, frames), each(signal, frames), layout.of_frame())
        return unfolded(alone, frames)


class BesideBlock(nn.Module):
    """A frozen block over each frame, then a copy of it over the clip, which puts out zero at the start."""

    def __init__(self, make: Make, at: int, *, last: bool) -> None:
        super().__init__()
        self.spatial, self.joint = make(at), make(at)
        width = self.joint.width
        self.to_words, self.to_video = None if last else zero(width), zero(width)

    def forward(self, words: Folded, video: Tokens, signal: Signals, layout: Layout, heard: Folded, alone: Layout) -> tuple[Folded, Tokens]:
        """Words stand once a frame, so the copy reads their mean."""
        frames = layout.grid.frames
        words, still = self.spatial(words, folded(video, frames), heard, alone)
        video = unfolded(still, frames)
        said, moving = self.joint(rearrange(words, "(b f) l d -> b f l d", f=frames).mean(1), video, signal, layout)
        if self.to_words is not None:
            words = words + copied(self.to_words(said), frames)
        return words, video + self.to_video(moving)


class BesideBlocks(nn.ModuleList):
    """The paper's 2D+3D."""

    def __init__(self, make: Make, depth: int) -> None:
        super().__init__(BesideBlock(make, i, last=i == depth - 1) for i in range(depth))

    def forward(self, words: Tokens, video: Tokens, signal: Signals, layout: Layout) -> Tokens:
        frames = layout.grid.frames
        heard, alone, copies = each(signal, frames), layout.of_frame(), copied(words, frames)
        for block in self:
            copies, video = block(copies, video, signal, layout, heard, alone)
        return video


def blocks(layout: Variant, make: Make, depth: int) -> Blocks | BesideBlocks:
    made = {"spatial": SpatialBlocks, "beside": BesideBlocks}.get(layout, Blocks)
    return made(make, depth)


def copied(words: Tokens, frames: int) -> Folded:
    return words.repeat_interleave(frames, dim=0)


def folded(video: Tokens, frames: int) -> Folded:
    return rearrange(video, "b (f s) d -> (b f) s d", f=frames)


def unfolded(video: Folded, frames: int) -> Tokens:
    return rearrange(video, "(b f) s d -> b (f s) d", f=frames)


def each(signal: Tokens, frames: int) -> Folded:
    """One signal for each folded frame."""
    return copied(signal, frames) if signal.shape[1] == 1 else of_video(signal).flatten(0, 1)[:, None]
