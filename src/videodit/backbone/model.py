"""The network: a latent grid, a time and a text in; the predicted velocity, a grid of the same size, out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from videodit.backbone.blocks import DualBlock
from videodit.backbone.conditioning import Modulation, Signal, modulate
from videodit.backbone.layouts import Layout
from videodit.backbone.patches import PatchEmbedding, VideoBranch, unpatch
from videodit.backbone.positions import Centred, Places, Rotary, rotary_angles
from videodit.config import setting
from videodit.shapes import Size, Text, token_size


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """A transformer of SD3's shape, with two streams; `video` adds the 3D patchify branch that an image model lacks."""

    kind: Literal["dual"] = "dual"
    channels: int = setting(16, doc="channels of the latents")
    width: int = setting(1536, doc="channels of a token")
    depth: int = setting(24, doc="blocks")
    heads: int = setting(24, doc="attention heads")
    patch: int = setting(2, doc="rows and columns of latents a token holds")
    text: int = setting(4096, doc="channels of the text's tokens")
    pooled: int = setting(2048, doc="channels of the pooled text")
    video: bool = setting(False, doc="whether the 3D patchify branch is there")
    normed: bool = setting(True, doc="whether queries and keys are normalised: in SD3.5 they are, in SD3 they are not")
    twice: int = setting(0, doc="first blocks in which the video also attends to itself alone; 13 in SD3.5 medium")
    places: Places = setting(Centred(), doc="the table of rows and columns")
    rotary: Rotary = setting("none", doc="what turns queries and keys, beside the tables: nothing, the frame, or frame, row and column")


class DualTransformer(nn.Module):
    """Image transformer and video transformer are this one class: attention is global, only the 3D branch differs."""

    def __init__(self, settings: Transformer) -> None:
        super().__init__()
        self.settings, width = settings, settings.width
        self.patches = PatchEmbedding(settings.channels, width, settings.patch, settings.places)
        self.video = VideoBranch(settings.channels, width, settings.patch) if settings.video else None
        self.text = nn.Linear(settings.text, width)
        self.signal = Signal(width, pooled=settings.pooled)
        self.blocks = nn.ModuleList(
            DualBlock(width, settings.heads, normed=settings.normed, twice=i < settings.twice, last=i == settings.depth - 1)
            for i in range(settings.depth)
        )
        self.modulation = Modulation(width, 2)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.out = nn.Linear(width, settings.patch**2 * settings.channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, noisy: Float[Tensor, "b c f h w"], t: Float[Tensor, "b *f"], text: Text, given: Float[Tensor, "b 1 f h w"] | None = None
    ) -> Float[Tensor, "b c f h w"]:
        if given is not None:
            raise ValueError("this network takes no given frames")
        assert text.sequence is not None
        video = self.patches(noisy)
        if self.video is not None:
            video = video + self.video(noisy)
        words, signal = self.text(text.sequence), self.signal(t, text)
        layout = Layout(_visible(text, video.shape[1]), self._angles(noisy))
        for block in self.blocks:
            words, video = block(words, video, signal, layout)
        shift, scale = self.modulation(signal, video.shape[1])
        patch = self.settings.patch
        return unpatch(self.out(modulate(self.norm(video), shift, scale)), Size(*noisy.shape[2:]), (1, patch, patch))

    def _angles(self, noisy: Tensor) -> Tensor | None:
        s = self.settings
        if s.rotary == "none":
            return None
        return rotary_angles(token_size(Size(*noisy.shape[2:]), (1, s.patch, s.patch)), s.width // s.heads, s.rotary, like=noisy)


def _visible(text: Text, tokens: int) -> Tensor | None:
    if text.mask is None:
        return None
    everywhere = torch.ones(len(text.mask), tokens, dtype=torch.bool, device=text.mask.device)
    return torch.cat([text.mask, everywhere], dim=1)[:, None, None]
