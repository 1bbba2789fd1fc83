"""I3D (arXiv:1705.07750) as FVD knows it: 400 answers for Kinetics, whose values before the softmax are the features.

Names are those of piergiaj/pytorch-i3d. Padding is TensorFlow's SAME, norms add 0.001 to variances as DeepMind's network does (a few ports
add 0.00001: their distances differ). Frames are resized to 224x224 by bilinear interpolation without antialiasing, to -1..1.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.shapes import UserError

Maps = Float[Tensor, "b c f h w"]
Way = tuple[int, int, int]
SIDE, FEWEST = 224, 9

# A step: a unit (width, kernel, stride), a pool (kernel, stride), or the six widths of a block of four branches.
STEPS: dict[str, tuple] = {
    "Conv3d_1a_7x7": (64, (7, 7, 7), (2, 2, 2)),
    "MaxPool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
    "Conv3d_2b_1x1": (64, (1, 1, 1), (1, 1, 1)),
    "Conv3d_2c_3x3": (192, (3, 3, 3), (1, 1, 1)),
    "MaxPool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


def same(x: Maps, kernel: Way, stride: Way) -> Float[Tensor, "b c t y x"]:
    """Zeros around, more behind than before, so that a step leaves length / stride places."""
    sides: list[int] = []
    for length, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        more = max(k - (length % s or s), 0)
        sides += [more // 2, more - more // 2]
    return F.pad(x, sides)


class Unit(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, before: int, after: int, kernel: Way, stride: Way = (1, 1, 1)) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(before, after, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(after, eps=0.001)

    def forward(self, x: Maps) -> Float[Tensor, "b d t y x"]:
        return F.relu(self.bn(self.conv3d(same(x, self.kernel, self.stride))))


class Pool(nn.Module):
    """The largest of a neighbourhood."""

    def __init__(self, kernel: Way, stride: Way) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Maps) -> Float[Tensor, "b c t y x"]:
        return F.max_pool3d(same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, before: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, three = (1, 1, 1), (3, 3, 3)
        self.b0 = Unit(before, widths[0], one)
        self.b1a, self.b1b = Unit(before, widths[1], one), Unit(widths[1], widths[2], three)
        self.b2a, self.b2b = Unit(before, widths[3], one), Unit(widths[3], widths[4], three)
        self.b3a, self.b3b = Pool(three, one), Unit(before, widths[5], one)

    def forward(self, x: Maps) -> Float[Tensor, "b d f h w"]:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], 1)


class Answers(nn.Module):
    """The last layer, under the name it has in files."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(1024, 400, 1)

    def forward(self, x: Maps) -> Float[Tensor, "b 400 f h w"]:
        return self.conv3d(x)


class I3D(nn.Module):
    """Clips -> 400 values."""

    def __init__(self) -> None:
        super().__init__()
        width = 3
        for name, step in STEPS.items():
            if len(step) == 2:
                self.add_module(name, Pool(*step))
            elif len(step) == 3:
                self.add_module(name, Unit(width, *step))
                width = step[0]
            else:
                self.add_module(name, Mixed(width, step))
                width = step[0] + step[2] + step[4] + step[5]
        self.logits = Answers()

    def forward(self, clips: UInt8[Tensor, "b f h w 3"]) -> tuple[Float[Tensor, "b 1 400"], None]:
        """A row for each clip."""
        if clips.shape[1] < FEWEST:
            raise UserError(f"I3D needs {FEWEST} frames at least, not {clips.shape[1]}: use more --frames.")
        pictures = rearrange(clips, "b f h w c -> (b f) c h w").float()
        pictures = F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", align_corners=False)
        x = rearrange(2 * pictures / 255 - 1, "(b f) c h w -> b c f h w", b=len(clips))
        for name in STEPS:
            x = self.get_submodule(name)(x)
        return self.logits(F.avg_pool3d(x, (2, 7, 7), 1)).mean((2, 3, 4))[:, None], None
