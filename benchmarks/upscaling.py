"""What a model that makes clips larger gives back of held-out clips that were made small, beside enlarging them (bicubic).

    videodit train runs/toybox_upscale.toml
    python benchmarks/upscaling.py out/toybox_upscale/model [--count 24] [--steps 12] [--guidance 1] [--json]

Every row is beside the clips as they are: PSNR, and how many times as sharp. What the autoencoder leaves of the enlarged clip is what the
model is told, what it leaves of the whole one is the most that the model could reach. Told of another clip, with the words of this one, it
must do far worse, or it makes nothing of what it is told.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch

import videodit
from videodit.data import toybox
from videodit.evaluate import surface
from videodit.generate import Frames, Generator, to_frames
from videodit.given import enlarged, reduced
from videodit.upscale import upscaled

SEED = 50_000  # of clips that neither training nor `evaluate` has


def through(model: Generator, video: Frames) -> Frames:
    """What the autoencoder leaves."""
    with torch.inference_mode():
        coder = model.model.autoencoder
        return model.decode(coder.encode(pixels(video)).mode(), len(video))[0]


def pixels(video: Frames) -> torch.Tensor:
    return torch.from_numpy(video).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def psnr(one: Frames, other: Frames) -> float:
    return float(10 * np.log10(255**2 / np.square(one.astype(float) - other).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    model = videodit.load(asked.model)
    upscale = model.model.settings.upscale
    assert upscale, "a model that was trained with upscale.factor"
    drawn = [toybox.clip(SEED, i, model.size, split="held-out") for i in range(asked.count)]
    truth = [one.video for one in drawn]
    small = [to_frames(reduced(pixels(video), upscale.factor))[0] for video in truth]
    plain = [to_frames(enlarged(pixels(video), upscale.factor))[0] for video in small]
    prompts = [toybox.prompt(one.scene) for one in drawn]

    def made(told: list[Frames], **how: Any) -> list[Frames]:
        return [
            upscaled(model, video, prompt, first=i, steps=asked.steps, guidance=asked.guidance, **how)
            for i, (video, prompt) in enumerate(zip(told, prompts, strict=True))
        ]

    rows = {
        "truth through the autoencoder": [through(model, video) for video in truth],
        "bicubic": plain,
        "bicubic through the autoencoder": [through(model, video) for video in plain],
        **{f"model, softened {share:g}": made(small, softened=share) for share in sorted({0.0, upscale.softened, upscale.most})},
        "model, told of another clip": made(small[1:] + small[:1]),
    }
    sharp = [surface.sharpness(video) for video in truth]
    table = {}
    for name, videos in rows.items():
        errors = [psnr(video, real) for video, real in zip(videos, truth, strict=True)]
        ratios = [surface.sharpness(video) / real for video, real in zip(videos, sharp, strict=True)]
        table[name] = {"psnr": round(float(np.mean(errors)), 2), "sharpness": round(float(np.mean(ratios)), 3)}
        if not asked.json:
            print(f"{name:34} {table[name]['psnr']:6.2f} dB  {table[name]['sharpness']:.3f} times as sharp", flush=True)
    if asked.json:
        print(json.dumps({"count": asked.count, **table}))


if __name__ == "__main__":
    main()
