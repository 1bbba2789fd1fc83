"""Memory of a causal autoencoder, and of one frame by frame: no more for a long clip than for a short one, beside what goes in and out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from videodit.autoencoder import DPVAESettings, PerFrame, inflate
from videodit.autoencoder.presets import PRESETS


def peak(function: Callable[[], Tensor], folder: Path) -> int:
    """The most bytes of tensors that stood at once, beside those before and the one that comes out."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        out = function()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    total = most = 0
    for _, change in changes:
        total += change
        most = max(most, total)
    return most - out.numel() * out.element_size()


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@torch.no_grad()
def test_a_long_clip_takes_no_more_memory(tmp_path: Path) -> None:
    autoencoder = inflate(PRESETS["tiny"].build(), DPVAESettings(reach="causal")).eval()
    peaks = []
    for frames in (16, 256, 1024):
        video = torch.zeros(1, 3, frames, 32, 32)
        latents = torch.zeros(1, autoencoder.channels, frames // 4, 4, 4)
        encoding = peak(lambda video=video: autoencoder.encode(video).mean, tmp_path) - latents.numel() * 4  # the deviation comes out, too
        peaks.append((encoding, peak(lambda latents=latents: autoencoder.decode(latents), tmp_path)))
    for first, *others in zip(*peaks, strict=True):
        assert others == pytest.approx([first] * 2, rel=0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@torch.no_grad()
def test_a_long_clip_frame_by_frame_takes_no_more_memory(tmp_path: Path) -> None:
    autoencoder = PerFrame(PRESETS["tiny"].build())
    peaks = []
    for frames in (16, 64):
        video, latents = torch.zeros(1, 3, frames, 32, 32), torch.zeros(1, autoencoder.channels, frames, 4, 4)
        encoding = peak(lambda video=video: autoencoder.encode(video).mean, tmp_path) - latents.numel() * 4
        peaks.append((encoding, peak(lambda latents=latents: autoencoder.decode(latents), tmp_path)))
    for first, second in zip(*peaks, strict=True):
        assert second == pytest.approx(first, rel=0.05)
