"""What a request becomes where a model cannot make as many frames, or none says at which rate a file plays."""

from __future__ import annotations

import dataclasses

from videodit.backbone import DiT
from videodit.data import video
from videodit.extend import factor_of, lengths
from videodit.generate import Generator
from videodit.request import Request
from videodit.shapes import latent_size


def fitting(request: Request, model: Generator) -> Request:
    """The request with the nearest number of frames that the model can make, of an edit at most those there; of two, the larger."""
    if request.task == "upscale" or (request.task == "extend" and request.by in ("", "chunks", "queue")):  # which stop at any frame
        return request
    if request.frames and (there := _filled(request, model)) > 1:
        asked = request.frames
        return dataclasses.replace(request, frames=min(lengths(model, there), key=lambda fits: (abs(fits - asked), -fits)))
    autoencoder, shape = model.model.autoencoder, model.model.settings.backbone
    most = video.probe(request.video).frames if request.task == "edit" and request.video else None
    frames = request.frames or most or request.size(model).frames
    step = autoencoder.time * (shape.tube if isinstance(shape, DiT) else 1)
    if frames <= 1 or autoencoder.lead or frames % step == 0 or (most and frames > most):
        return request
    below = frames // step * step
    nearest = below if below and frames - below < below + step - frames else below + step
    if most and nearest > most:
        nearest = below
    if not nearest:
        return request
    latent_size(request.size(model)._replace(frames=nearest), space=autoencoder.space, time=step)
    return dataclasses.replace(request, frames=nearest)


def paced(request: Request, model: Generator) -> Request:
    """The request with a rate for a video that is made larger, its own, or filled, so that it lasts as long; where none is asked for."""
    if (
        request.task not in ("upscale", "infill")
        or request.fps
        or request.video is None
        or (told := video.probe(request.video)).frames == 1
    ):
        return request
    factor = 1 if request.task == "upscale" else factor_of(model, told.frames, request.frames)
    return dataclasses.replace(request, fps=min(told.fps * factor, 1000))


def _filled(request: Request, model: Generator) -> int:
    """Between how many frames others are made; 0 where none are."""
    if request.task == "infill" and request.video:
        return video.probe(request.video).frames
    return model.size.frames if request.by == "cascade" else 0
