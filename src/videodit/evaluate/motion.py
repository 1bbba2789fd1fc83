"""How things move, as numbers of a clip: optical flow between neighbouring frames, and what its course over the clip tells.

Flow is by Lucas and Kanade over a pyramid, in windows, weighted by how much there is to see, with iterations that warp one frame towards
the next. Speeds are in percent of the shorter side a frame, so that clips of any extent compare. Signs are kept: a clip that runs
backwards is another.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from videodit.shapes import UserError

Grey = Float[Tensor, "n 1 h w"]  # 0..1
Flow = Float[Tensor, "n 2 h w"]  # columns, rows; in pixels from a frame to the next

LEVELS, PASSES, WINDOW = 3, 3, 7
FAINT = 1e-3  # added to the structure of a window: where nothing is to be seen, nothing moves
SMALLEST = 16
NAMES = ("right", "down", "speed", "spread", "outwards", "round", "unexplained")
COURSE = ("mean", "deviation", "change")


def flow(before: Grey, after: Grey) -> Flow:
    """How far each place moves."""
    pyramid = [(before, after)]
    while len(pyramid) < LEVELS and min(pyramid[-1][0].shape[2:]) >= 2 * SMALLEST:
        pyramid.append((F.avg_pool2d(pyramid[-1][0], 2), F.avg_pool2d(pyramid[-1][1], 2)))
    found = torch.zeros_like(pyramid[-1][0]).repeat(1, 2, 1, 1)
    for one, other in reversed(pyramid):
        if found.shape[2:] != one.shape[2:]:
            found = 2 * F.interpolate(found, one.shape[2:], mode="bilinear", align_corners=False)
        for _ in range(PASSES):
            found = found + _step(one, warped(other, found))
    return found


def warped(frames: Grey, by: Flow) -> Grey:
    """Each place shows what the flow says it moves to."""
    rows, columns = frames.shape[2:]
    y, x = torch.meshgrid(torch.arange(rows, dtype=by.dtype), torch.arange(columns, dtype=by.dtype), indexing="ij")
    places = torch.stack([2 * (x + by[:, 0]) / max(columns - 1, 1) - 1, 2 * (y + by[:, 1]) / max(rows - 1, 1) - 1], -1)
    return F.grid_sample(frames, places, mode="bilinear", padding_mode="border", align_corners=True)


def _step(one: Grey, other: Grey) -> Flow:
    """The least squares of one pass: the structure of each window against the change in it."""
    change = other - one
    dx, dy = _slopes((one + other) / 2)
    xx, xy, yy, xt, yt = (F.avg_pool2d(part, WINDOW, 1, WINDOW // 2) for part in (dx * dx, dx * dy, dy * dy, dx * change, dy * change))
    xx, yy = xx + FAINT, yy + FAINT
    determinant = xx * yy - xy * xy
    return torch.cat([(xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant], 1).clamp(-WINDOW / 2, WINDOW / 2)


def _slopes(grey: Grey) -> tuple[Grey, Grey]:
    wide = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    return (wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]) / 2, (wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]) / 2


def described(video: UInt8[Tensor, "b f h w 3"]) -> Float[Tensor, "b d"]:
    """Each clip's numbers: mean, deviation and change of what its pairs of frames tell, how alike neighbours are, how many stand still."""
    clips, frames, rows, columns, _ = video.shape
    if frames < 3 or min(rows, columns) < SMALLEST:
        raise UserError(
            f"Motion needs 3 frames of {SMALLEST}x{SMALLEST} at least, not {frames} of {rows}x{columns}: use more --frames or --size."
        )
    grey = (video.float() @ torch.tensor([0.299, 0.587, 0.114]) / 255)[:, :, None]
    one, other = (rearrange(part, "b f c h w -> (b f) c h w") for part in (grey[:, :-1], grey[:, 1:]))
    told = rearrange(_pairs(one, other), "(b f) d -> b f d", b=clips)
    course = [told.mean(1), told.std(1), told.diff(dim=1).abs().mean(1)]
    way = told[..., :2]
    alike = F.cosine_similarity(way[:, 1:], way[:, :-1], dim=-1, eps=0.05).mean(1, keepdim=True)
    still = (told[..., 2] < 0.1).float().mean(1, keepdim=True)
    return torch.cat([*course, 4 * alike, 4 * still], 1)


def _pairs(one: Grey, other: Grey) -> Float[Tensor, "n 7"]:
    """What `NAMES` says of each pair of frames, in percent of the shorter side, or of the range of brightness."""
    by = flow(one, other)
    dx, dy = _slopes((one + other) / 2)
    weight = F.avg_pool2d(dx.square() + dy.square(), WINDOW, 1, WINDOW // 2) + 1e-8
    weight = weight / weight.sum((2, 3), keepdim=True)
    scale = 100 / min(one.shape[2:])
    speed = by.square().sum(1, keepdim=True).sqrt()
    mean = (weight * by).sum((2, 3), keepdim=True)
    y, x = (torch.arange(size, dtype=by.dtype) for size in one.shape[2:])
    place = torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]
    away = place - (weight * place).sum((2, 3), keepdim=True)
    length = away.square().sum(1, keepdim=True).sqrt() + 1
    rest = by - mean
    outwards = (rest * away).sum(1, keepdim=True) / length
    around = (rest[:, 1:] * away[:, :1] - rest[:, :1] * away[:, 1:]) / length
    spread = (weight * rest.square().sum(1, keepdim=True)).sum((2, 3)).sqrt()
    left = (warped(other, by) - one).abs().mean((2, 3)) * 100
    parts = [mean.flatten(1) * scale, (weight * speed).sum((2, 3)) * scale, spread * scale]
    return torch.cat([*parts, (weight * outwards).sum((2, 3)) * scale, (weight * around).sum((2, 3)) * scale, left], 1)
