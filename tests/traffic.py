"""What a process sends to others, seen where PyTorch hands it over."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Sent(TorchDispatchMode):
    """Bytes that leave this process: of all it gathers or adds up, the others' parts pass it once, as in a ring."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.name()
        if name.startswith(("c10d::", "_c10d_functional::")):
            whole = {"c10d::alltoall_base_": 1, "c10d::_allgather_base_": 0, "c10d::_reduce_scatter_base_": 1}
            if name == "c10d::allreduce_":  # as a reduce-scatter and a gather
                size = dist.get_world_size(dist.ProcessGroup.unbox(args[1]))
                self.bytes += sum(2 * x.numel() * x.element_size() * (size - 1) // size for x in args[0])
            elif name in whole:
                x = args[whole[name]]
                assert isinstance(x, Tensor)
                size = next(dist.get_world_size(dist.ProcessGroup.unbox(a)) for a in args if isinstance(a, torch.ScriptObject))
                self.bytes += x.numel() * x.element_size() * (size - 1) // size
            elif name == "c10d::send":
                self.bytes += sum(x.numel() * x.element_size() for x in args[0])
            elif name == "c10d::recv_":
                pass
            else:
                assert name.endswith(("barrier", "wait_tensor")), name
        return function(*args, **(kwargs or {}))
