"""Weights in shards, by FSDP2: each block is whole only while it computes. Whatever else is needed whole is gathered here."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from videodit.backbone import DualTransformer, SingleTransformer

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def shard(network: DualTransformer | SingleTransformer, mesh: DeviceMesh, *, half: bool, offload: bool = False) -> None:
    """Each block, then the rest: over a mesh of one axis, or of two, copies of shards."""
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")  # nothing is changed in place behind a block
    # inputs keep their precision: in half of it, t would be another time
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32, cast_forward_inputs=False)
    waits = CPUOffloadPolicy() if offload else OffloadPolicy()
    for module in (*network.blocks, network):
        made = fully_shard(module, mesh=mesh, mp_policy=policy, offload_policy=waits)
        made.set_gradient_divide_factor(1.0)  # sums, as passes are weighed before
        made.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        made.set_reduce_scatter_unused_params(True)  # a branch may serve in the passes of some processes only


def in_shards(x: Tensor) -> bool:
    return hasattr(x, "placements")


def whole(x: Tensor) -> Tensor:
    """All of a tensor; where it is in shards, every process of them must come here."""
    return x.full_tensor() if in_shards(x) else x  # pyright: ignore[reportAttributeAccessIssue]


def part(of: Tensor, like: Tensor) -> Tensor:
    """This process's part of a tensor that all have whole; nothing is sent."""
    if not in_shards(like):
        return of
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(of, like.device_mesh, like.placements, src_data_rank=None)  # pyright: ignore[reportAttributeAccessIssue]


def kinds(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Those in shards apart from others: PyTorch takes no lists of both."""
    found = ([x for x in tensors if in_shards(x) == split] for split in (False, True))
    return [kind for kind in found if kind]


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Of all numbers of all tensors."""
    norms = [whole(torch.nn.utils.get_total_norm(kind)) for kind in kinds(tensors)]
    return norms[0] if len(norms) == 1 else torch.stack([one.to(norms[0].device) for one in norms]).norm() if norms else torch.tensor(0.0)


def clip(parameters: Sequence[Tensor], most: float, norm: Tensor) -> None:
    """Shrink the whole gradient, of this norm, to `most`."""
    for kind in kinds(parameters):
        torch.nn.utils.clip_grads_with_norm_(kind, most, norm)


@contextmanager
def gathered(network: nn.Module, *, keep: bool) -> Iterator[None]:
    """With plain, whole weights where `keep`; to be saved, not to be called. Every process must come here."""
    before: list[tuple[nn.Module, str, Any]] = []
    for module in network.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            if in_shards(p):
                full = whole(p.detach())
                before.append((module, name, p))
                if keep:
                    module._parameters[name] = nn.Parameter(full.to("cpu"), requires_grad=p.requires_grad)
    yield
    for module, name, p in before:
        module._parameters[name] = p
