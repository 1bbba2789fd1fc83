"""The transformer of SD3-medium's shape on a CUDA device, in bf16 with random weights: time, share of the ceiling, memory.

    python benchmarks/gpu.py [--preset sd3-medium] [--tokens 4096 16384] [--repeats 5] [--json]

Each of forward and training step, as it is and compiled, with activations computed again in training. Multiply-adds come from
`videodit.backbone.flops`: four times the forward pass for such a step. The ceiling is the fastest bf16 matrix product among the
transformer's own shapes and a cube of 8192. `--device cpu --preset sd3-medium-tiny --tokens 256` tries the script anywhere.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from videodit import backbone
from videodit.backbone import PRESETS, Transformer
from videodit.backbone.flops import cost
from videodit.shapes import Size, Text
from videodit.train.recompute import recompute

WORDS, SIDE = 333, 32  # SD3's words; rows and columns of tokens in a frame


def seconds(run: Callable[[], object], device: str, repeats: int) -> float:
    """The least time of so many runs, after two to warm up."""
    best = float("inf")
    for turn in range(repeats + 2):
        _finish(device)
        start = time.perf_counter()
        run()
        _finish(device)
        best = min(best, time.perf_counter() - start) if turn > 1 else best
    return best


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def ceiling(settings: Transformer, tokens: int, device: str, repeats: int) -> float:
    """Floating-point operations a second of the fastest matrix product."""
    width, cube = settings.width, 8192 if device == "cuda" else 512
    best = 0.0
    for m, k, n in ((tokens, width, 3 * width), (tokens, width, 4 * width), (tokens, 4 * width, width), (cube, cube, cube)):
        one, other = (torch.randn(*shape, device=device, dtype=torch.bfloat16) for shape in ((m, k), (k, n)))
        best = max(best, 2 * m * k * n / seconds(lambda one=one, other=other: one @ other, device, repeats))
    return best


def measure(settings: Transformer, tokens: int, device: str, repeats: int) -> dict[str, dict[str, float]]:
    side = min(SIDE, settings.places.side if settings.places.kind == "cropped" else SIDE)
    frames = max(1, tokens // side**2)
    latents = Size(frames, side * settings.patch, side * settings.patch)
    noisy = torch.randn(1, settings.channels, *latents, device=device, dtype=torch.bfloat16)
    text = Text(*(torch.randn(1, *n, device=device, dtype=torch.bfloat16) for n in ((WORDS, settings.text), (settings.pooled,))))
    t, top = torch.tensor([0.5], device=device), ceiling(settings, frames * side**2, device, repeats)
    work, found = 2 * cost(settings, latents, WORDS).total, {}
    for compiled in (False, True):
        with torch.device(device):
            network = backbone.build(settings).to(torch.bfloat16)

        def forward(network: torch.nn.Module = network) -> Tensor:
            with torch.no_grad():
                return network(noisy, t, text)

        def step(network: torch.nn.Module = network) -> None:
            network.zero_grad(set_to_none=True)
            network(noisy, t, text).float().square().mean().backward()

        for name, run, times in (("forward", forward, 1), ("training step", step, 4)):
            if name != "forward":
                recompute(network.blocks)
            if compiled:
                for block in network.blocks:
                    block.compile(fullgraph=name == "forward")
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            spent = seconds(run, device, repeats)
            peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
            found[f"{name}{', compiled' if compiled else ''}"] = {
                "seconds": spent,
                "share of ceiling": times * work / spent / top,
                "peak bytes": peak,
            }
    return {**found, "ceiling": {"operations a second": top}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="sd3-medium", choices=[name for name, made in PRESETS.items() if isinstance(made, Transformer)])
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "There is no CUDA device here: --device cpu tries the script at a small size.\n")
    settings = PRESETS[given.preset]
    assert isinstance(settings, Transformer)
    result = {tokens: measure(replace(settings, video=True), tokens, given.device, given.repeats) for tokens in given.tokens}
    if given.json:
        print(json.dumps(result))
        return
    for tokens, table in result.items():
        print(f"{tokens} tokens, ceiling {table.pop('ceiling')['operations a second'] / 1e12:.3g} TFLOP/s")
        for what, row in table.items():
            share, peak = row["share of ceiling"], row["peak bytes"] / 2**30
            print(f"  {what:24} {row['seconds']:.4f} s, {share:.2f} of the ceiling, {peak:.2f} GiB at most")


if __name__ == "__main__":
    main()
