"""What a run will hold, handle and take, before anything is loaded.

Memory comes from whole steps, forward, backward and optimiser, of tensors that have shapes and no content, whose lives are followed: so
it needs neither weights nor data, and a plan of billions of parameters takes moments. Where such steps fit into memory, random weights go
through some in a process of its own, which tells how long they take and all that the process held, kernels' scratch too.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import time
import warnings
import weakref
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # torch.export and torch.compile stand on it
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from videodit.train.outlines import Outline, Recipe, outline
from videodit.train.parts import ENCODE
from videodit.train.progress import held

SECONDS = 2.0  # of a probe
SHARE = 0.7  # of the free memory that a probe may take
MEMORY = Path("/proc/meminfo")


def plan(settings: Recipe, *, whole: bool = False) -> dict[str, Any]:
    """What a run holds and handles, by its shapes alone; `whole`: also memory and time, for which its steps are tried."""
    assumed: list[str] = []
    with torch.device("meta"):
        made = outline(settings, assumed)
    parameters = sum(p.numel() for p in made.network.parameters())
    trained = sum(p.numel() for p in made.network.parameters() if p.requires_grad)
    samples = round(settings.steps * settings.accumulate * made.clips)
    saved = _saved(settings, made.network)
    found: dict[str, Any] = {
        "kind": settings.kind,
        "parameters": parameters,
        "trained": trained,
        **made.extent,
        "steps": settings.steps,
        "samples": samples,
        "state_bytes": 4 * parameters + saved,  # what is saved of it has the weights in place of their gradients
        "checkpoint_bytes": saved * settings.checkpoint.keep,
        "cache_bytes": made.kept.size,
    }
    if whole:
        found |= _memory(settings, made)
        found |= _tried(settings, found["memory_bytes"], max(saved, made.kept.size or 0), assumed)
        if made.kept.size is None and "encoding_seconds" in found:  # of files that nobody counted
            found["encoding_seconds"] = None
    return {**found, "assumed": assumed}


def _saved(settings: Recipe, network: nn.Module) -> int:
    """Bytes of a checkpoint: in fp32 the weights and their averages of what is trained, and its moments: AdamW's two, Muon's one."""
    copies = 2 + len(settings.averages)
    return 4 * sum(
        (copies + (1 if isinstance(optimizer, torch.optim.Muon) else 2)) * p.numel()
        for optimizer in settings.optimizer.build(network)
        for group in optimizer.param_groups
        for p in group["params"]
    )


# --- Memory ---


class Shapes(FakeTensorMode):
    """Tensors that have shapes and no content; a copy of one is of the same kind."""

    def __deepcopy__(self, memo: object) -> Shapes:
        return self


@contextmanager
def _unmoved() -> Iterator[None]:
    """Modules stay where they are: what peft asks of each adapter cannot be done to tensors that are shapes alone."""
    move = nn.Module.to
    nn.Module.to = lambda self, *where, **how: self  # pyright: ignore
    try:
        yield
    finally:
        nn.Module.to = move


class Living(TorchDispatchMode):
    """Counts the bytes of all tensors that live, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._born(leaf.untyped_storage())
        return out

    def _born(self, storage: torch.UntypedStorage) -> None:
        if id(storage) in self._known:
            return
        self._known.add(id(storage))
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._dead, id(storage), storage.nbytes())

    def _dead(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.now -= size


def _memory(settings: Recipe, made: Outline) -> dict[str, int]:
    """The most that encoding and training hold; what is copied for a checkpoint is held beside a step."""
    base = held("cpu") if settings.device == "cpu" else 0
    encoding = 0
    with Shapes(), _unmoved(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # copy.deepcopy does
        if made.kept.encode:
            with Living() as living, _mixed(settings):
                encode = outline(settings, []).kept.encode
                assert encode
                encode()
            encoding = living.most + (made.kept.size or 0)  # scenes of one kind are kept when all are encoded
        with Living() as living:
            for _ in islice(_steps(settings, outline(settings, [])), 2):
                pass
    training = living.most + _saved(settings, made.network)
    return {"encoding_bytes": encoding, "training_bytes": training, "memory_bytes": base + max(encoding, training)}


def _steps(settings: Recipe, made: Outline) -> Iterator[float]:
    """Steps on random data, each with every kind of pass; yields the seconds that a step takes on average over the kinds."""
    learnt = [p for p in made.network.parameters() if p.requires_grad]
    optimizers = settings.optimizer.build(made.network)
    averages = [[p.detach().clone() for p in learnt] for _ in range(1 + len(settings.averages))]
    passes = settings.accumulate / min(int(os.environ.get("WORLD_SIZE", "1")), settings.accumulate)
    while True:
        made.network.zero_grad(set_to_none=True)
        seconds = 0.0
        for rate, one in made.passes:
            start = time.perf_counter()
            with _mixed(settings):
                loss = one()
            if loss.requires_grad:
                loss.backward()
            seconds += passes * rate * (time.perf_counter() - start)
            del loss
        start = time.perf_counter()
        for optimizer in optimizers:
            optimizer.step()
        for average in averages:
            for kept, now in zip(average, learnt, strict=True):
                kept.lerp_(now.detach(), 0.01)
        yield seconds + time.perf_counter() - start


@contextmanager
def _mixed(settings: Recipe) -> Iterator[None]:
    device = torch.empty(()).device.type  # shapes without content stand on a CPU, whatever a run's device
    with torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bf16"):
        yield


# --- Time ---


def _tried(settings: Recipe, needed: int, beside: int, assumed: list[str]) -> dict[str, Any]:
    """Time, and memory as it was held; `beside` what the steps hold are copies for a checkpoint, or before them what is encoded."""
    if settings.device != "cpu" and not _there(settings.device):
        assumed.append(f"steps were not tried: there is no {settings.device} here")
        return {}
    free = _free(settings.device)
    if needed > SHARE * free:
        assumed.append(f"steps were not tried: they need {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} are free")
        return {}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            step, encoding, most = pool.submit(probe, settings, torch.get_num_threads()).result()
        except BrokenProcessPool:
            assumed.append(
                "steps were tried and their process ended at once: memory may not suffice, and videodit train with steps=1 shows why"
            )
            return {}
    seconds = encoding + step * settings.steps
    times = {"steps_per_second": 1 / step, "encoding_seconds": encoding, "seconds": seconds, "days": seconds / 86400}
    return {"memory_bytes": most + beside, **times}


def probe(settings: Recipe, threads: int) -> tuple[float, float, int]:
    """Seconds of a step and of all encoding, and the most bytes held: a few clips are encoded, then steps done, the first left out."""
    torch.set_num_threads(threads)
    encoding = 0.0
    with torch.device(settings.device):
        made = outline(settings, [])
        if made.kept.encode and made.kept.clips:
            start = time.perf_counter()
            with _mixed(settings):
                made.kept.encode()
            encoding = (time.perf_counter() - start) * made.kept.clips / ENCODE
        steps = _steps(settings, made)
        next(steps)
        taken, start = [], time.perf_counter()
        while not taken or time.perf_counter() - start < SECONDS:
            taken.append(next(steps))
    return sorted(taken)[len(taken) // 2], encoding, held(settings.device)


def _there(device: str) -> bool:
    return torch.cuda.is_available() if device.startswith("cuda") else torch.backends.mps.is_available()


def _free(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    said = MEMORY.read_text() if MEMORY.is_file() else ""
    if available := re.search(r"MemAvailable:\s+(\d+) kB", said):  # which counts what files that were read take as free
        return int(available[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
