"""Latents to tokens and back. The 3D branch adds what an image model lacks, a place in time, through a zero projection."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from videodit.backbone.positions import Places, frame_positions, grid_positions
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


class VideoBranch(nn.Module):
    """The 3D patchify branch: its own patches, places in time and space, and a projection that starts at zero."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, width, (1, patch, patch), stride=(1, patch, patch))
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b n d"]:
        grid = self.proj(latents)
        tokens = rearrange(grid, "b d f h w -> b (f h w) d")
        return self.out(tokens + grid_positions(Size(*grid.shape[2:]), tokens.shape[-1], axes=3, like=tokens))


def unpatch(tokens: Float[Tensor, "b n e"], latents: Size, patch: Patch) -> Float[Tensor, "b c f h w"]:
    """The inverse of cutting: e = (p q r c) values a token back into a grid."""
    f, h, w = token_size(latents, patch)
    p, q, r = patch
    return rearrange(tokens, "b (f h w) (p q r c) -> b c (f p) (h q) (w r)", f=f, h=h, w=w, p=p, q=q, r=r)
