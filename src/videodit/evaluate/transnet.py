"""TransNetV2 (arXiv:2008.04838), a finder of cuts, as a pair of eyes for clips: not I3D, so its distances have names of their own.

Names are those of its port to PyTorch. Frames are resized to 27x48 by antialiased bilinear interpolation. A clip's features are what the
network decides by, 1,024 values a frame, their mean over the clip.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

Maps = Float[Tensor, "b c f h w"]
ROWS, COLUMNS, LOOKUP = 27, 48, 101
WIDTH, DILATIONS = 16, (1, 2, 4, 8)


class Separate(nn.Module):
    """A convolution in space, then one in time."""

    def __init__(self, before: int, after: int, dilation: int) -> None:
        super().__init__()
        space = nn.Conv3d(before, 2 * after, (1, 3, 3), padding=(0, 1, 1), bias=False)
        time = nn.Conv3d(2 * after, after, (3, 1, 1), dilation=(dilation, 1, 1), padding=(dilation, 0, 0), bias=False)
        self.layers = nn.Sequential(space, time)

    def forward(self, x: Maps) -> Float[Tensor, "b d f h w"]:
        return self.layers(x)


class Dilated(nn.Module):
    """The same at four reaches in time."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        for dilation in DILATIONS:
            self.add_module(f"Conv3D_{dilation}", Separate(before, width, dilation))
        self.bn = nn.BatchNorm3d(4 * width, eps=0.001)

    def forward(self, x: Maps) -> Float[Tensor, "b d f h w"]:
        return self.bn(torch.cat([self.get_submodule(f"Conv3D_{dilation}")(x) for dilation in DILATIONS], 1))


class Stack(nn.Module):
    """Two of them, the first also around the second, and half the rows and columns."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.DDCNN = nn.ModuleList([Dilated(before, width), Dilated(4 * width, width)])

    def forward(self, x: Maps) -> Float[Tensor, "b d f y x"]:
        first = F.relu(self.DDCNN[0](x))
        return F.avg_pool3d(F.relu(self.DDCNN[1](first)) + first, (1, 2, 2))


class Alike(nn.Module):
    """How like the frames around each frame are to it, by the features of all stacks or by colours."""

    def __init__(self, width: int | None) -> None:
        super().__init__()
        if width:
            self.projection = nn.Linear(width, 128)
        self.fc = nn.Linear(LOOKUP, 128)

    def forward(self, told: Float[Tensor, "b f d"]) -> Float[Tensor, "b f 128"]:
        told = F.normalize(told, dim=2)
        near = F.pad(told @ told.mT, (LOOKUP // 2, LOOKUP // 2)).unfold(2, LOOKUP, 1)
        return F.relu(self.fc(near.diagonal(dim1=1, dim2=2).mT))


class TransNetV2(nn.Module):
    """Clips -> 1,024 features."""

    def __init__(self) -> None:
        super().__init__()
        self.SDDCNN = nn.ModuleList([Stack(3, WIDTH), Stack(4 * WIDTH, 2 * WIDTH), Stack(8 * WIDTH, 4 * WIDTH)])
        self.frame_sim_layer, self.color_hist_layer = Alike(28 * WIDTH), Alike(None)
        self.fc1 = nn.Linear(16 * WIDTH * (ROWS // 8) * (COLUMNS // 8) + 256, 1024)

    def forward(self, clips: UInt8[Tensor, "b f h w 3"]) -> tuple[Float[Tensor, "b 1 1024"], None]:
        """A row for each clip."""
        small = _small(clips)
        x, means = rearrange(small.float() / 255, "b f h w c -> b c f h w"), []
        for stack in self.SDDCNN:
            x = stack(x)
            means.append(x.mean((3, 4)))
        alike = self.frame_sim_layer(self.frame_sim_layer.projection(rearrange(torch.cat(means, 1), "b d f -> b f d")))
        parts = [self.color_hist_layer(colours(small)), alike, rearrange(x, "b c f h w -> b f (h w c)")]
        return F.relu(self.fc1(torch.cat(parts, 2))).mean(1, keepdim=True), None


def _small(clips: UInt8[Tensor, "b f h w 3"]) -> UInt8[Tensor, "b f 27 48 3"]:
    if clips.shape[2:4] == (ROWS, COLUMNS):
        return clips
    pictures = rearrange(clips, "b f h w c -> (b f) c h w").float()
    pictures = F.interpolate(pictures, (ROWS, COLUMNS), mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
    return rearrange(pictures, "(b f) c h w -> b f h w c", b=len(clips))


def colours(frames: UInt8[Tensor, "b f h w 3"]) -> Float[Tensor, "b f 512"]:
    """How often each of 512 colours is in a frame."""
    parts: Int[Tensor, "b f p 3"] = frames.flatten(2, 3).long() >> 5
    kinds = (parts[..., 0] << 6) + (parts[..., 1] << 3) + parts[..., 2]
    return torch.zeros(*kinds.shape[:2], 512).scatter_add_(2, kinds, torch.ones(kinds.shape))
