"""What a conversion promises, measured: on one frame the video model is the image model, and what is new says nothing yet."""

from __future__ import annotations

import torch
from torch import Tensor

from videodit.autoencoder import PerFrame
from videodit.backbone import DiT, DualTransformer, SingleTransformer
from videodit.convert.from_image import LAVITA, stilled
from videodit.convert.sources import Source
from videodit.models import Proof, parameters
from videodit.shapes import Size, Text, UserError

BOUND = 1e-5  # of the largest output
CLIPS, WORDS, FRAMES = 2, 9, 3
TIMES = (0.15, 0.8)


@torch.no_grad()
def prove(source: Source, video: DualTransformer | SingleTransformer, autoencoder: PerFrame | None = None) -> Proof:
    """Random inputs through diffusers' classes and ours, where there is one, else our image model; beyond the bound is an error."""
    generator = torch.Generator().manual_seed(0)
    grid = _extent(source)
    noisy, text, t = _inputs(source, grid, generator)
    image = source.ours()
    if video.settings.layout in LAVITA:
        return _prove_lavita(source, video, noisy, t)
    theirs = source.project.call(source.theirs(), noisy, t, text) if source.project else image(noisy, t, text)
    difference = _within(video(noisy, t, text), theirs, "The video transformer's output on one frame")
    assert video.video is not None
    clip = torch.randn(CLIPS, noisy.shape[1], FRAMES, *grid[1:], generator=generator)
    return Proof(
        source=source.name,
        digest=source.digest,
        difference=difference,
        autoencoder=None if autoencoder is None else _latents(autoencoder, generator),
        blocks=parameters(video.blocks) - parameters(image.blocks),
        added=parameters(video.video),
        output=video.video(clip).abs().max().item(),
    )


def _prove_lavita(source: Source, video: DualTransformer | SingleTransformer, noisy: Tensor, t: Tensor) -> Proof:
    """With all blocks in space the video model is the image model whose labels say nothing: their embedding is zero."""
    assert isinstance(video, SingleTransformer) and isinstance(source.settings, DiT)
    image = source.theirs() if source.project else source.ours()
    for name, parameter in image.named_parameters():
        if "class_embedder" in name or name.startswith("signal.label."):
            parameter.zero_()
    theirs = source.project.call(image, noisy, t, Text()) if source.project else image(noisy, t, Text())
    added = [parameter for name, parameter in video.named_parameters() if ".own.1." in name]
    silent = [parameter.abs().max().item() for name, parameter in video.named_parameters() if ".own.1.out." in name]
    return Proof(
        source=source.name,
        digest=source.digest,
        difference=_within(stilled(video, source.settings)(noisy, t), theirs, "The transformer's output with all blocks in space"),
        blocks=sum(parameter.numel() for parameter in added),
        added=sum(parameter.numel() for parameter in added),
        output=max(silent, default=0.0),
    )


def _extent(source: Source) -> Size:
    """A few tokens: more columns than rows, but for DiT, whose class is for squares of one size."""
    side, patch = getattr(source.settings.places, "side", 10), source.settings.patch
    rows, columns = (side, side) if isinstance(source.settings, DiT) else (min(6, side), min(10, side))
    return Size(1, rows * patch, columns * patch)


def _inputs(source: Source, grid: Size, generator: torch.Generator) -> tuple[Tensor, Text, Tensor]:
    settings = source.settings
    noisy = torch.randn(CLIPS, settings.channels, *grid, generator=generator)
    sequence, pooled = (torch.randn(CLIPS, *n, generator=generator) for n in ((WORDS, settings.text), (settings.pooled,)))
    labels = settings.labels if isinstance(settings, DiT) else 0
    label = torch.tensor([0, labels]) if labels else None  # the first, and the blank
    return noisy, Text(sequence=sequence, pooled=pooled, label=label), torch.tensor(TIMES)


def _latents(autoencoder: PerFrame, generator: torch.Generator) -> float:
    """Key frames by the image autoencoder's own class, normalised, and by ours."""
    space = 4 * autoencoder.space
    video = torch.rand(1, 3, 2 * autoencoder.time, space, space, generator=generator) * 2 - 1
    frames = video[0, :, :: autoencoder.time].transpose(0, 1)
    theirs = (autoencoder.image.encode(frames).latent_dist.mean - autoencoder.shift) * autoencoder.scaling  # pyright: ignore
    return _within(autoencoder.encode(video).mode()[0].transpose(0, 1), theirs, "The latents of key frames")


def _within(ours: Tensor, theirs: Tensor, what: str) -> float:
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if not difference <= BOUND:
        raise UserError(f"{what} differs from the image model's by {difference:.2g} of its largest, over {BOUND:g}: nothing was written.")
    return difference
