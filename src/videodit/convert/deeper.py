"""A deeper transformer that begins as the one it was: between its blocks stand copies of them that put nothing out yet."""

from __future__ import annotations

from dataclasses import replace
from typing import overload

import torch

from videodit import backbone
from videodit.backbone import DiT, DualTransformer, SingleTransformer, Transformer
from videodit.shapes import UserError

ALIKE = ("global", "spatial")  # layouts whose blocks all attend alike
OUTPUTS = (".out", "mlp.2")  # what a block adds by


def deepened(shape: Transformer | DiT, depth: int) -> Transformer | DiT:
    """The settings with so many blocks."""
    if depth < shape.depth:
        raise UserError(f"The transformer has {shape.depth} blocks, and none is taken away: give a depth of {shape.depth} or more.")
    if depth == shape.depth:
        return shape
    if shape.layout not in ALIKE or getattr(shape, "twice", 0):
        raise UserError(f"Blocks are put between others where all attend alike, in the layouts {' and '.join(ALIKE)}: leave the depth out.")
    if shape.depth == 1 < depth:
        raise UserError("A transformer of one block has nowhere to put another between: leave the depth out.")
    return replace(shape, depth=depth)


@overload
def deepen(network: DualTransformer, depth: int) -> DualTransformer: ...
@overload
def deepen(network: SingleTransformer, depth: int) -> SingleTransformer: ...
def deepen(network: DualTransformer | SingleTransformer, depth: int) -> DualTransformer | SingleTransformer:
    """The same function with more blocks. A new one is a copy of the one before it, whose outputs start at zero and learn at once."""
    made = backbone.build(deepened(network.settings, depth))
    weights = network.state_dict()
    whole = {name: value for name, value in weights.items() if not name.startswith("blocks.")}
    for at, (source, new) in enumerate(places(network.settings.depth, depth)):
        own = {name.removeprefix(f"blocks.{source}."): value for name, value in weights.items() if name.startswith(f"blocks.{source}.")}
        for name, value in own.items():
            silent = new and name.rpartition(".")[0].endswith(OUTPUTS)
            whole[f"blocks.{at}.{name}"] = torch.zeros_like(value) if silent else value
    made.load_state_dict(whole)
    return made.to(next(network.parameters()).device)


def places(before: int, depth: int) -> list[tuple[int, bool]]:
    """Of each block whose copy it is, and whether it is new; the last one, which may put out no words, stays the last."""
    made: list[tuple[int, bool]] = []
    for source in range(before):
        copies = (depth - before) * (source + 1) // max(1, before - 1) - (depth - before) * source // max(1, before - 1)
        made += [(source, False)] + [(source, True)] * (copies if source < before - 1 else 0)
    return made
