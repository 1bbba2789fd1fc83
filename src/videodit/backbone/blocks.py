"""The blocks: SD3's, where text and video keep weights of their own and meet in one attention, and DiT's, of one stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.backbone.attention import attend
from videodit.backbone.conditioning import Modulation, Unmodulated, modulate, of_video, of_words
from videodit.backbone.layouts import GlobalAttention, GroupedAttention, JointAttention, Layout, SplitAttention, TemporalAttention
from videodit.backbone.positions import turned

Tokens = Float[Tensor, "b _ d"]  # text and video differ in their number
Words = tuple[Tokens, Tensor | None]  # states, and which of them are no padding
Signals = Float[Tensor, "b _ e"]  # one a clip, or one a frame


class Projection(nn.Module):
    """Tokens to query, key and value; `normed`: queries and keys are normalised, as in SD3.5."""

    def __init__(self, width: int, heads: int, *, normed: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.norm_q, self.norm_k = (Norm(width // heads) if normed else nn.Identity() for _ in range(2))

    def project(self, x: Tokens, angles: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each b k n d."""
        query, key, value = rearrange(self.qkv(x), "b n (three k d) -> three b k n d", three=3, k=self.heads)
        query, key = self.norm_q(query), self.norm_k(key)
        return (query, key, value) if angles is None else (turned(query, angles), turned(key, angles), value)


class Stream(Projection):
    """One stream's half of a block: norms, projections, feed-forward, six modulations. `silent`: it is seen but puts nothing out."""

    def __init__(self, width: int, heads: int, *, normed: bool, silent: bool = False) -> None:
        super().__init__(width, heads, normed=normed)
        self.modulation = Modulation(width, 2 if silent else 6)
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        if silent:
            return
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def saw(self, x: Tokens, seen: Tokens, gates: list[Tensor]) -> Tokens:
        """With what attention saw."""
        return x + gates[0] * self.out(seen) if gates else x

    def fed(self, x: Tokens, gates: list[Tensor]) -> Tokens:
        """With the feed-forward's residual."""
        if not gates:
            return x
        _, shift, scale, gate = gates
        return x + gate * self.mlp(modulate(self.norm2(x), shift, scale))


class Norm(nn.Module):
    """Root-mean-square normalisation of queries and keys."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), eps=1e-6)


class SelfAttention(Projection):
    """One stream attends to itself, as `attention` says."""

    def __init__(self, width: int, heads: int, *, normed: bool, attention: nn.Module) -> None:
        super().__init__(width, heads, normed=normed)
        self.attention = attention
        self.out = nn.Linear(width, width)

    def forward(self, x: Tokens, layout: Layout) -> Tokens:
        return self.out(rearrange(self.attention(*self.project(x, layout.angles), layout), "b k n d -> b n (k d)"))


class SecondAttention(SelfAttention):
    """The video attends to itself alone, beside the joint attention: the first blocks of SD3.5 medium."""

    def __init__(self, width: int, heads: int, *, normed: bool) -> None:
        super().__init__(width, heads, normed=normed, attention=GlobalAttention())
        self.modulation = Modulation(width, 3)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)

    def residual(self, video: Tokens, signal: Signals, layout: Layout) -> Tokens:
        shift, scale, gate = self.modulation(signal, layout.of_video(video))
        return gate * self(modulate(self.norm(video), shift, scale), layout._replace(visible=None))


class DualBlock(nn.Module):
    """Text and video through joint attention, then each through its own feed-forward; the last block puts out no text.

    Of several attentions the first within a frame is the joint one; the video alone passes those before and behind it.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        attentions: Sequence[nn.Module] | None = None,
        *,
        normed: bool,
        twice: bool = False,
        last: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.text, self.video = Stream(width, heads, normed=normed, silent=last), Stream(width, heads, normed=normed)
        self.second = SecondAttention(width, heads, normed=normed) if twice else None
        attentions = attentions or [GlobalAttention()]
        at = next(i for i, attention in enumerate(attentions) if not isinstance(attention, TemporalAttention))
        joint = attentions[at]
        self.attention = JointAttention(joint) if isinstance(joint, GroupedAttention | SplitAttention) else joint
        self.before, self.after = (
            nn.ModuleList(SelfAttention(width, heads, normed=normed, attention=attention) for attention in some)
            for some in (attentions[:at], attentions[at + 1 :])
        )

    def forward(self, text: Tokens, video: Tokens, signal: Signals, layout: Layout) -> tuple[Tokens, Tokens]:
        clips = len(layout.packed) or 1
        heard, told = of_video(signal, clips), of_words(signal, clips)
        shift, scale, *gates = self.video.modulation(heard, layout.of_video(video))
        shift_text, scale_text, *gates_text = self.text.modulation(told, layout.of_words(text))
        video = self._through(self.before, video, (shift, scale, gates[0]), layout)
        parts = (
            self.text.project(modulate(self.text.norm1(text), shift_text, scale_text), None),
            self.video.project(modulate(self.video.norm1(video), shift, scale), layout.angles),
        )
        joint = self.attention(*(torch.cat(pair, dim=2) for pair in zip(*parts, strict=True)), layout)
        said, seen = rearrange(joint, "b k n d -> b n (k d)").split([text.shape[1], video.shape[1]], dim=1)
        if self.second is not None:
            video = video + self.second.residual(video, heard, layout)
        text, video = self.text.saw(text, said, gates_text), self.video.saw(video, seen, gates)
        video = self._through(self.after, video, (shift, scale, gates[0]), layout)
        return self.text.fed(text, gates_text), self.video.fed(video, gates)

    def _through(self, attentions: nn.ModuleList, video: Tokens, told: tuple[Tensor, Tensor, Tensor], layout: Layout) -> Tokens:
        """The video to itself, under the block's first modulation; a picture passes by what attends through time."""
        shift, scale, gate = told
        for own in attentions:
            if not (layout.still and isinstance(own.attention, TemporalAttention)):
                video = video + gate * own(modulate(self.video.norm1(video), shift, scale), layout)
        return video


class CrossAttention(nn.Module):
    """Tokens attend to the words."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.both = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tokens, words: Words) -> Tokens:
        states, mask = words
        query = rearrange(self.query(x), "b n (k d) -> b k n d", k=self.heads)
        key, value = rearrange(self.both(states), "b l (two k d) -> two b k l d", two=2, k=self.heads)
        seen = attend(query, key, value, None if mask is None else mask[:, None, None])
        return self.out(rearrange(seen, "b k n d -> b n (k d)"))


class PictureBranch(nn.Module):
    """What a picture shows, told to the words, which carry it wherever they are seen: they attend to a few tokens of it.

    Tokens beside the words would take a share of every attention from the first step on; this adds zero at the start.
    """

    def __init__(self, channels: int, width: int, heads: int, tokens: int = 4) -> None:
        super().__init__()
        self.split = (tokens, width)
        self.tokens, self.norm = nn.Linear(channels, tokens * width), nn.LayerNorm(width)
        self.norm_words, self.cross = nn.LayerNorm(width, elementwise_affine=False), CrossAttention(width, heads)
        nn.init.zeros_(self.cross.out.weight)
        nn.init.zeros_(self.cross.out.bias)

    def forward(self, words: Tokens, picture: Float[Tensor, "b e"]) -> Tokens:
        tokens = self.norm(self.tokens(picture).unflatten(-1, self.split))
        return words + self.cross(self.norm_words(words), (tokens, None))


def shown(words: Tokens, picture: Float[Tensor, "b e"] | None, branch: PictureBranch | None) -> Tokens:
    """Words that know what a picture shows."""
    if picture is None:
        return words
    if branch is None:
        raise ValueError("this network is shown no pictures")
    return branch(words, picture)


class SingleBlock(nn.Module):
    """DiT's block: tokens attend to each other in one way or several, then to the words if there are any, then the feed-forward."""

    def __init__(
        self, width: int, heads: int, attentions: Sequence[nn.Module], *, words: bool, normed: bool, eps: float, modulated: bool = True
    ) -> None:
        super().__init__()
        self.modulation = Modulation(width, 6) if modulated else Unmodulated(6)
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=not modulated)
        self.own = nn.ModuleList(SelfAttention(width, heads, normed=normed, attention=attention) for attention in attentions)
        self.cross = CrossAttention(width, heads) if words else None
        self.norm2 = nn.LayerNorm(width, eps=eps, elementwise_affine=not modulated)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tokens, signal: Signals, words: Words | None, layout: Layout) -> Tokens:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulation(signal, x.shape[1])
        x = self.mix(x, shift, scale, gate, layout)
        if self.cross is not None and words is not None:
            x = x + self.cross(x, words)
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))

    def mix(self, x: Tokens, shift: Tokens, scale: Tokens, gate: Tokens, layout: Layout) -> Tokens:
        """All attentions in turn, under one modulation; pictures pass by what attends through time alone."""
        for own in self.own:
            if not (layout.still and isinstance(own.attention, TemporalAttention)):
                x = x + gate * own(modulate(self.norm1(x), shift, scale), layout)
        return x


class SingleBeside(nn.Module):
    """A frozen block over each frame, then a copy of it over the clip, which puts out zero at the start."""

    def __init__(self, width: int, spatial: SingleBlock, joint: SingleBlock) -> None:
        super().__init__()
        self.spatial, self.joint, self.to_video = spatial, joint, zero(width)

    def forward(self, x: Tokens, signal: Signals, words: Words | None, layout: Layout) -> Tokens:
        x = self.spatial(x, signal, words, layout)
        return x + self.to_video(self.joint(x, signal, words, layout))


def zero(width: int) -> nn.Linear:
    """A projection that starts at zero."""
    made = nn.Linear(width, width)
    nn.init.zeros_(made.weight)
    nn.init.zeros_(made.bias)
    return made


class TemporalBlock(SingleBlock):
    """A block that attends through time alone: pictures pass it by."""

    def forward(self, x: Tokens, signal: Signals, words: Words | None, layout: Layout) -> Tokens:
        return x if layout.still else super().forward(x, signal, words, layout)


class TimeBlock(TemporalBlock):
    """The same in a transformer of two streams: words pass it by too."""

    def __init__(self, width: int, heads: int, *, normed: bool) -> None:
        super().__init__(width, heads, [TemporalAttention()], words=False, normed=normed, eps=1e-6)
        self.width = width

    def forward(self, text: Tokens, video: Tokens, signal: Signals, layout: Layout) -> tuple[Tokens, Tokens]:
        return text, super().forward(video, of_video(signal), None, layout)
