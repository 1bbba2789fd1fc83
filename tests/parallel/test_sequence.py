"""The tokens of a clip in two and four processes: forward and gradients as in one, bytes as counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import ranks
import tiny
from traffic import Sent
from videodit import backbone, parallel
from videodit.backbone import PRESETS, DiT, Transformer
from videodit.parallel import Parallel
from videodit.parallel.volume import sequence_bytes
from videodit.shapes import Size, Text, UserError

SINGLE = PRESETS["latte-xl-v2-tiny"]
assert isinstance(SINGLE, DiT)
WORDS, LATENTS = 5, Size(4, 2, 8)
DUAL = replace(tiny.transformer().settings, width=64, heads=4)
WORDED = replace(SINGLE, text=tiny.TEXT.width)
CASES: dict[str, Transformer | DiT] = {
    "dual": replace(DUAL, twice=1, given="time"),
    "dual spatial": replace(DUAL, layout="spatial"),
    "global": replace(WORDED, layout="global", time="rotary"),
    "interleaved": WORDED,
    "divided": replace(SINGLE, layout="divided", time="rotary"),
    "split": replace(SINGLE, layout="split", time="space-time"),
    "windows": replace(SINGLE, layout="windows", window=1),
    "token": replace(SINGLE, layout="late", told="token"),
}
REFUSED = {"beside": replace(DUAL, layout="beside"), "local-global": replace(SINGLE, layout="local-global")}


def network(name: str) -> Any:
    torch.manual_seed(2)
    return tiny.randomised(backbone.build(CASES[name]))


def told(name: str, frames: int) -> tuple[Tensor, Tensor, Text, Tensor | None]:
    s = CASES[name]
    rows, columns = (2, 6) if name == "token" else LATENTS[1:]
    noisy = tiny.grid(2, s.channels, frames, rows, columns)
    given = torch.zeros(2, 1, *noisy.shape[2:]) if s.given == "time" else None
    if given is not None:
        given[:, :, 0] = 1
    words = tiny.text([WORDS, 3]) if isinstance(s, Transformer) or s.text else Text()
    return noisy, torch.tensor([0.3, 0.8]), words, given


def member(folder: Path, number: int) -> dict[str, Any]:
    """Differences from the unsplit network, which every member computes beside it, and what was sent."""
    size, found = dist.get_world_size(), {}
    split = Parallel(sequence=size)
    mesh = parallel.build(split, size, "cpu")
    for name in CASES if size == 2 else ("dual", "divided"):
        for frames in (LATENTS.frames, 1) if name in ("dual", "interleaved") else (LATENTS.frames,):
            found[f"{name} {frames}"] = compared(name, frames, split)
        if name in ("dual", "interleaved"):
            found[f"{name} with pictures"] = compared(name, LATENTS.frames + 2, split, images=2)
    for name in ("dual", "global"):
        found[f"{name} ring"] = compared(name, LATENTS.frames, replace(split, ring=True))
    found["refused"] = [refusal(name, split, mesh) for name in REFUSED]
    with pytest.raises(UserError, match=r"not spatial: set parallel.ring=false"):
        parallel.wrap(network("dual spatial"), replace(split, ring=True), mesh, half=False)
    found["frames"] = uneven(split, mesh)
    return found


def compared(name: str, frames: int, split: Parallel, images: int = 0) -> tuple[float, float, int, int, int, int]:
    """By how much the split network's output and gradients differ; what it sent, and should have."""
    size, alone, shared = dist.get_world_size(), network(name), network(name)
    parallel.wrap(shared, split, parallel.build(split, size, "cpu"), half=False)
    x, t, words, given = told(name, frames)
    whole = alone(x, t, words, given, images=images)
    weights = tiny.grid(*whole.shape, seed=9)
    (whole * weights).mean().backward()
    with Sent() as sent:
        out = shared(x, t, words, given, images=images)
        forward = sent.bytes
        ((out * weights).mean() / size).backward()
    worst = 0.0
    for p, q in zip(alone.parameters(), shared.parameters(), strict=True):
        mine = torch.zeros_like(q) if q.grad is None else q.grad
        dist.all_reduce(mine)
        wanted = torch.zeros_like(p) if p.grad is None else p.grad
        worst = max(worst, ((mine - wanted).abs().max() / wanted.abs().max().clamp(min=1e-3)).item())
    latents = Size(*x.shape[2:])
    passes = {2: latents._replace(frames=frames - images)} | ({2 * images: latents._replace(frames=1)} if images else {})
    counts = [sequence_bytes(CASES[name], one, WORDS, size, clips=clips, width=4, ring=split.ring) for clips, one in passes.items()]
    counted = [sum(getattr(count, field) for count in counts) for field in ("forward", "both")]
    return ((out - whole).abs().max() / whole.abs().max()).item(), worst, forward, counted[0], sent.bytes, counted[1]


def refusal(name: str, split: Parallel, mesh: Any) -> str:
    with pytest.raises(UserError) as error:
        parallel.wrap(backbone.build(REFUSED[name]), split, mesh, half=False)
    return str(error.value)


def uneven(split: Parallel, mesh: Any) -> str:
    shared = network("divided")
    parallel.wrap(shared, split, mesh, half=False)
    with pytest.raises(UserError) as error:
        shared(*told("divided", 3))
    return str(error.value)


def test_split_is_whole_and_bytes_are_as_counted(tmp_path: Path) -> None:
    for group in ranks.run(Path(__file__), "member", tmp_path, (2, 4)):
        for found in group:
            assert "3 latent frames cannot be shared by" in found.pop("frames")
            assert all("cannot be split over processes: set parallel.sequence=1" in said for said in found.pop("refused"))
            for name, (output, gradients, forward, counted, both, counted_both) in found.items():
                assert output < 1e-5 and gradients < 1e-5, (name, output, gradients)
                assert (forward, both) == (counted, counted_both), (name, forward, counted, both)
                assert counted or name.endswith(" 1"), name
