"""Checkpoints: everything a resume needs, as safetensors and one JSON file, written aside and renamed, so none is ever half there.

A folder holds the trained weights (network), their average, the optimisers' state, and the step. Data, noise and
learning rate are functions of (seed, step), so there is no other state.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from videodit.shapes import UserError
from videodit.train.average import Average

_PARTS = ("network", "average", "optimizer")
_MOMENTS: dict[type, tuple[str, ...]] = {torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"), torch.optim.Muon: ("momentum_buffer",)}
Optimizers = Sequence[torch.optim.Optimizer]


def save(folder: Path, step: int, network: nn.Module, optimizers: Optimizers, average: Average, *, keep: int = 1) -> Path:
    """Write checkpoint `step` (steps done) under `folder` and remove all but the newest `keep`."""
    target = folder / f"step-{step:08d}"
    aside = folder / f".writing-{step:08d}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    trained = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    save_file({name: p.contiguous() for name, p in trained.items()}, aside / "network.safetensors")
    save_file({name: p.contiguous() for name, p in average.weights.items()}, aside / "average.safetensors")
    begun = ((optimizer.state[p], key, name) for (p, key, optimizer), name in _moments(network, optimizers).items() if p in optimizer.state)
    moments = {name: state[key].contiguous() for state, key, name in begun}
    save_file(moments, aside / "optimizer.safetensors")
    (aside / "state.json").write_text(json.dumps({"step": step}))
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    for old in found(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def found(folder: Path) -> list[Path]:
    """The complete checkpoints under a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").is_file())


def restore(checkpoint: Path, network: nn.Module, optimizers: Optimizers, average: Average) -> int:
    """Put a checkpoint back and return the number of steps done."""
    try:
        weights, averaged, moments = (load_file(checkpoint / f"{part}.safetensors") for part in _PARTS)
        step = int(json.loads((checkpoint / "state.json").read_text())["step"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(
            f"The checkpoint {checkpoint} cannot be read ({error}); remove that folder to go on from the one before."
        ) from error
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    unlike = set(named.keys() ^ weights.keys()) | {n for n in named.keys() & weights.keys() if named[n].shape != weights[n].shape}
    if unlike:
        raise UserError(f"The checkpoint {checkpoint} is of another network ({sorted(unlike)[0]} differs): use another output folder.")
    with torch.no_grad():
        for name, p in named.items():
            p.copy_(weights[name])
        for name, weight in average.weights.items():
            weight.copy_(averaged[name])
    begun = {name.rpartition("/")[0] for name in moments}
    for (p, key, optimizer), name in _moments(network, optimizers).items():
        if name in moments:
            optimizer.state[p][key] = moments[name] if key == "step" else moments[name].to(p.device)
        elif name.rpartition("/")[0] in begun:
            raise UserError(
                f"The checkpoint {checkpoint} was written with another optimizer.muon: set it as it was, or use another output."
            )
    return step


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
