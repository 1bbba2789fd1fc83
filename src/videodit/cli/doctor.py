"""Try what this machine can run: devices, precisions, attention kernels, video encoders; each is really run, and timed."""

from __future__ import annotations

import argparse
import io
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from videodit.cli import terminal

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
KERNELS = {"math": "MATH", "flash": "FLASH_ATTENTION", "memory-efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION"}
CODECS = {"mp4 (x264)": ("mp4", "libx264", "yuv420p"), "webm (vp9)": ("webm", "libvpx-vp9", "yuv420p")}
PICTURES = {"gif": "GIF", "webp": "WEBP", "png": "PNG"}
Trial = tuple[str, str, Callable[[], None]]  # group, name, what to run


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(given: argparse.Namespace) -> None:
    machine = _machine()
    results = [_tried(*trial) for trial in (*_compute(machine["devices"]), *_encoders())]
    chosen = _chosen()
    if given.json:
        terminal.print_json({"machine": machine, "tried": results, "kernels": chosen})
        return
    for name, value in machine.items():
        print(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
    print()
    rows = [(r["group"], r["name"], "works" if r["works"] else "no", f"{r['milliseconds']:.1f} ms", r["reason"] or "") for r in results]
    terminal.print_table([("what", "which", "here", "took", "reason"), *rows])
    print()
    others = [(name, kernel) for name, kernel in chosen.items() if kernel not in ("default", "fused")]
    terminal.print_table([("the bundled transformer's", "fastest here"), *others, ("all else", "PyTorch's own")])


def _chosen() -> dict[str, str]:
    """The fastest kernels at the bundled transformer's shapes, for one clip, using and learning."""
    import torch

    from videodit import backbone, kernels
    from videodit.backbone import PRESETS
    from videodit.shapes import Text

    settings = PRESETS["toybox"]
    network = backbone.build(settings)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, settings.channels, 4, 16, 16, generator=generator)
    text = Text(*(torch.randn(1, *n, generator=generator) for n in ((12, settings.text), (settings.pooled,))))
    found: dict[str, str] = {}
    for dtype in (torch.float32, torch.bfloat16):
        for learning in (False, True):
            half = network.to(dtype), noisy.to(dtype), text.map(lambda x, dtype=dtype: x.to(dtype))
            found |= kernels.measured(half[0], lambda half=half: half[0](half[1], torch.tensor([0.5]), half[2]), learning=learning)
    return found


def _machine() -> dict[str, Any]:
    import torch

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *(["mps"] if torch.backends.mps.is_available() else [])]
    names = [torch.cuda.get_device_name(device) for device in devices if device.startswith("cuda")]
    return {
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "torch": torch.__version__,
        "cpu": f"{torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "devices": devices,
        **({"gpus": names} if names else {}),
    }


def _tried(group: str, name: str, trial: Callable[[], None]) -> dict[str, Any]:
    """Run it; what it raises is the answer, not an error of ours."""
    reason = None
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            trial()
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = "torch has no such kernel for this device" if "No viable backend" in lines[0] else lines[0]
    if reason and told and "No available kernel" in reason:  # torch gives the reason for refusing a kernel as a warning
        reason = str(told[-1].message).split(" (Triggered")[0]
    milliseconds = round(1000 * (time.perf_counter() - start), 2)
    return {"group": group, "name": name, "works": reason is None, "milliseconds": milliseconds, "reason": reason}


def _compute(devices: list[str]) -> Iterator[Trial]:
    for device in devices:
        for name, dtype in PRECISIONS.items():
            yield f"{device} matrix product", name, lambda device=device, dtype=dtype: _multiply(device, dtype)
        for name, kernel in KERNELS.items():
            yield f"{device} attention", name, lambda device=device, kernel=kernel: _attend(device, kernel)


def _multiply(device: str, dtype: str) -> None:
    import torch

    a, b = (torch.randn(256, 256, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    kind = getattr(torch, dtype)
    product = (a.to(device, kind) @ b.to(device, kind)).float().cpu()
    error = ((product - a @ b).norm() / (a @ b).norm()).item()
    if not error < 0.02:
        raise ArithmeticError(f"the product is off by {error:.1%}")


def _attend(device: str, kernel: str) -> None:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    query, key, value = torch.randn(3, 1, 4, 128, 64, generator=torch.Generator().manual_seed(0))
    expected = torch.softmax(query @ key.mT / 8, -1) @ value
    kind = torch.float32 if device == "cpu" else torch.float16
    with sdpa_kernel(getattr(SDPBackend, kernel)):
        out = scaled_dot_product_attention(query.to(device, kind), key.to(device, kind), value.to(device, kind)).float().cpu()
    error = (out - expected).abs().max().item()
    if not error < 0.02:
        raise ArithmeticError(f"attention is off by {error:.3g}")


def _encoders() -> Iterator[Trial]:
    for name, codec in CODECS.items():
        yield "encoder", name, lambda codec=codec: _encode(*codec)
    for name, kind in PICTURES.items():
        yield "encoder", name, lambda kind=kind: _animate(kind)


def _encode(container: str, codec: str, pixels: str) -> None:
    import av
    import numpy as np

    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
        for level in (0, 80, 160, 240):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as back:
        count = sum(1 for _ in back.decode(video=0))
    if count != 4:
        raise ArithmeticError(f"4 frames went in and {count} came out")


def _animate(kind: str) -> None:
    from PIL import Image

    first, *rest = (Image.new("RGB", (64, 64), (level, level, level)) for level in (0, 80, 160, 240))
    file = io.BytesIO()
    first.save(file, kind, **({} if kind == "PNG" else {"save_all": True, "append_images": rest, "duration": 125}))
    with Image.open(io.BytesIO(file.getvalue())) as back:
        count, wanted = getattr(back, "n_frames", 1), 1 if kind == "PNG" else 4
    if count != wanted:
        raise ArithmeticError(f"{wanted} frames went in and {count} came out")
