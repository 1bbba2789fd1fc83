"""The dual-stream block of SD3: text and video keep weights of their own and meet in one attention."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.backbone.conditioning import Modulation, modulate
from videodit.backbone.layouts import GlobalAttention, Layout
from videodit.backbone.positions import turned

Tokens = Float[Tensor, "b _ d"]  # text and video differ in their number


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

    def finish(self, x: Tokens, seen: Tokens, gates: list[Tensor]) -> Tokens:
        """Both residuals: what attention saw, then the feed-forward."""
        if not gates:
            return x
        gate, shift, scale, gate_mlp = gates
        x = x + gate * self.out(seen)
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift, scale))


class Norm(nn.Module):
    """Root-mean-square normalisation of queries and keys."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), eps=1e-6)


class SecondAttention(Projection):
    """The video attends to itself alone, beside the joint attention: the first blocks of SD3.5 medium."""

    def __init__(self, width: int, heads: int, *, normed: bool) -> None:
        super().__init__(width, heads, normed=normed)
        self.modulation = Modulation(width, 3)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = GlobalAttention()
        self.out = nn.Linear(width, width)

    def forward(self, video: Tokens, signal: Float[Tensor, "b e"], layout: Layout) -> Tokens:
        shift, scale, gate = self.modulation(signal)
        seen = self.attention(*self.project(modulate(self.norm(video), shift, scale), layout.angles), layout._replace(visible=None))
        return gate * self.out(rearrange(seen, "b k n d -> b n (k d)"))


class DualBlock(nn.Module):
    """Text and video through joint attention, then each through its own feed-forward; the last block puts out no text."""

    def __init__(self, width: int, heads: int, *, normed: bool, twice: bool = False, last: bool = False) -> None:
        super().__init__()
        self.text, self.video = Stream(width, heads, normed=normed, silent=last), Stream(width, heads, normed=normed)
        self.second = SecondAttention(width, heads, normed=normed) if twice else None
        self.attention = GlobalAttention()

    def forward(self, text: Tokens, video: Tokens, signal: Float[Tensor, "b e"], layout: Layout) -> tuple[Tokens, Tokens]:
        parts, gates = [], []
        for stream, x, angles in ((self.text, text, None), (self.video, video, layout.angles)):
            shift, scale, *rest = stream.modulation(signal)
            parts.append(stream.project(modulate(stream.norm1(x), shift, scale), angles))
            gates.append(rest)
        joint = self.attention(*(torch.cat(pair, dim=2) for pair in zip(*parts, strict=True)), layout)
        seen = rearrange(joint, "b k n d -> b n (k d)").split([text.shape[1], video.shape[1]], dim=1)
        if self.second is not None:
            video = video + self.second(video, signal, layout)
        return self.text.finish(text, seen[0], gates[0]), self.video.finish(video, seen[1], gates[1])
