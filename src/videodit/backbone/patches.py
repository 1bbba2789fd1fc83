"""Latents to tokens and back. The 3D branch adds what an image model lacks, a place in time, through a zero projection."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from videodit.backbone.positions import Places, When, frame_positions, grid_positions
from videodit.shapes import Size, token_size

Patch = tuple[int, int, int]


class PatchEmbedding(nn.Module):
    """One frame's patches and their places in space: what the image model knows."""

    def __init__(self, channels: int, width: int, patch: int, places: Places) -> None:
        super().__init__()
        self.patch, self.places = patch, places
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b n d"]:
        frames = self.proj(rearrange(latents, "b c f h w -> (b f) c h w"))
        tokens = rearrange(frames, "(b f) d h w -> b f (h w) d", b=len(latents))
        places = frame_positions(Size(1, *frames.shape[-2:]), tokens.shape[-1], self.places, like=tokens)
        return (tokens + places).flatten(1, 2)


class TubeEmbedding(PatchEmbedding):
    """Tubes of `tube` frames, each a token of its place."""

    def __init__(self, channels: int, width: int, patch: int, places: Places, tube: int) -> None:
        super().__init__(channels, width, patch, places)
        self.proj = nn.Conv3d(channels, width, (tube, patch, patch), stride=(tube, patch, patch))

    def forward(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b n d"]:
        tubes = self.proj(latents)
        places = frame_positions(Size(1, *tubes.shape[-2:]), tubes.shape[1], self.places, like=tubes)
        return (rearrange(tubes, "b d f h w -> b f (h w) d") + places).flatten(1, 2)


class Head(nn.Linear):
    """Tokens to the values of their patches, and these to a grid."""

    def __init__(self, width: int, channels: int, patch: int) -> None:
        super().__init__(width, patch**2 * channels)
        self.patch = (1, patch, patch)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, tokens: Float[Tensor, "b n d"], latents: Size) -> Float[Tensor, "b c f h w"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return unpatch(super().forward(tokens), latents, self.patch)


class TubeHead(Head):
    """The same for tubes: each token's patch first, then a transposed convolution through time."""

    def __init__(self, width: int, channels: int, patch: int, tube: int) -> None:
        super().__init__(width, channels, patch)
        self.tube = nn.ConvTranspose3d(channels, channels, (tube, 1, 1), stride=(tube, 1, 1), bias=False)

    def forward(self, tokens: Float[Tensor, "b n d"], latents: Size) -> Float[Tensor, "b c f h w"]:
        return self.tube(super().forward(tokens, latents._replace(frames=latents.frames // self.tube.stride[0])))


class VideoBranch(nn.Module):
    """The 3D patchify branch: its own patches, places in time and space, and a projection that starts at zero."""

    def __init__(self, channels: int, width: int, patch: int, tube: int = 1, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.proj = nn.Conv3d(channels, width, (tube, patch, patch), stride=(tube, patch, patch))
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, latents: Float[Tensor, "b c f h w"], when: When = None) -> Float[Tensor, "b n d"]:
        grid = self.proj(latents)
        tokens = rearrange(grid, "b d f h w -> b (f h w) d")
        places = grid_positions(Size(*grid.shape[2:]), tokens.shape[-1], axes=3, like=tokens, scale=self.scale, when=when)
        return self.out(tokens + places)


class GivenBranch(nn.Module):
    """What is given, or hinted at, as extra channels: a mask and the latents under it, through a projection that starts at zero."""

    def __init__(self, channels: int, width: int, patch: int, tube: int = 1) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels + 1, width, (tube, patch, patch), stride=(tube, patch, patch), bias=False)
        nn.init.zeros_(self.proj.weight)

    def forward(self, mask: Float[Tensor, "b 1 f h w"], latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b n d"]:
        return self.proj(torch.cat([mask, mask * latents], dim=1)).flatten(2).mT


def embedded(
    noisy: Float[Tensor, "b c f h w"],
    given: Float[Tensor, "b 1 f h w"] | None,
    patches: PatchEmbedding,
    video: VideoBranch | None,
    told: GivenBranch | None,
    when: When = None,
) -> Float[Tensor, "b n d"]:
    """Tokens: the sum of all branches that are there, laid out token by token, as every layer after it reads them."""
    tokens = patches(noisy).contiguous()
    if video is not None:
        tokens = tokens + video(noisy, when)
    return tokens if told is None or given is None else tokens + told(given, noisy)


def hinted(tokens: Float[Tensor, "b n d"], hint: Float[Tensor, "b k f h w"] | None, told: GivenBranch | None) -> Float[Tensor, "b n d"]:
    """Tokens that know a hint: its first channel is a mask, the others latents."""
    if hint is None:
        return tokens
    if told is None:
        raise ValueError("this network takes no hints")
    return tokens + told(hint[:, :1], hint[:, 1:])


def unpatch(tokens: Float[Tensor, "b n e"], latents: Size, patch: Patch) -> Float[Tensor, "b c f h w"]:
    """The inverse of cutting: e = (p q r c) values a token back into a grid."""
    f, h, w = token_size(latents, patch)
    p, q, r = patch
    return rearrange(tokens, "b (f h w) (p q r c) -> b c (f p) (h q) (w r)", f=f, h=h, w=w, p=p, q=q, r=r)
