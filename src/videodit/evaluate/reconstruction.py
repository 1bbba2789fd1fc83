"""What an autoencoder leaves of videos: four figures for every frame, by place in its group, beside what two simple copies leave.

Frames are 0..1 and reconstructions clamped to it, not rounded. A figure of several frames, of one clip or of many, is the mean over those
frames; PSNR is that of their mean squared error, as torchmetrics has it, so that one frame that is met exactly does not make it infinite.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from videodit.autoencoder import DPVAE, PerFrame
from videodit.autoencoder.loss import moments
from videodit.autoencoder.perceptual import Perceptual
from videodit.autoencoder.streaming import Windows, decode_in_windows, encode_in_windows
from videodit.autoencoder.tiles import Tiles, tiled
from videodit.data import toybox
from videodit.evaluate.asked import DRAWS
from videodit.evaluate.extractors import digest_of
from videodit.evaluate.intervals import of_mean
from videodit.evaluate.judges import TOYBOX
from videodit.evaluate.protocol import OWN, Card, Estimator, Figure, Rebuilt, Score, Seen, depended, of_figures
from videodit.shapes import Size, UserError

Frames = UInt8[np.ndarray, "f h w 3"]
Pictures = Float[Tensor, "f c h w"]  # 0..1
EachFrame = Float[Tensor, "f"]
Clip = tuple[str, UInt8[np.ndarray, "_ _ _ 3"]]  # its name and frames, each of its own size

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # of SSIM, as its paper has them
PROTOCOL = {
    "frames": "0..1; reconstructions clamped, not rounded; the latents are the posterior's mean",
    "psnr": "of the mean squared error over all frames and channels, peak 1; null where frames are equal",
    "ssim": f"Gaussian window {WINDOW}x{WINDOW} of sigma {SIGMA}, K1 {K1}, K2 {K2}, range 1, mirrored borders, in double precision",
    "temporal": "mean |(x[f] - x[f-1]) - (y[f] - y[f-1])|, each at its later frame; the first of a clip has none",
    "perceptual": "under its network's name, if one was given: mean distance of frames",
    "parts": "the reconstruction in windows and tiles against that of the whole: psnr, and the largest difference",
    "latents": "mean over channels of |mu_z - mu_zk| and |sigma_z - sigma_zk|, statistics over clips, time and space",
}
ESTIMATOR = Estimator(resamples=DRAWS)
TOGETHER = 8  # frames that go through the perceptual network at once


# --- Figures ---


def psnr(original: Pictures, other: Pictures) -> float:
    """Peak signal-to-noise ratio in dB, infinite where all is equal."""
    return _decibels(_squared_error(original, other).mean().item())


def _decibels(error: float) -> float:
    return 10 * math.log10(1 / error) if error else math.inf


def _squared_error(original: Pictures, other: Pictures) -> EachFrame:
    return (original.double() - other.double()).square().mean((1, 2, 3))


def ssim(original: Pictures, other: Pictures) -> EachFrame:
    """Structural similarity of every frame; the window reaches over the borders into the mirrored frame, as in torchmetrics."""
    x, y = original.double(), other.double()  # variances are small differences: in fp32 an even picture is off by up to 1e-3
    mean_x, mean_y = _blurred(x), _blurred(y)
    variances = _blurred(x * x) - mean_x.square() + _blurred(y * y) - mean_y.square()
    covariance = _blurred(x * y) - mean_x * mean_y
    light = (2 * mean_x * mean_y + K1**2) / (mean_x.square() + mean_y.square() + K1**2)
    return (light * (2 * covariance + K2**2) / (variances + K2**2)).mean((1, 2, 3))


def _blurred(x: Pictures) -> Pictures:
    away = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = (-0.5 * (away / SIGMA).square()).exp()
    window = (window / window.sum()).tolist()
    _, _, rows, columns = x.shape
    x = F.pad(x, (WINDOW // 2,) * 4, mode="reflect")
    x = sum((weight * x[:, :, i : i + rows] for i, weight in enumerate(window)), torch.zeros(()))
    return sum((weight * x[..., i : i + columns] for i, weight in enumerate(window)), torch.zeros(()))


def temporal_error(original: Pictures, other: Pictures) -> EachFrame:
    """Difference of differences: how far the change from the frame before is from the original's; the first frame has none (nan)."""
    change, other_change = original.diff(dim=0), other.diff(dim=0)
    errors = (change - other_change).double().abs().mean((1, 2, 3))
    return torch.cat([errors.new_full((1,), math.nan), errors])


def distance(original: Pictures, other: Pictures, perceptual: Perceptual) -> EachFrame:
    """The perceptual distance of every frame."""
    pairs = zip(original.split(TOGETHER), other.split(TOGETHER), strict=True)
    return torch.cat([perceptual(2 * one - 1, 2 * two - 1) for one, two in pairs]).double()


# --- References: what costs no network ---


def previous(pictures: Pictures) -> Pictures:
    """Every frame is the original's frame before it; the first, which has none, is not measured (nan)."""
    return torch.cat([torch.full_like(pictures[:1], math.nan), pictures[:-1]])


def shrunk(pictures: Pictures) -> Pictures:
    """Every frame as the means of its 4x4 squares, enlarged again: 16 times fewer numbers."""
    return F.interpolate(F.avg_pool2d(pictures, 4), scale_factor=4, mode="bicubic", align_corners=False).clamp(0, 1)


REFERENCES: dict[str, Callable[[Pictures], Pictures]] = {
    "previous frame copied": previous,
    "4x4 area downscale, bicubic": shrunk,
}


# --- Clips ---


def toybox_clips(count: int, size: Size) -> Iterable[Clip]:
    """Held-out scenes of the toybox, by name."""
    for index, scene in enumerate(TOYBOX.scenes("held-out", count)):
        yield f"toybox {index}", toybox.render(scene, size)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A clip as an autoencoder takes it, and what was done to it."""

    pictures: Pictures
    told: dict[str, Any]


def fit(name: str, frames: Frames, autoencoder: PerFrame, size: tuple[int, int] | None = None) -> Fitted:
    """The middle of every frame: as many rows and columns as fit, or resized to cover `size`."""
    count, rows, columns = frames.shape[:3]
    step = autoencoder.space
    wanted = size or (rows // step * step, columns // step * step)
    least = -(-(WINDOW // 2 + 1) // step) * step  # what SSIM's borders can be mirrored in
    if min(wanted) < least:
        small = Size(count, *(size or (rows, columns)))
        raise UserError(f"{name} is too small ({small}): {'use a --size' if size else 'name a clip'} of {least}x{least} at least.")
    autoencoder.latents(Size(count, *wanted))
    pictures, done = _pictures(frames), "whole"
    if size and size != (rows, columns):
        scale = max(size[0] / rows, size[1] / columns)
        cover = max(size[0], round(rows * scale)), max(size[1], round(columns * scale))
        pictures = F.interpolate(pictures, cover, mode="bicubic", antialias=True).mul(255).round().clamp(0, 255) / 255
        done = "resized" if cover == size else "resized and cropped"
    elif wanted != (rows, columns):
        done = "cropped"
    top, left = (pictures.shape[2] - wanted[0]) // 2, (pictures.shape[3] - wanted[1]) // 2
    pictures = pictures[:, :, top : top + wanted[0], left : left + wanted[1]]
    held = hashlib.sha256(str(tuple(pictures.shape)).encode() + pictures.mul(255).round().to(torch.uint8).numpy().tobytes()).hexdigest()
    told = {"name": name, "frames": count, "size": list(wanted), "from": [rows, columns], "fit": done, "digest": held}
    return Fitted(pictures=pictures, told=told)


def _pictures(frames: Frames) -> Pictures:
    return torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 255


# --- Measuring ---


@dataclass(frozen=True, kw_only=True)
class LatentMoments:
    """How many latents a channel has, their mean and deviation; several are put together as if they were one."""

    count: int
    mean: Float[Tensor, "c"]
    std: Float[Tensor, "c"]

    @classmethod
    def of(cls, z: Float[Tensor, "b c f h w"]) -> LatentMoments:
        count = z.shape[0] * z.shape[2:].numel()
        mean, std = moments(z.double()) if count > 1 else (z.double().flatten(), torch.zeros(z.shape[1]))
        return cls(count=count, mean=mean.cpu(), std=std.cpu())

    @classmethod
    def together(cls, parts: Sequence[LatentMoments]) -> LatentMoments:
        count = sum(part.count for part in parts)
        mean = torch.stack([part.count * part.mean for part in parts]).sum(0) / count
        squares = [(part.count - 1) * part.std.square() + part.count * (part.mean - mean).square() for part in parts]
        return cls(count=count, mean=mean, std=(torch.stack(squares).sum(0) / (count - 1)).sqrt())


@dataclass(frozen=True, kw_only=True)
class _Latents:
    z: LatentMoments
    z_k: LatentMoments
    errors: EachFrame  # of D_k(z), at the key frames
    errors_k: EachFrame  # of D_k(z_k)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """How memory could be saved; what that costs in exactness is measured."""

    windows: Windows | None = None
    tiles: Tiles | None = None

    def reconstruction(self, autoencoder: PerFrame, video: Float[Tensor, "1 c f h w"]) -> Float[Tensor, "1 c f h w"]:
        whole = Windows(groups=autoencoder.latents(Size(*video.shape[2:])).frames, overlap=0)
        with tiled(autoencoder, self.tiles or Tiles()):
            z = encode_in_windows(autoencoder, video, self.windows or whole).mode()
            return decode_in_windows(autoencoder, z, self.windows or whole, video.shape[2])


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """A clip's figures by frame, for the reconstruction and each reference."""

    positions: Int[Tensor, "f"]
    figures: dict[str, dict[str, EachFrame]]
    latents: _Latents | None
    parts: tuple[EachFrame, float] | None  # squared error against the whole, the largest difference


@torch.inference_mode()
def measure(
    autoencoder: PerFrame,
    clips: Iterable[Clip],
    *,
    perceptual: Perceptual | None = None,
    size: tuple[int, int] | None = None,
    parts: Parts | None = None,
    estimator: Estimator = ESTIMATOR,
) -> dict[str, Any]:
    """Each clip's figures and those of all; `positions` lists them by place in the group, 0 being the key frame; `figures` has the
    intervals of those of all."""
    device = next(autoencoder.parameters()).device
    told, measured = [], []
    for name, frames in clips:
        fitted = fit(name, frames, autoencoder, size)
        measured.append(_measured(autoencoder, fitted.pictures.to(device), perceptual and perceptual.to(device), parts))
        told.append({**fitted.told, **_report(measured[-1:], autoencoder.time)})
    if not measured:
        raise UserError("There is no clip to measure: name a video, or the word toybox.")
    net = perceptual.name if perceptual else None
    head = {"group": autoencoder.time, "perceptual": net, "protocol": PROTOCOL}
    return {**head, **_report(measured, autoencoder.time), "clips": told, "figures": _figures_of(measured, estimator)}


def scored(
    result: dict[str, Any],
    autoencoder: PerFrame,
    *,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    perceptual: Perceptual | None = None,
    estimator: Estimator = ESTIMATOR,
    fake: str,
) -> Score:
    """What was measured of an autoencoder, with its card; `frames` and `size`: as clips were taken."""
    clips = result["clips"]
    extents = {tuple(clip["size"]) for clip in clips}
    net = Seen(name=perceptual.name, digest=digest_of(perceptual), takes="frames in -1..1") if perceptual else None
    card = Card(
        measure="reconstruction",
        protocol=OWN,
        extractor=net or Seen(name="none", digest="", takes="frames in 0..1"),
        real=Rebuilt(count=len(clips), frames=frames, size=size),
        fake=None,
        real_digest=hashlib.sha256("".join(clip["digest"] for clip in clips).encode()).hexdigest(),
        extent=next(iter(extents)) if len(extents) == 1 else None,
        estimator=estimator,
        versions=depended("diffusers"),
    )
    return of_figures(result["figures"], fake=fake, fake_digest=digest_of(autoencoder), card=card)


def _measured(autoencoder: PerFrame, original: Pictures, perceptual: Perceptual | None, parts: Parts | None) -> _Measured:
    video = rearrange(2 * original - 1, "f c h w -> 1 c f h w")
    z = autoencoder.encode(video).mode()
    whole = _unit(autoencoder.decode(z, frames=len(original)))
    cut = _unit(parts.reconstruction(autoencoder, video)) if parts else None
    others = {
        "reconstruction": whole,
        **{name: made(original) for name, made in REFERENCES.items()},
    }
    return _Measured(
        positions=(torch.arange(len(original)) + (autoencoder.lead if len(original) > 1 else 0))
        % autoencoder.time,  # a picture is a key frame
        figures={name: _figures(original, other, perceptual) for name, other in others.items()},
        latents=_latents(autoencoder, video, z) if isinstance(autoencoder, DPVAE) else None,
        parts=None if cut is None else (_squared_error(whole, cut).cpu(), (whole - cut).abs().max().item()),
    )


def _unit(video: Float[Tensor, "1 c f h w"]) -> Pictures:
    return rearrange((video.float() + 1) / 2, "1 c f h w -> f c h w").clamp(0, 1)


def _figures(original: Pictures, other: Pictures, perceptual: Perceptual | None) -> dict[str, EachFrame]:
    found = {"psnr": _squared_error(original, other), "ssim": ssim(original, other), "temporal": temporal_error(original, other)}
    if perceptual:
        found[perceptual.name] = distance(original, other, perceptual)
    return {name: values.cpu() for name, values in found.items()}


def _latents(autoencoder: DPVAE, video: Float[Tensor, "1 c f h w"], z: Float[Tensor, "1 d t y x"]) -> _Latents:
    keys = video if video.shape[2] == 1 else autoencoder.whole_groups(video)[:, :, :: autoencoder.time]
    z_k = autoencoder.encode_image(keys).mode()
    errors = [_squared_error(_unit(keys), _unit(autoencoder.decode_image(latents))).cpu() for latents in (z, z_k)]
    return _Latents(z=LatentMoments.of(z), z_k=LatentMoments.of(z_k), errors=errors[0], errors_k=errors[1])


# --- Reporting ---


def _report(measured: Sequence[_Measured], group: int) -> dict[str, Any]:
    positions = torch.cat([clip.positions for clip in measured])
    table: dict[str, Any] = {}
    for row, figures in measured[0].figures.items():
        whole = {name: torch.cat([clip.figures[row][name] for clip in measured]) for name in figures}
        places = [_means(whole, positions == place) for place in range(group)]
        table[row] = {"all": _means(whole, torch.ones_like(positions, dtype=torch.bool)), "positions": places}
    latents = [clip.latents for clip in measured if clip.latents]
    found = {**table.pop("reconstruction"), "references": table, "latents": _distances(latents) if latents else None}
    return {**found, "parts": _seams([clip.parts for clip in measured if clip.parts])}


def _means(figures: dict[str, EachFrame], chosen: Bool[Tensor, "f"]) -> dict[str, float | None]:
    """The mean of each figure over the chosen frames that have it; its squared error becomes PSNR."""
    means = {name: values[chosen].nanmean().item() for name, values in figures.items()}
    return {name: _number(_decibels(mean) if name == "psnr" else mean) for name, mean in means.items()}


def _figures_of(measured: Sequence[_Measured], estimator: Estimator) -> dict[str, dict[str, Any]]:
    """The figures of all frames, with intervals over clips; the floor is the frame before, copied: a real one against a real one."""

    def figure(row: str, name: str, floor: float | None = None) -> Figure | None:
        each = [clip.figures[row][name].double() for clip in measured]
        clips = torch.stack([torch.stack([one.nansum(), (~one.isnan()).sum()]) for one in each])
        return of_mean(clips, estimator, told=_decibels if name == "psnr" else float, floor=floor, digits=6)

    found = {}
    for name in measured[0].figures["reconstruction"]:
        copied = figure("previous frame copied", name)
        found[f"all.{name}"] = figure("reconstruction", name, copied and copied.value)
    return {name: asdict(one) for name, one in found.items() if one}


def _distances(parts: Sequence[_Latents]) -> dict[str, float | None]:
    z, z_k = (LatentMoments.together([getattr(part, name) for part in parts]) for name in ("z", "z_k"))
    errors, errors_k = (torch.cat([getattr(part, name) for part in parts]).mean().item() for name in ("errors", "errors_k"))
    return {
        "mean": _number((z.mean - z_k.mean).abs().mean().item()),
        "deviation": _number((z.std - z_k.std).abs().mean().item()),
        "image_decoder_psnr": _number(_decibels(errors)),
        "image_autoencoder_psnr": _number(_decibels(errors_k)),
    }


def _seams(parts: Sequence[tuple[EachFrame, float]]) -> dict[str, float | None] | None:
    if not parts:
        return None
    error = torch.cat([errors for errors, _ in parts]).mean().item()
    return {"psnr": _number(_decibels(error)), "largest": _number(max(largest for _, largest in parts))}


def _number(value: float) -> float | None:
    """JSON knows neither infinity nor nan."""
    return round(value, 6) if math.isfinite(value) else None
