"""C3D (arXiv:1412.0767) with the 101 answers of UCF101, by which papers on video report inception scores.

Clips are taken as TGANv2 takes them (arXiv:1811.09245): 16 frames, 0..255, resized to 112x112 by bilinear interpolation whose corner pixels
stay where they are, blue before red, less the mean clip that belongs to the weights. Pools cover what is left at an edge, as Caffe and
Chainer have it; ports to PyTorch that pad the last one on both sides give other answers. Features are those of fc7.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.shapes import UserError

FRAMES, SIDE, ANSWERS = 16, 112, 101
MEAN = (3, FRAMES, 128, 171)  # of the published mean clip, of which the part from (8, 8) is subtracted
EDGE = 8
# Convolutions, and the pools between them: frames, rows and columns that become one.
STEPS: tuple[str | tuple[int, int, int], ...] = (
    *("1a", (1, 2, 2)),
    *("2a", (2, 2, 2)),
    *("3a", "3b", (2, 2, 2)),
    *("4a", "4b", (2, 2, 2)),
    *("5a", "5b", (2, 2, 2)),
)
KINDS = {"W": "weight", "b": "bias"}  # what Chainer calls them
WIDTHS = (64, 128, 256, 256, 512, 512, 512, 512)


class C3D(nn.Module):
    """Clips -> 4,096 features and 101 answers."""

    mean: Tensor

    def __init__(self, widths: tuple[int, ...] = WIDTHS, hidden: int = 4096) -> None:
        super().__init__()
        names = [step for step in STEPS if isinstance(step, str)]
        for name, before, after in zip(names, (3, *widths), widths, strict=False):
            self.add_module(f"conv{name}", nn.Conv3d(before, after, 3, padding=1))
        self.fc6, self.fc7, self.fc8 = nn.Linear(widths[-1] * 4 * 4, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, ANSWERS)
        self.register_buffer("mean", torch.zeros(3, FRAMES, SIDE, SIDE))

    def forward(self, clips: UInt8[Tensor, "b f h w 3"]) -> tuple[Float[Tensor, "b 1 d"], Float[Tensor, "b 1 k"]]:
        """A row and answers for each clip."""
        if clips.shape[1] != FRAMES:
            raise UserError(f"C3D takes clips of {FRAMES} frames, not of {clips.shape[1]}: use --frames {FRAMES}.")
        pictures = rearrange(clips.flip(-1), "b f h w c -> (b f) c h w").float()
        pictures = F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", align_corners=True)
        x = rearrange(pictures, "(b f) c h w -> b c f h w", b=len(clips)) - self.mean
        for step in STEPS:
            x = F.relu(self.get_submodule(f"conv{step}")(x)) if isinstance(step, str) else F.max_pool3d(x, step, ceil_mode=True)
        rows = F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))
        return rows[:, None], self.fc8(rows)[:, None]


def named(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Chainer's names, and the part of the mean clip that counts."""
    found = {}
    for name, value in weights.items():
        layer, _, kind = name.replace("/", ".").rpartition(".")
        found[f"{layer}.{KINDS.get(kind, kind)}" if layer else name] = value
    mean = found.get("mean")
    if mean is not None and mean.numel() == torch.Size(MEAN).numel():
        found["mean"] = mean.reshape(MEAN)[:, :, EDGE : EDGE + SIDE, EDGE : EDGE + SIDE]
    return found
