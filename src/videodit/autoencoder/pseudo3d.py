"""A 2D encoder or decoder made pseudo-3D: after each of its blocks, a temporal counterpart that starts as nothing.

The 2D parts are diffusers' own modules, applied to each frame; the temporal ones see one place over all frames. Temporal
branches end in zeros, downsampling starts as the mean of two frames and upsampling as a repeat, so at the start every frame
goes through the 2D network alone. Every normalisation is per frame.

Time is symmetric, or causal: then a group of frames sees itself and what came before. Whoever runs a causal network in pieces hands
the same `past`, empty at first, to every piece; it holds what each temporal module needs of the pieces before. A whole clip needs none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Decoder, Encoder
from diffusers.models.resnet import ResnetBlock2D
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Features = Float[Tensor, "b c f h w"]
Changed = Float[Tensor, "b d g y x"]  # any other width or extent
Past = dict[nn.Module, Tensor]


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What temporal modules see: all frames, or, causal, the past alone and of it `window` groups in attention."""

    kind: Literal["symmetric", "causal"]
    window: int


def each_frame(module: nn.Module, x: Features, *rest: object) -> Changed:
    """Apply a 2D module to every frame."""
    return rearrange(module(rearrange(x, "b c f h w -> (b f) c h w"), *rest), "(b f) c h w -> b c f h w", b=len(x))


class TemporalConv(nn.Conv3d):
    """Three frames to one: with a neighbour on each side, or the last three. Beyond either end there are zeros."""

    def __init__(self, channels: int, reach: Reach) -> None:
        super().__init__(channels, channels, (3, 1, 1), padding=(0 if reach.kind == "causal" else 1, 0, 0))
        self.causal = reach.kind == "causal"
        nn.init.zeros_(self.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Features, past: Past | None) -> Features:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not self.causal:
            return self._over_time(x)
        x = torch.cat([past[self], x], dim=2) if past and self in past else F.pad(x, (0, 0, 0, 0, 2, 0))
        if past is not None:
            past[self] = x[:, :, -2:].clone()  # a view would keep all of x
        return self._over_time(x)

    def _over_time(self, x: Features) -> Changed:
        """All places in a row make it a 2D convolution, whose kernels are faster; not where the channels are innermost."""
        if x.stride(1) == 1:
            return super().forward(x)
        row = F.conv2d(x.flatten(3), self.weight[..., 0], self.bias, padding=(int(self.padding[0]), 0))
        return row.unflatten(3, x.shape[3:])


class TemporalResBlock(nn.Module):
    """Two convolutions over time with a skip; the last starts at zero."""

    def __init__(self, channels: int, groups: int, reach: Reach) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, channels), nn.GroupNorm(groups, channels)
        self.conv1, self.conv2 = TemporalConv(channels, reach), TemporalConv(channels, reach)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Features, past: Past | None) -> Features:
        h = self.conv1(F.silu(each_frame(self.norm1, x)), past)
        return x + self.conv2(F.silu(each_frame(self.norm2, h)), past)


class TemporalAttention(nn.Module):
    """Each place attends over its own groups; the output projection starts at zero."""

    def __init__(self, channels: int, groups: int, reach: Reach) -> None:
        super().__init__()
        self.causal, self.window = reach.kind == "causal", reach.window
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Features, past: Past | None) -> Features:
        tokens = self.qkv(rearrange(each_frame(self.norm, x), "b c f h w -> (b h w) f c"))
        seen = self._window(tokens, past) if self.causal else F.scaled_dot_product_attention(*tokens.chunk(3, -1))
        return x + rearrange(self.out(seen), "(b h w) f c -> b c f h w", b=len(x), h=x.shape[3])

    def _window(self, tokens: Tensor, past: Past | None) -> Tensor:
        """Attention over a group and the `window` - 1 before it."""
        query, now = tokens.split([tokens.shape[-1] // 3, tokens.shape[-1] // 3 * 2], dim=-1)
        known = torch.cat([past[self], now], dim=1) if past and self in past else now
        if past is not None:
            past[self] = known[:, max(0, known.shape[1] - self.window + 1) :].clone()
        at = torch.arange(known.shape[1], device=tokens.device)
        back = at[-query.shape[1] :, None] - at
        return F.scaled_dot_product_attention(query, *known.chunk(2, -1), attn_mask=(back >= 0) & (back < self.window))


class TemporalDownsample(nn.Module):
    """Halves the frames; starts as the mean of each pair."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, (2, 1, 1), stride=(2, 1, 1))
        with torch.no_grad():
            self.conv.weight.copy_(0.5 * torch.eye(channels)[:, :, None, None, None].expand(-1, -1, 2, 1, 1))
            self.conv.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, x: Features) -> Changed:
        return self.conv(x)


class TemporalUpsample(nn.Module):
    """Doubles the frames, with weights of its own for the first and the second; starts as a repeat."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, 2 * channels, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(channels).repeat(2, 1)[:, :, None, None, None])
            self.conv.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, x: Features) -> Changed:
        both = self.conv(x)
        if not both.is_contiguous(memory_format=torch.channels_last_3d):
            return rearrange(both, "b (two c) f h w -> b c (f two) h w", two=2)
        return rearrange(both.movedim(1, -1), "b f h w (two c) -> b (f two) h w c", two=2).movedim(-1, 1)  # keeps the channels innermost


TEMPORAL = (TemporalResBlock, TemporalAttention, TemporalDownsample, TemporalUpsample)


class ResBlock3D(nn.Module):
    """A 2D ResBlock and the temporal one behind it."""

    def __init__(self, block: ResnetBlock2D, reach: Reach) -> None:
        super().__init__()
        self.space = block
        self.time = TemporalResBlock(block.out_channels, block.norm2.num_groups, reach)

    def forward(self, x: Features, past: Past | None) -> Changed:
        return self.time(each_frame(self.space, x, None), past)


class EachFrame(nn.Module):
    """A 2D module on every frame."""

    def __init__(self, module: nn.Module | Attention) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Features) -> Changed:
        return each_frame(self.module, x)


class Stages(nn.ModuleList):
    """Modules one after another; those that look back in time are handed the past."""

    def forward(self, x: Features, past: Past | None) -> Changed:
        for out in self.each(x, past):
            x = out
        return x

    def each(self, x: Features, past: Past | None) -> Iterator[Tensor]:
        """What every stage puts out."""
        for stage in self:
            x = stage(x, past) if isinstance(stage, LOOKS_BACK) else stage(x)
            yield x


class Middle3D(nn.Module):
    """The middle of either network: a block, attention in space and in time, a block."""

    def __init__(self, middle: Any, reach: Reach) -> None:
        super().__init__()
        first, last = (ResBlock3D(block, reach) for block in middle.resnets)
        stages: list[nn.Module] = [first]
        for attention in middle.attentions:
            if attention is not None:
                stages.append(EachFrame(attention))
                stages.append(TemporalAttention(first.space.out_channels, first.space.norm2.num_groups, reach))
        self.stages = Stages([*stages, last])

    def forward(self, x: Features, past: Past | None) -> Features:
        return self.stages(x, past)


LOOKS_BACK = (ResBlock3D, TemporalAttention, Middle3D)


def behind_each_other(level: Any) -> Iterator[ResnetBlock2D | Attention]:
    """The blocks of one resolution of a 2D network, each with its attention behind it, if there is one."""
    attentions = getattr(level, "attentions", None) or [None] * len(level.resnets)
    for pair in zip(level.resnets, attentions, strict=True):
        yield from (module for module in pair if module is not None)


def _inflated(level: Any, reach: Reach) -> Iterator[nn.Module]:
    """The same, each with its temporal counterpart."""
    for module in behind_each_other(level):
        if isinstance(module, ResnetBlock2D):
            yield ResBlock3D(module, reach)
        else:
            yield EachFrame(module)
            yield TemporalAttention(level.resnets[-1].out_channels, level.resnets[-1].norm2.num_groups, reach)


class Encoder3D(nn.Module):
    """A 2D encoder over a whole clip, 8x in space and, behind its first spatial downsamplings, `time` x in frames."""

    def __init__(self, encoder: Encoder, *, time: int, reach: Reach) -> None:
        super().__init__()
        stages: list[nn.Module] = [EachFrame(encoder.conv_in)]
        for level in cast(Iterable[Any], encoder.down_blocks):
            stages += _inflated(level, reach)
            for halve in level.downsamplers or ():
                stages.append(EachFrame(halve))
                if time > 1:
                    stages.append(TemporalDownsample(level.resnets[-1].out_channels))
                    time //= 2
        stages.append(Middle3D(encoder.mid_block, reach))
        self.stages = Stages(stages)
        self.norm, self.conv_out = EachFrame(encoder.conv_norm_out), EachFrame(encoder.conv_out)

    def forward(self, x: Features, past: Past | None) -> Changed:
        return self.conv_out(F.silu(self.norm(self.stages(x, past))))


class Decoder3D(nn.Module):
    """A 2D decoder over a whole clip; frames are doubled behind its last spatial upsamplings."""

    def __init__(self, decoder: Decoder, *, time: int, reach: Reach) -> None:
        super().__init__()
        stages: list[nn.Module] = [EachFrame(decoder.conv_in), Middle3D(decoder.mid_block, reach)]
        left = len(decoder.up_blocks) - 1  # spatial upsamplings
        for level in cast(Iterable[Any], decoder.up_blocks):
            stages += _inflated(level, reach)
            for double in level.upsamplers or ():
                stages.append(EachFrame(double))
                if 2**left <= time:
                    stages.append(TemporalUpsample(level.resnets[-1].out_channels))
                left -= 1
        self.stages = Stages(stages)
        self.norm, self.conv_out = EachFrame(decoder.conv_norm_out), EachFrame(decoder.conv_out)

    def forward(self, x: Features, past: Past | None) -> Changed:
        return self.conv_out(F.silu(self.norm(self.stages(x, past))))
