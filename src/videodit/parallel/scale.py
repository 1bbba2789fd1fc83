"""What a training holds, sends and takes on many GPUs, by counting: nothing here is measured, and a machine is what its maker says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from videodit import backbone
from videodit.backbone import Transformer
from videodit.backbone.flops import cost
from videodit.parallel.mesh import Parallel
from videodit.parallel.volume import sequence_bytes, shard_bytes
from videodit.shapes import Size, token_size

STATE = 5 * 4  # bytes for each weight that learns: itself, gradient, average and two moments, all fp32
INNER = 22  # numbers that a block of two streams leaves, for each token and channel
PASSES = 4  # forward passes that a pass is worth: forward, backward twice that, and the blocks again (recompute)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """By default nodes of eight H100, at the part of their peak that large transformers are commonly trained at: assumptions."""

    peak: float = 989e12  # half-precision operations a second
    used: float = 0.4
    near: float = 450e9  # bytes a second that a GPU sends within its node
    far: float = 50e9  # and between nodes
    node: int = 8


class Estimate(NamedTuple):
    """Of one GPU: bytes that it holds, bytes that it sends in a pass over one clip, seconds of that pass."""

    state: int
    kept: int  # what enters each block, for the backward pass
    block: int  # what one block leaves for it, computed again, as if all of it were fp32
    near: int
    far: int
    compute: float
    sending: float  # if nothing of it were hidden behind the computation

    def hours(self, clips: int, gpus: int, sequence: int) -> tuple[float, float]:
        """Once through so many clips: if all sending is hidden, if none is."""
        passes = clips * sequence / gpus
        return passes * self.compute / 3600, passes * (self.compute + self.sending) / 3600


def estimate(settings: Transformer, latents: Size, words: int, split: Parallel, gpus: int, machine: Machine | None = None) -> Estimate:
    """Shards and parts of clips stand within a node, copies of them beyond."""
    machine, held = machine or Machine(), split.shard * split.sequence
    copies = split.copies(gpus)
    with torch.device("meta"):
        network = backbone.build(settings)
    weights = sum(p.numel() for p in network.parameters())
    shards = held if split.shard > 1 else 1
    within = shard_bytes(network, shards).both if shards > 1 else 0
    beyond = shard_bytes(network, shards, copies).both - within if shards > 1 else 8 * weights * (copies - 1) // copies
    parts = sequence_bytes(settings, latents, words, split.sequence, ring=split.ring)
    tokens = token_size(latents, (1, settings.patch, settings.patch)).count
    # blocks that are computed again send again, but for the tokens gathered behind the last
    again = parts.forward - tokens * settings.width * 2 * (split.sequence - 1) // split.sequence if split.sequence > 1 else 0
    near, far = within + parts.both + again, beyond
    if held > machine.node:
        raise ValueError(f"{held} GPUs that share a copy are more than a node's {machine.node}")
    return Estimate(
        state=STATE * weights // shards,
        kept=settings.depth * (tokens // split.sequence + words) * settings.width * 2,
        block=INNER * (tokens // split.sequence + words) * settings.width * 4,
        near=near,
        far=far,
        compute=2 * PASSES * cost(settings, latents, words).total / split.sequence / (machine.peak * machine.used),
        sending=near / machine.near + far / machine.far,
    )
