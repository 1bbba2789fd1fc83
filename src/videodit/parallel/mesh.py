"""The processes of a launch as one mesh, replicate x (shard x sequence), the last being those that stand closest.

Gradients are sums over all processes: a pass whose tokens are shared by P processes counts 1/P in each of them, and every exchange is
followed back exactly. So what several processes compute alike, they may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from videodit.backbone import DualTransformer, SingleTransformer
from videodit.config import setting
from videodit.parallel import sequence, sharding
from videodit.shapes import UserError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """How the processes of a launch share a transformer; their number is the product of the three."""

    replicate: int = setting(0, doc="copies of the model, or of its shards; 0: as many as there are processes for")
    shard: int = setting(1, doc="parts that the weights, their average and the optimiser's state are kept in (FSDP)")
    sequence: int = setting(1, doc="processes that share the tokens of a pass; their weights are in shards too where shard is above 1")

    ring: bool = setting(False, doc="whether keys and values go round those processes, where else heads are exchanged (all see all)")
    offload: bool = setting(
        False, doc="whether shards, their averages and the optimiser's state wait in main memory, where the optimiser then computes (CUDA)"
    )

    def __post_init__(self) -> None:
        if self.offload and self.shard == 1:
            raise UserError("parallel.offload is for weights in shards: set parallel.shard above 1, or leave it out.")
        if self.ring and self.sequence == 1:
            raise UserError("parallel.ring is how processes share the tokens of a pass: set parallel.sequence above 1, or leave it out.")
        if self.replicate < 0 or min(self.shard, self.sequence) < 1:
            raise UserError("parallel.shard and parallel.sequence take 1 or more, parallel.replicate 0 or more.")

    @property
    def splits(self) -> bool:
        """Whether a process has less than the whole of something."""
        return self.shard * self.sequence > 1

    def copies(self, processes: int) -> int:
        """`replicate`, or as many as the processes allow."""
        held = self.shard * self.sequence
        copies = self.replicate or max(1, processes // held)
        if copies * held != processes:
            raise UserError(
                f"{processes} processes are not parallel.replicate x shard x sequence = {copies} x {self.shard} x {self.sequence}: "
                f"start {copies * held}, or change those."
            )
        return copies


def build(settings: Parallel, processes: int, device: str) -> DeviceMesh:
    """The mesh of all processes, which must have met already."""
    from torch.distributed.device_mesh import init_device_mesh

    shape = (settings.copies(processes), settings.shard * settings.sequence)
    return init_device_mesh(device.partition(":")[0], shape, mesh_dim_names=("replicate", "weights"))


def wrap(network: nn.Module, settings: Parallel, mesh: DeviceMesh, *, half: bool) -> None:
    """Split every transformer inside; `half`: weights travel, and are multiplied, in bfloat16, while those that learn stay fp32."""
    found = [module for module in network.modules() if isinstance(module, DualTransformer | SingleTransformer)]
    if not found:
        raise UserError("parallel.shard and parallel.sequence split transformers: leave both at 1 for an autoencoder.")
    for transformer in found:
        if settings.sequence > 1:
            inside = mesh["weights"]._unflatten(0, (settings.shard, settings.sequence), ("shard", "sequence"))
            sequence.split(transformer, inside["sequence"].get_group(), ring=settings.ring)
        if settings.shard > 1:
            sharding.shard(transformer, mesh if mesh["replicate"].size() > 1 else mesh["weights"], half=half, offload=settings.offload)
