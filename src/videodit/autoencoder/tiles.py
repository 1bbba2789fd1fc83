"""Large frames in tiles: the finest resolution of each network, which takes nearly all of the memory, one tile at a time.

What is coarser, the middle's attention among it, sees the whole frame: that takes an eighth of the memory. Tiles share more than the finest
resolution's convolutions reach, and what a tile gets wrong at its border is cut off, so only normalisations could tell that there are
tiles. They use the statistics of the whole frame, gathered over all tiles in the pass before: a first pass makes the first of them exact,
the next the second, and what is left falls faster than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Decoder, Encoder
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.autoencoder.model import PerFrame
from videodit.autoencoder.pseudo3d import LOOKS_BACK, Decoder3D, Encoder3D, Past, behind_each_other
from videodit.config import setting
from videodit.shapes import UserError


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """How frames are cut, in latents; 0 leaves an axis whole."""

    rows: int = setting(0, doc="latent rows of a tile")
    columns: int = setting(0, doc="latent columns of a tile")
    overlap: int = setting(4, doc="latents that neighbouring tiles share; under 4 their borders can show")
    passes: int = setting(4, doc="how often the tiles are run: each pass knows the whole frame's statistics better")


@contextmanager
def tiled(autoencoder: PerFrame, tiles: Tiles) -> Iterator[None]:
    """Within it, all that the autoencoder does is done in tiles. Nothing learns there."""
    networks: list[Any] = [module for module in autoencoder.modules() if isinstance(module, (Encoder, Decoder, Encoder3D, Decoder3D))]
    for network in networks:
        network.forward = _InTiles(network, autoencoder.space, tiles)
    try:
        yield
    finally:
        for network in networks:
            del network.forward


# --- Where tiles lie ---


class Span(NamedTuple):
    """One tile along one axis, in latents: what it sees, and the part of it that is kept."""

    start: int
    stop: int
    first: int
    last: int

    def seen(self, unit: int) -> slice:
        return slice(self.start * unit, self.stop * unit)

    def kept(self, unit: int) -> slice:
        return slice(self.first * unit, self.last * unit)

    def within(self, unit: int) -> slice:
        """The kept part, counted from where the tile starts."""
        return slice((self.first - self.start) * unit, (self.last - self.start) * unit)


def spans(whole: int, part: int, overlap: int) -> list[Span]:
    """Tiles of `part` latents that share `overlap`, each kept up to the middle of what it shares; 0 is one tile."""
    if not part or part >= whole:
        return [Span(0, whole, 0, whole)]
    if part <= overlap:
        raise UserError(f"Tiles of {part} latents that share {overlap} never end: use larger tiles or a smaller overlap.")
    starts = range(0, whole - overlap, part - overlap)
    middle = overlap // 2
    return [
        Span(at, min(at + part, whole), at + middle if at else 0, at + part - overlap + middle if at + part < whole else whole)
        for at in starts
    ]


# --- One network ---


class _InTiles:
    """A network's forward, its finest resolution in tiles."""

    def __init__(self, network: Any, space: int, tiles: Tiles) -> None:
        self.whole, self.tiles = type(network).forward.__get__(network), tiles
        self.encodes = isinstance(network, (Encoder, Encoder3D))
        stages = _stages(network)
        halves = [i for i, stage in enumerate(stages) if isinstance(getattr(stage, "module", stage), (Downsample2D, Upsample2D))]
        cut = 0 if not halves else halves[0] + 1 if self.encodes else halves[-1]
        self.before, self.after = stages[:cut], stages[cut:]
        fine = self.before if self.encodes else self.after
        self.attends = any(isinstance(module, Attention) for stage in fine for module in stage.modules())
        self.norms = [module for stage in fine for module in stage.modules() if isinstance(module, nn.GroupNorm)]
        self.units = (space, space // 2) if self.encodes else (space // 2, space)  # places a latent, going in and coming out
        self.latent = space if self.encodes else 1
        self.pasts: dict[tuple[Span, Span], Past] = {}

    def __call__(self, x: Tensor, *rest: Past | None) -> Tensor:
        rows, columns = (
            spans(side // self.latent, part, self.tiles.overlap)
            for side, part in zip(x.shape[-2:], (self.tiles.rows, self.tiles.columns), strict=True)
        )
        if len(rows) == len(columns) == 1 or not self.before:
            return self.whole(x, *rest)
        if self.attends:
            raise UserError("The finest resolution of this autoencoder attends over the whole frame, which no tile sees: leave tiles out.")
        past = rest[0] if rest else None
        if not past:
            self.pasts.clear()  # a clip begins
        places = [(row, column) for row in rows for column in columns]
        if self.encodes:
            return _run(self.after, self._fine(self.before, x, places, past), past)
        return self._fine(self.after, _run(self.before, x, past), places, past)

    def _fine(self, stages: list[nn.Module], x: Tensor, places: list[tuple[Span, Span]], past: Past | None) -> Tensor:
        (going, coming), out = self.units, None
        statistics = _Statistics()
        with _normalised(self.norms, statistics):
            for turn in range(self.tiles.passes):
                last = turn == self.tiles.passes - 1
                for row, column in places:
                    statistics.tile = row, column
                    known = None if past is None else dict(self.pasts.get((row, column), {}))
                    tile = _run(stages, x[..., row.seen(going), column.seen(going)], known)
                    if not last:
                        continue
                    if known is not None:
                        self.pasts[row, column] = known
                    if out is None:
                        out = tile.new_empty(*tile.shape[:-2], *(side // going * coming for side in x.shape[-2:]))
                    out[..., row.kept(coming), column.kept(coming)] = tile[..., row.within(coming), column.within(coming)]
                statistics.close()
        assert out is not None
        return out


class _Tail(nn.Module):
    """What either network ends with."""

    def __init__(self, norm: nn.Module, conv_out: nn.Module) -> None:
        super().__init__()
        self.norm, self.conv_out = norm, conv_out

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(F.silu(self.norm(x)))


def _stages(network: Any) -> list[nn.Module]:
    """A network as modules one after another."""
    if isinstance(network, (Encoder3D, Decoder3D)):
        return [*network.stages, _Tail(network.norm, network.conv_out)]
    tail = _Tail(network.conv_norm_out, network.conv_out)
    if isinstance(network, Encoder):
        levels = [stage for level in cast(Any, network.down_blocks) for stage in (*behind_each_other(level), *(level.downsamplers or ()))]
        return [network.conv_in, *levels, network.mid_block, tail]
    levels = [stage for level in cast(Any, network.up_blocks) for stage in (*behind_each_other(level), *(level.upsamplers or ()))]
    return [network.conv_in, network.mid_block, *levels, tail]


def _run(stages: list[nn.Module], x: Tensor, past: Past | None) -> Tensor:
    for stage in stages:
        x = stage(x, *([past] if isinstance(stage, LOOKS_BACK) else [None] if isinstance(stage, ResnetBlock2D) else []))
    return x


# --- Statistics of the whole frame ---


class _Statistics:
    """Mean and variance of what each normalisation is given, by frame and group: known from one pass, gathered in the next."""

    def __init__(self) -> None:
        self.known: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self.sums: dict[nn.Module, Tensor] = {}
        self.tile: tuple[Span, Span]

    def normalise(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        self._gather(norm, x)
        if norm not in self.known:
            return F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        mean, variance = self.known[norm]
        scale = norm.weight * self._each(norm, (variance + norm.eps).rsqrt())
        shift = norm.bias - self._each(norm, mean) * scale
        return torch.addcmul(shift[..., None, None], x, scale[..., None, None]).to(x.dtype)

    @staticmethod
    def _each(norm: nn.GroupNorm, value: Tensor) -> Tensor:
        """A group's value for each of its channels."""
        return value.repeat_interleave(norm.num_channels // norm.num_groups, dim=1)

    def _gather(self, norm: nn.GroupNorm, x: Tensor) -> None:
        """What tiles share counts once."""
        row, column = self.tile
        unit = x.shape[-1] // (column.stop - column.start)
        kept = x[..., row.within(unit), column.within(unit)].unflatten(1, (norm.num_groups, -1)).flatten(2).float()
        variance, mean = (value.double() for value in torch.var_mean(kept, -1, correction=0))
        sums = kept.shape[-1] * torch.stack([torch.ones_like(mean), mean, variance + mean.square()])
        self.sums[norm] = sums if norm not in self.sums else self.sums[norm] + sums

    def close(self) -> None:
        """What was gathered is known."""
        for norm, (count, total, squares) in self.sums.items():
            mean = total / count
            self.known[norm] = mean.float(), (squares / count - mean.square()).clamp_min(0).float()
        self.sums = {}


@contextmanager
def _normalised(norms: list[Any], statistics: _Statistics) -> Iterator[None]:
    for norm in norms:
        norm.forward = partial(statistics.normalise, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward
