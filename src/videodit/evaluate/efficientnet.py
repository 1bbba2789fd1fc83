"""EfficientNet-Lite0, a classifier of ImageNet, as a pair of eyes for frames: not Inception, so its distances have names of their own.

Names are those of efficientnet-lite-pytorch without their leading underscores. Frames are resized to 224x224 by antialiased bicubic
interpolation, to (x - 127) / 128; padding is TensorFlow's SAME.
"""

from __future__ import annotations

import re

from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

Maps = Float[Tensor, "n c h w"]
SIDE = 224
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))


class Convolution(nn.Conv2d):
    """A convolution that pads as TensorFlow does: more behind than before."""

    def forward(self, input: Maps) -> Float[Tensor, "n d y x"]:
        sides: list[int] = []
        for length, kernel, stride in zip(reversed(input.shape[2:]), reversed(self.kernel_size), reversed(self.stride), strict=True):
            more = max(kernel - (length % stride or stride), 0)
            sides += [more // 2, more - more // 2]
        return super().forward(F.pad(input, sides))


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=0.001)


class Block(nn.Module):
    """Wider, by place, narrower; beside itself where it can be."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide, self.expands, self.adds = before * expand, expand > 1, stride == 1 and before == after
        if self.expands:
            self.expand_conv, self.bn0 = Convolution(before, wide, 1, bias=False), _norm(wide)
        self.depthwise_conv, self.bn1 = Convolution(wide, wide, kernel, stride, groups=wide, bias=False), _norm(wide)
        self.project_conv, self.bn2 = Convolution(wide, after, 1, bias=False), _norm(after)

    def forward(self, x: Maps) -> Float[Tensor, "n d y x"]:
        wide = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        found = self.bn2(self.project_conv(F.relu6(self.bn1(self.depthwise_conv(wide)))))
        return x + found if self.adds else found


class EfficientNetLite0(nn.Module):
    """Pictures -> 1,280 features and 1,000 answers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = Convolution(3, 32, 3, 2, bias=False), _norm(32)
        self.blocks = nn.ModuleList()
        before = 32
        for number, kernel, stride, expand, after in STAGES:
            for place in range(number):
                self.blocks.append(Block(before, after, kernel, 1 if place else stride, expand))
                before = after
        self.conv_head, self.bn1 = Convolution(320, 1280, 1, bias=False), _norm(1280)
        self.fc = nn.Linear(1280, 1000)

    def forward(self, clips: UInt8[Tensor, "b f h w 3"]) -> tuple[Float[Tensor, "b f 1280"], Float[Tensor, "b f 1000"]]:
        """A row and answers for each frame."""
        pictures = rearrange(clips, "b f h w c -> (b f) c h w").float()
        if pictures.shape[2:] != (SIDE, SIDE):
            pictures = F.interpolate(pictures, (SIDE, SIDE), mode="bicubic", antialias=True).round().clamp(0, 255)
        x = F.relu6(self.bn0(self.conv_stem((pictures - 127) / 128)))
        for block in self.blocks:
            x = block(x)
        rows = F.relu6(self.bn1(self.conv_head(x))).mean((2, 3))
        return rows.unflatten(0, clips.shape[:2]), self.fc(rows).unflatten(0, clips.shape[:2])


def named(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as they are here."""
    return {re.sub(r"(^|\.)_", r"\1", name): value for name, value in weights.items()}
