"""A run in shards, replicas and parts of clips: the losses, the weights and the samples of one process, also taken up by others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

import ranks
import tiny
from traffic import Sent
from videodit import parallel
from videodit.backbone import DualTransformer
from videodit.diffusion.tasks import Given, around
from videodit.parallel import Parallel
from videodit.parallel.volume import shard_bytes
from videodit.shapes import UserError
from videodit.train.launch import Launch
from videodit.train.optimizer import Optimizer
from videodit.train.starting import ALL, freeze
from videodit.train.step import Checkpoint, Job, Run, train

STEPS, PASSES = 4, 4
GROUPS = (1, 2, 4, 2, 1)
HALF = Parallel(shard=2)
PART = ("blocks.*.qkv",)
# For each group: runs of their own, and runs that go on from another group's checkpoint: how, and to which step.
RUNS: list[dict[str, Parallel]] = [
    {"one": Parallel()},
    {"shards": Parallel(shard=2), "parts": Parallel(sequence=2), "ring": Parallel(sequence=2, ring=True)},
    {"hybrid": Parallel(shard=2, replicate=2), "both": Parallel(shard=2, sequence=2)},
    {},
    {},
]
LEGS: list[dict[str, tuple[Parallel, int]]] = [
    {"up": (Parallel(), 1)},
    {"up": (Parallel(shard=2), 3)},
    {"up": (Parallel(shard=4), STEPS), "down": (Parallel(shard=2, sequence=2), 1)},
    {"down": (Parallel(), 3)},
    {"down": (Parallel(), STEPS)},
]


def network() -> DualTransformer:
    return tiny.transformer(given="channels", width=64, heads=4).train()


def job(folder: Path, seen: list[int], learns: Sequence[str]) -> Job:
    """What a pass teaches is a function of its number; something is given in every second."""
    made = network()
    freeze(made, learns)

    def batch(index: int) -> tuple[int, Tensor]:
        return index, torch.randn(2, 8, 2 if index // PASSES % 3 else 1, 4, 4, generator=torch.Generator().manual_seed(index))

    def loss(index: int, read: tuple[int, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        at, clean = read
        seen.append(at)
        mask = torch.zeros(2, 1, *clean.shape[2:])
        mask[:, :, 0] = 1
        told = around(made, Given(mask, clean * mask, clean[:, :, :0])) if index % 2 else made
        t = torch.tensor([0.2, 0.7])
        error = (told(clean.sin(), t, tiny.text([3, 5], seed=index)) - clean).square().mean()
        return error, {"even" if index % 2 == 0 else "odd": error.detach()}

    def save(path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        save_file({name: value.detach().clone() for name, value in made.state_dict().items()}, path / "weights.safetensors")

    return Job(network=made, batch=batch, loss=loss, save=save)


def settings(folder: Path, split: Parallel, steps: int = STEPS, **changes: Any) -> Run:
    same: dict[str, Any] = {"accumulate": PASSES, "precision": "fp32", "average": 0.9, "checkpoint": Checkpoint(every=2, keep=9)}
    same["optimizer"] = Optimizer(learning_rate=1e-3, warmup=2, schedule="constant", clip=0.5)
    return Run(output=folder, steps=steps, parallel=split, **{**same, **changes})


def trained(run: Run, seen: list[int], learns: Sequence[str] = ALL) -> list[float]:
    rank, size = dist.get_rank(), dist.get_world_size()
    run.output.mkdir(parents=True, exist_ok=True)
    return [figures["loss"] for figures in train(run, job(run.output, seen, learns), launch=Launch(rank, size))]


def member(folder: Path, number: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    runs = {name: (split, STEPS) for name, split in RUNS[number].items()} | LEGS[number]
    for name, (split, steps) in runs.items():
        seen: list[int] = []
        losses = trained(settings(folder / name, split, steps), seen)
        found[name] = {"losses": losses, "seen": seen if dist.get_rank() % split.sequence == 0 else []}
    if number < 2:
        half = settings(folder / f"half-{number}", HALF if number else Parallel(), 2, precision="bf16")
        found["half"] = trained(half, [])
        part = settings(folder / f"part-{number}", HALF if number else Parallel())
        found["part"] = trained(part, [], PART)
    if number in (1, 2):
        found["bytes"] = traffic(RUNS[number]["hybrid" if number == 2 else "shards"])
    if number == 1:
        with pytest.raises(UserError, match=r"Muon needs whole matrices.* set optimizer.muon=0, or parallel.shard=1"):
            trained(settings(folder / "muon", HALF, optimizer=Optimizer(muon=0.01)), [])
    return found


def traffic(split: Parallel) -> list[int]:
    """What two passes send, and should."""
    shared = network()
    parallel.wrap(shared, split, parallel.build(split, dist.get_world_size(), "cpu"), half=False)
    with Sent() as sent:
        for _ in range(2):
            shared(tiny.grid(1, 8, 2, 4, 4), torch.tensor([0.5]), tiny.text([3])).square().mean().backward()
    return [sent.bytes, 2 * shard_bytes(network(), split.shard, max(1, split.replicate), width=4).both]


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[dict[str, Any]]]]:
    folder = tmp_path_factory.mktemp("groups")
    return folder, ranks.run(Path(__file__), "member", folder, GROUPS)


Groups = tuple[Path, list[list[dict[str, Any]]]]


def test_many_train_what_one_does(groups: Groups) -> None:
    folder, told = groups
    one = told[0][0]["one"]["losses"]
    start, weights = network().state_dict(), saved(folder / "one")
    assert any((weights[name] - start[name]).abs().max() > 1e-3 for name in start)
    for name in ("shards", "parts", "ring", "hybrid", "both"):
        (group,) = (group for group in told if name in group[0])
        for found in group:
            assert found[name]["losses"] == pytest.approx(one, abs=1e-6), name
        assert sorted(at for found in group for at in found[name]["seen"]) == list(range(STEPS * PASSES)), name
        assert worst(saved(folder / name), weights) < 1e-4, name
    assert told[1][0]["half"] == pytest.approx(told[0][0]["half"], rel=1e-2) and told[1][0]["half"] != told[0][0]["half"]


def test_shards_learn_in_part(groups: Groups) -> None:
    folder, told = groups
    one, shards, start = saved(folder / "part-0"), saved(folder / "part-1"), network().state_dict()
    assert told[1][0]["part"] == told[1][1]["part"] == pytest.approx(told[0][0]["part"], abs=1e-6) and worst(shards, one) < 1e-4
    for weights in (one, shards):
        assert {name for name, value in weights.items() if not torch.equal(value, start[name])} == {n for n in start if ".qkv." in n}


@pytest.mark.parametrize("name", ["up", "down"])
def test_any_number_goes_on_from_any_other(name: str, groups: Groups) -> None:
    folder, told = groups
    one = told[0][0]["one"]["losses"]
    legs = [group for group in told if name in group[0]]
    assert [len(group) for group in legs] == ([1, 2, 4] if name == "up" else [4, 2, 1])
    assert [loss for group in legs for loss in group[0][name]["losses"]] == pytest.approx(one, abs=1e-6)
    assert sorted(at for group in legs for found in group for at in found[name]["seen"]) == list(range(STEPS * PASSES))
    assert worst(saved(folder / name), saved(folder / "one")) < 1e-4
    steps = [json.loads(line)["step"] for line in (folder / name / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1))


def test_bytes_of_shards_are_as_counted(groups: Groups) -> None:
    for group in groups[1][1:3]:
        for found in group:
            sent, counted = found["bytes"]
            assert sent == counted > 0


def saved(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model" / "weights.safetensors")


def worst(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_processes_that_do_not_fit_are_said() -> None:
    assert Parallel(shard=2, sequence=2).copies(8) == 2
    with pytest.raises(UserError, match=r"6 processes are not parallel.replicate x shard x sequence = 1 x 2 x 2: start 4, or change those"):
        Parallel(shard=2, sequence=2).copies(6)
    with pytest.raises(UserError, match=r"take 1 or more"):
        Parallel(shard=0)
    with pytest.raises(UserError, match=r"set parallel.sequence above 1, or leave it out"):
        Parallel(ring=True)
    with pytest.raises(UserError, match=r"split transformers: leave both at 1"):
        parallel.wrap(torch.nn.Linear(2, 2), Parallel(shard=2), None, half=False)  # type: ignore[arg-type]
