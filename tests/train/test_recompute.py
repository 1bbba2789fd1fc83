"""Activations computed again: the same gradients, and less kept for the backward pass."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

import tiny
from videodit import convert
from videodit.backbone import DualTransformer
from videodit.train.recompute import Recompute, recompute


def kept(network: DualTransformer) -> tuple[int, dict[str, Tensor]]:
    """Bytes kept between the passes, and all gradients."""
    seen: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = network(tiny.grid(2, 8, 4, 8, 8), torch.tensor([0.3, 0.8]), tiny.text([4, 2])).square().sum()
    total = sum(seen.values())
    loss.backward()
    return total, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def test_gradients_are_the_same_and_less_is_kept() -> None:
    found = {}
    for which in get_args(Recompute):
        network = convert.inflate(tiny.transformer(video=False, depth=4))
        recompute(network.blocks, which)
        found[which] = kept(network)
    sizes = {which: size for which, (size, _) in found.items()}
    assert sizes["all"] < 0.5 * sizes["none"] and sizes["all"] < sizes["half"] < sizes["none"]
    for _, gradients in found.values():
        assert gradients.keys() == found["none"][1].keys() and gradients
        assert all(torch.equal(value, found["none"][1][name]) for name, value in gradients.items())
