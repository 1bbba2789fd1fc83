"""Shards that wait in main memory: the setting reaches FSDP, and is refused where all is there already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import fsdp

import tiny
from videodit.parallel import Parallel, sharding
from videodit.shapes import UserError
from videodit.train.launch import joined
from videodit.train.step import Run


@pytest.mark.parametrize("offload", [True, False])
def test_every_shard_is_told_where_it_waits(offload: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Made:
        def __getattr__(self, name: str) -> Any:
            return lambda *given: None

    monkeypatch.setattr(fsdp, "fully_shard", lambda module, **named: (told.append(named["offload_policy"]), Made())[1])
    network = tiny.transformer()
    sharding.shard(network, None, half=False, offload=offload)  # type: ignore[arg-type]
    assert len(told) == len(network.blocks) + 1 and all(isinstance(one, fsdp.CPUOffloadPolicy) == offload for one in told)


def test_a_launch_that_offloads_sends_from_main_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    def started(backend: str, **named: Any) -> None:
        raise Enough(backend)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", started)
    for device, offload, wanted in (("cuda", True, "cpu:gloo,cuda:nccl"), ("cuda", False, "^nccl$"), ("cpu", False, "^gloo$")):
        with pytest.raises(Enough, match=wanted), joined(device, offload=offload):
            pass


def test_where_it_makes_no_sense_it_is_refused() -> None:
    split = Parallel(shard=2, offload=True)
    assert Run(output=Path("x"), device="cuda", parallel=split).digest == Run(output=Path("x")).digest
    with pytest.raises(UserError, match=r"With device=cpu all is in main memory already: leave parallel.offload out, or set device=cuda"):
        Run(output=Path("x"), parallel=split)
    with pytest.raises(UserError, match=r"parallel.offload is for weights in shards: set parallel.shard above 1"):
        Parallel(offload=True)
