"""DP-VAE beside the autoencoders of CogVideoX and Wan as diffusers has them: time of encoding, decoding and a training step, memory.

    python benchmarks/autoencoder.py [--widths 32,64,128,128] [--size 16x128x128] [--precision fp32 bf16] [--repeats 7] [--json]

All have random weights, the same widths, two residual blocks a resolution, 16 channels of latents, 8x in space and 4x in time. Theirs take
4f + 1 frames, so times are for a pixel. Memory is the peak of a process of its own that decodes 129 frames (ours: 132), less what it had
before.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan
from side_by_side import Noisy, least_times
from torch import Tensor, nn

from videodit.autoencoder import DPVAESettings, inflate
from videodit.autoencoder.presets import PRESETS

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def ours(widths: tuple[int, ...]) -> nn.Module:
    image = replace(PRESETS["sd3"], widths=widths, groups=min(32, widths[0]))
    return inflate(image.build(), DPVAESettings(reach="causal"))


def cogvideox(widths: tuple[int, ...]) -> nn.Module:
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=16,
        norm_num_groups=min(32, widths[0]),
    )


def wan(widths: tuple[int, ...]) -> nn.Module:
    base = widths[0]
    return AutoencoderKLWan(
        base_dim=base, z_dim=16, dim_mult=[width // base for width in widths], num_res_blocks=2, temperal_downsample=[False, True, True]
    )


MODELS: dict[str, Callable[[tuple[int, ...]], nn.Module]] = {"videodit": ours, "CogVideoX": cogvideox, "Wan": wan}


def encoded(model: nn.Module, video: Tensor) -> Tensor:
    out = model.encode(video)  # type: ignore[operator]
    return out.mode() if hasattr(out, "mode") else out.latent_dist.mode()


def decoded(model: nn.Module, latents: Tensor) -> Tensor:
    out = model.decode(latents)  # type: ignore[operator]
    return out if isinstance(out, Tensor) else out.sample


def trained(model: nn.Module, video: Tensor) -> None:
    """One step of the plain reconstruction; what is frozen in a model stays so."""
    model.zero_grad(set_to_none=True)
    (decoded(model, encoded(model, video)) - video[:, :, : video.shape[2]]).square().mean().backward()


def measure(widths: tuple[int, ...], size: tuple[int, int, int], precision: str, repeats: int) -> dict[str, dict[str, float]]:
    frames, rows, columns = size
    models = {name: build(widths).to(TYPES[precision]).eval() for name, build in MODELS.items()}
    inputs = {name: torch.randn(1, 3, frames + (name != "videodit"), rows, columns, dtype=TYPES[precision]).clamp(-1, 1) for name in models}
    pixels = {name: video[0, 0].numel() for name, video in inputs.items()}
    with torch.no_grad():
        latents = {name: encoded(model, inputs[name]) for name, model in models.items()}
        for name, model in models.items():  # the same compression, and every frame back
            assert latents[name].shape[1:] == (16, -(-inputs[name].shape[2] // 4), rows // 8, columns // 8), name
            assert decoded(model, latents[name]).shape == inputs[name].shape, name
        found = {
            "encode": least_times({name: lambda n=name: encoded(models[n], inputs[n]) for name in models}, repeats=repeats),
            "decode": least_times({name: lambda n=name: decoded(models[n], latents[n]) for name in models}, repeats=repeats),
        }
    if precision == "fp32":
        found["train"] = least_times({name: lambda n=name: trained(models[n], inputs[n]) for name in models}, repeats=repeats)
    table = {what: {name: 1e6 * seconds / pixels[name] for name, seconds in times.items()} for what, times in found.items()}
    return {**table, "parameters": {name: float(sum(p.numel() for p in model.parameters())) for name, model in models.items()}}


def peak(name: str, widths: tuple[int, ...], size: tuple[int, int, int], precision: str) -> None:
    """Print the bytes that decoding a long clip adds to a process."""
    model = MODELS[name](widths).to(TYPES[precision]).eval()
    latents = torch.randn(1, 16, 33, size[1] // 8, size[2] // 8, dtype=TYPES[precision])
    with torch.no_grad():
        decoded(model, latents[:, :, :2])
        ctypes.CDLL(None).malloc_trim(0)  # what the first decoding freed is given back (glibc)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew (Linux)
        before = _high_water()
        video = decoded(model, latents)
    print(_high_water() - before - video.numel() * video.element_size())


def _high_water() -> int:
    """The most bytes that this process held in memory."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=lambda text: tuple(map(int, text.split(","))), default=(32, 64, 128, 128))
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), default=(16, 128, 128))
    parser.add_argument("--precision", nargs="+", choices=TYPES, default=["fp32"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peak", choices=MODELS, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.peak:
        return peak(given.peak, given.widths, given.size, given.precision[0])
    result = {}
    try:
        for precision in given.precision:
            result[precision] = measure(given.widths, given.size, precision, given.repeats)
            call = [sys.executable, __file__, "--widths", ",".join(map(str, given.widths)), "--size", "x".join(map(str, given.size))]
            result[precision]["peak bytes"] = {
                name: float(subprocess.run([*call, "--precision", precision, "--peak", name], capture_output=True, check=True).stdout)
                for name in MODELS
            }
    except Noisy as error:
        sys.exit(str(error))
    if given.json:
        print(json.dumps(result))
        return None
    for precision, table in result.items():
        for what, row in table.items():
            cells = "  ".join(f"{name} {value:.4g} ({value / row['videodit']:.2f})" for name, value in row.items())
            print(f"{precision:5} {what:10} {cells}")
    return None


if __name__ == "__main__":
    main()
