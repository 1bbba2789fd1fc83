"""InceptionV3 as FID knows it: the network of 2015-12-05 with 1,008 answers, under the names of its ports to PyTorch.

Departures from the published network, all of which a FID needs: averages leave padding out, the last block pools by maximum, and frames are
resized to 299x299 as TensorFlow 1 did (corners of pixels aligned at the first, no antialiasing), to -1..1 by (x - 128) / 128. Inception
scores take the answers without their bias, as torch-fidelity does.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

Maps = Float[Tensor, "n c h w"]
SIDE = 299


class Unit(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, before: int, after: int, kernel: int | tuple[int, int], **more: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, bias=False, **more)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: Maps) -> Float[Tensor, "n d y x"]:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side: chains of units by name, some of which end in two that stand beside each other, and one that pools first."""

    def __init__(self, branches: list[list[tuple[str, Unit] | list[tuple[str, Unit]]]], pool: str) -> None:
        super().__init__()
        self.pool, self.chains = pool, []
        for branch in branches:
            chain: list[list[str]] = []
            for step in branch:
                units = step if isinstance(step, list) else [step]
                for name, unit in units:
                    self.add_module(name, unit)
                chain.append([name for name, _ in units])
            self.chains.append(chain)

    def forward(self, x: Maps) -> Float[Tensor, "n d y x"]:
        found = []
        for chain in self.chains:
            parts = [x]
            for names in chain:
                if names[0] == "branch_pool":
                    parts = [F.max_pool2d(x, 3, 1, 1) if self.pool == "max" else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)]
                parts = [self.get_submodule(name)(parts[0]) for name in names]
            found += parts
        return torch.cat([*found, F.max_pool2d(x, 3, 2)] if self.pool == "halve" else found, 1)


def _chain(name: str, before: int, *steps: tuple[int, int | tuple[int, int]], stride: int = 1) -> list:
    """Units one after the other; `stride` is the last one's, which then has no padding."""
    units = []
    for number, (after, kernel) in enumerate(steps, 1):
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        halving = stride > 1 and number == len(steps)
        padding = (0, 0) if halving else (sides[0] // 2, sides[1] // 2)
        label = name if len(steps) == 1 else f"{name}_{number}"
        units.append((label, Unit(before, after, sides, stride=stride if halving else 1, padding=padding)))
        before = after
    return units


def _fan(name: str, ending: str, before: int, after: int) -> list[tuple[str, Unit]]:
    """Two units beside each other: along rows and along columns."""
    along = Unit(before, after, (1, 3), padding=(0, 1)), Unit(before, after, (3, 1), padding=(1, 0))
    return [(f"{name}_{ending}{letter}", unit) for letter, unit in zip("ab", along, strict=True)]


def _a(before: int, pooled: int) -> Mixed:
    double = _chain("branch3x3dbl", before, (64, 1), (96, 3), (96, 3))
    branches = [_chain("branch1x1", before, (64, 1)), _chain("branch5x5", before, (48, 1), (64, 5)), double]
    return Mixed([*branches, _chain("branch_pool", before, (pooled, 1))], "mean")


def _b(before: int) -> Mixed:
    double = _chain("branch3x3dbl", before, (64, 1), (96, 3), (96, 3), stride=2)
    return Mixed([_chain("branch3x3", before, (384, 3), stride=2), double], "halve")


def _c(before: int, width: int) -> Mixed:
    once = _chain("branch7x7", before, (width, 1), (width, (1, 7)), (192, (7, 1)))
    twice = _chain("branch7x7dbl", before, (width, 1), (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7)))
    return Mixed([_chain("branch1x1", before, (192, 1)), once, twice, _chain("branch_pool", before, (192, 1))], "mean")


def _d(before: int) -> Mixed:
    double = _chain("branch7x7x3", before, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3), stride=2)
    return Mixed([_chain("branch3x3", before, (192, 1), (320, 3), stride=2), double], "halve")


def _e(before: int, pool: str) -> Mixed:
    wide = [("branch3x3_1", Unit(before, 384, 1)), _fan("branch3x3", "2", 384, 384)]
    double = [*_chain("branch3x3dbl", before, (448, 1), (384, 3)), _fan("branch3x3dbl", "3", 384, 384)]
    return Mixed([_chain("branch1x1", before, (320, 1)), wide, double, _chain("branch_pool", before, (192, 1))], pool)


class InceptionV3(nn.Module):
    """Pictures -> 2,048 features and 1,008 answers."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Unit(3, 32, 3, stride=2), Unit(32, 32, 3)
        self.Conv2d_2b_3x3, self.Conv2d_3b_1x1 = Unit(32, 64, 3, padding=1), Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _b(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _c(768, 128), _c(768, 160), _c(768, 160), _c(768, 192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = _d(768), _e(1280, "mean"), _e(2048, "max")
        self.fc = nn.Linear(2048, 1008)

    def forward(self, clips: UInt8[Tensor, "b f h w 3"]) -> tuple[Float[Tensor, "b f d"], Float[Tensor, "b f k"]]:
        """A row and answers for each frame."""
        x = (resized(rearrange(clips, "b f h w c -> (b f) c h w").float()) - 128) / 128
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = self.get_submodule(f"Mixed_{name}")(x)
        rows = x.mean((2, 3))
        answers = rows @ self.fc.weight.T
        return rows.unflatten(0, clips.shape[:2]), answers.unflatten(0, clips.shape[:2])


def resized(pictures: Maps) -> Float[Tensor, "n c 299 299"]:
    """Bilinear as TensorFlow 1 had it: place i of the result is i * length / 299 of the picture."""
    for axis in (2, 3):
        length = pictures.shape[axis]
        at = torch.arange(SIDE, dtype=torch.float32) * (length / SIDE)
        below = at.floor().long()
        share = (at - below).reshape(-1, 1) if axis == 2 else at - below
        above = (below + 1).clamp_max(length - 1)
        one, other = pictures.index_select(axis, below), pictures.index_select(axis, above)
        pictures = one + (other - one) * share
    return pictures
