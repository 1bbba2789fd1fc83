"""Bytes that one process sends, from settings alone.

Of a tensor that P processes gather, exchange or add up, each sends (P - 1) / P, as in a ring.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from videodit.backbone import DiT, DualTransformer, SingleTransformer, Transformer
from videodit.backbone.single import TURNS
from videodit.parallel.sequence import way
from videodit.shapes import Size, token_size

SWITCHED = ("temporal", "factorised", "divided", "axial", "split")  # blocks with one attention through time


class Bytes(NamedTuple):
    """Sent by one process in each half of a pass."""

    forward: int
    backward: int

    @property
    def both(self) -> int:
        return self.forward + self.backward


def sequence_bytes(
    s: Transformer | DiT, latents: Size, words: int, processes: int, *, clips: int = 1, width: int = 2, ring: bool = False
) -> Bytes:
    """For the tokens of clips that are shared; `width` bytes a number."""
    if processes == 1:
        return Bytes(0, 0)
    grid = token_size(latents, (1, s.patch, s.patch) if isinstance(s, Transformer) else (s.tube, s.patch, s.patch))
    by = way(s)
    if by == "frames" and grid.frames == 1:
        return Bytes(0, 0)
    signals = grid.frames if isinstance(s, DiT) and s.told == "token" else 0
    tokens = clips * (grid.count + signals) * s.width * width  # one tensor of all tokens
    sent, turns = tokens, 0  # every process's tokens to all others, behind the last block
    if ring:  # keys and values to all others in turn; in the backward pass again, with their gradients
        layers, gathered = s.depth + (s.twice if isinstance(s, Transformer) else 0), tokens * (processes - 1) // processes
        round_ = 2 * layers * (tokens // processes) * (processes - 1)
        return Bytes(gathered + round_, gathered + 2 * round_)
    if by == "heads":  # query, key and value, and what is seen
        sent += 4 * (s.depth + (s.twice if isinstance(s, Transformer) else 0)) * tokens // processes
        sent += s.depth * clips * words * s.width * width if isinstance(s, Transformer) else 0
    elif isinstance(s, DiT):  # tokens to places and back; where half of the heads do so, queries, keys, values and what is seen
        switched = sum(kind in SWITCHED for kind in s.arrangement)
        sent += 2 * switched * tokens // processes
        turns = switched * grid.frames * (s.width // s.heads // 2) * 4 if s.time in TURNS else 0
    return Bytes((sent + turns) * (processes - 1) // processes, sent * (processes - 1) // processes)


def shard_bytes(network: DualTransformer | SingleTransformer, shards: int, replicas: int = 1, *, width: int = 2) -> Bytes:
    """For weights in shards, from a network that may be on the meta device: gathered for each half of a pass, gradients added in fp32.

    What is not in blocks stays whole between the halves.
    """
    if shards == 1:
        return Bytes(0, 0)
    blocks = [_shard(list(block.parameters()), shards) for block in network.blocks]
    inside = {id(p) for block in network.blocks for p in block.parameters()}
    rest = _shard([p for p in network.parameters() if id(p) not in inside], shards)
    learnt = sum(_shard([p], shards) for p in network.parameters() if p.requires_grad)
    others = shards - 1
    added = learnt * 4 * others + 2 * learnt * 4 * (replicas - 1) // replicas
    return Bytes((sum(blocks) + rest) * width * others, sum(blocks) * width * others + added)


def _shard(parameters: list[nn.Parameter], shards: int) -> int:
    """Numbers in one process's part: rows are shared out, and filled up where they cannot be."""
    return sum(-(-p.shape[0] // shards) * p[0].numel() for p in parameters)
