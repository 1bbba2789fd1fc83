"""Checkpoints that cannot lie: safetensors and a manifest, written aside, flushed and renamed, and verified before a number is used.

A folder `step-00000060` holds the trained weights (network), their average and the optimisers' state. Its manifest has the size and
digest of every file, what the run was, where it stood, and a digest of itself. Data, noise and learning rate are functions of
(seed, step), so there is no other state. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from videodit.parallel.sharding import part, whole
from videodit.shapes import UserError
from videodit.train.average import Average

PARTS = ("network", "average", "optimizer")
MANIFEST, FORMAT = "manifest.json", 1
_MOMENTS: dict[type, tuple[str, ...]] = {torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"), torch.optim.Muon: ("momentum_buffer",)}
Optimizers = Sequence[torch.optim.Optimizer]


class Damaged(Exception):
    """Why a checkpoint is not what was written."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run stands: all that comes is a function of it and of the seed."""

    step: int  # steps done
    passes: int = 0  # passes done by all processes
    skipped: int = 0  # steps just left out, in a row


@dataclass(frozen=True)
class Snapshot:
    """A copy of everything that a resume needs, so that training goes on while it is written."""

    position: Position
    tensors: dict[str, dict[str, Tensor]]


def snapshot(position: Position, network: nn.Module, optimizers: Optimizers, average: Average, *, keep: bool = True) -> Snapshot:
    """Shards are gathered, so each of their processes must come here, and one of them is to `keep` what is found."""
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    begun = ((optimizer.state[p], key, name) for (p, key, optimizer), name in _moments(network, optimizers).items() if p in optimizer.state)
    parts = (trained, average.weights, {name: state[key] for state, key, name in begun})
    return Snapshot(position, {name: _copied(tensors, keep) for name, tensors in zip(PARTS, parts, strict=True)})


def _copied(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    wholes = ((name, whole(value.detach())) for name, value in tensors.items())
    return {name: value.to("cpu", copy=True).contiguous() for name, value in wholes if keep}


def write(folder: Path, taken: Snapshot, facts: dict[str, Any]) -> Path:
    """A whole checkpoint under `folder`, on disk when this returns; a kill at any moment leaves all or nothing of it."""
    target, aside = (folder / f"{name}-{taken.position.step:08d}" for name in ("step", ".writing"))
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    files = {}
    for name, tensors in taken.tensors.items():
        path = aside / f"{name}.safetensors"
        save_file(tensors, path)
        synced(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _digest(path)}
    (aside / MANIFEST).write_bytes(_sealed({"format": FORMAT, **asdict(taken.position), **facts, "files": files}))
    synced(aside / MANIFEST)
    synced(aside)
    if target.exists():
        remove(target)
    aside.rename(target)
    synced(folder)
    return target


def synced(path: Path) -> None:
    """Have the disk hold what was written to a file, or the names in a folder."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def remove(checkpoint: Path) -> None:
    """Renamed first, so that half a removal is no damaged checkpoint."""
    old = checkpoint.with_name(f".old-{checkpoint.name}")
    shutil.rmtree(old, ignore_errors=True)
    checkpoint.rename(old)
    shutil.rmtree(old)


def found(folder: Path) -> list[Path]:
    """The checkpoints under a folder, oldest first; whether they are whole is not known yet."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def verified(checkpoint: Path) -> dict[str, Any]:
    """The manifest, once every file was found to be as it says."""
    try:
        manifest = _opened((checkpoint / MANIFEST).read_bytes())
        for name, said in manifest["files"].items():
            path = checkpoint / name
            if path.stat().st_size != said["bytes"]:
                raise Damaged(f"{name} has {path.stat().st_size} bytes instead of {said['bytes']}")
            if _digest(path) != said["sha256"]:
                raise Damaged(f"{name} is not what was written")
    except OSError as error:
        raise Damaged(f"{Path(error.filename or checkpoint).name}: {error.strerror}") from error
    return manifest


def restore(checkpoint: Path, network: nn.Module, optimizers: Optimizers, average: Average, seed: int) -> Position:
    """Put a checkpoint back, if it is whole, and say where it stands."""
    try:
        manifest = verified(checkpoint)
        weights, averaged, moments = (load_file(checkpoint / f"{name}.safetensors") for name in PARTS)
    except (Damaged, OSError, SafetensorError) as error:
        raise UserError(f"The checkpoint {checkpoint} cannot be read ({error}): start again to go on from the one before.") from error
    if manifest["seed"] != seed:
        raise UserError(f"The checkpoint {checkpoint} was written with seed={manifest['seed']}: set it as it was, or use another output.")
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    unlike = set(named.keys() ^ weights.keys()) | {n for n in named.keys() & weights.keys() if named[n].shape != weights[n].shape}
    if unlike:
        raise UserError(f"The checkpoint {checkpoint} is of another network ({sorted(unlike)[0]} differs): use another output folder.")
    begun = {name.rpartition("/")[0] for name in moments}
    known = _moments(network, optimizers)
    if any(name not in moments and name.rpartition("/")[0] in begun for name in known.values()):
        raise UserError(f"The checkpoint {checkpoint} was written with another optimizer.muon: set it as it was, or use another output.")
    if average.weights.keys() - averaged.keys():
        raise UserError(f"The checkpoint {checkpoint} was written with other averages: set them as they were, or use another output.")
    with torch.no_grad():
        for name, p in named.items():
            p.copy_(part(weights[name], p))
        for name, weight in average.weights.items():
            weight.copy_(part(averaged[name], weight))
    for (p, key, optimizer), name in known.items():
        if name in moments:
            optimizer.state[p][key] = moments[name] if key == "step" else part(moments[name].to(p.device), p)
    return Position(**{key: manifest[key] for key in ("step", "passes", "skipped")})


def _moments(network: nn.Module, optimizers: Optimizers) -> dict[tuple[Tensor, str, torch.optim.Optimizer], str]:
    """The name in the file of every moment of every trained weight."""
    names = {p: name for name, p in network.named_parameters()}
    return {
        (p, key, optimizer): f"{names[p]}/{key}"
        for optimizer in optimizers
        for group in optimizer.param_groups
        for p in group["params"]
        for key in _MOMENTS[type(optimizer)]
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sealed(content: dict[str, Any]) -> bytes:
    """JSON that carries its own digest, spelled in the one way that `_opened` takes."""
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return (json.dumps({**content, "sha256": digest}, indent=1) + "\n").encode()


def _opened(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
        content.pop("sha256")
        whole = _sealed(content) == text
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST} is not what was written") from error
    if not whole or {*content["files"]} != {f"{name}.safetensors" for name in PARTS}:
        raise Damaged(f"{MANIFEST} is not what was written")
    if content["format"] != FORMAT:
        raise Damaged(f"{MANIFEST} has format {content['format']}, this version reads {FORMAT}")
    return content
