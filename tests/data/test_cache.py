"""What is kept is used only for the very key it was made for, and only whole."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from videodit.data import cache
from videodit.data.cache import collect, noted, remembered
from videodit.shapes import UserError

KEY = {"seed": 1, "size": (8, 16, 16), "path": Path("a/b")}


class Maker:
    """Makes the same tensors each time and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, Tensor]:
        self.times += 1
        return {"latents": torch.arange(1000.0).half().view(10, 100).t(), "mask": torch.ones(3, dtype=torch.bool)}


@pytest.fixture
def make() -> Maker:
    return Maker()


def check(tensors: dict[str, Tensor]) -> None:
    assert {name: (value.dtype, value.sum().item()) for name, value in tensors.items()} == {
        "latents": (torch.half, float(torch.arange(1000.0).half().view(10, 100).t().sum())),
        "mask": (torch.bool, 3),
    }
    assert tensors["latents"][1, 0] == 1 and tensors["latents"].is_contiguous()  # made or read, a sum over it is the same


def test_it_is_made_once(tmp_path: Path, make: Maker) -> None:
    for _ in range(3):
        check(remembered(tmp_path / "cache", KEY, make))
    assert make.times == 1
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".safetensors"]


@pytest.mark.parametrize("change", [{"seed": 2}, {"size": (8, 16, 8)}, {"more": None}])
def test_another_key_is_another_entry(tmp_path: Path, make: Maker, change: dict) -> None:
    remembered(tmp_path, KEY, make)
    remembered(tmp_path, KEY | change, make)
    remembered(tmp_path, dict(reversed(KEY.items())), make)  # the order of a key's parts is nothing
    assert make.times == 2 and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("left", [0, 4, 100, -1])
def test_a_truncated_file_is_made_again(tmp_path: Path, make: Maker, left: int) -> None:
    remembered(tmp_path, KEY, make)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:left])
    check(remembered(tmp_path, KEY, make))
    assert make.times == 2 and path.read_bytes() == whole


@pytest.mark.parametrize("at", [-1, -1000, -2001])
def test_a_bit_that_turned_is_found(tmp_path: Path, make: Maker, at: int) -> None:
    remembered(tmp_path, KEY, make)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + (whole[at + 1 :] if at < -1 else b""))
    check(remembered(tmp_path, KEY, make))
    assert make.times == 2 and path.read_bytes() == whole


def test_what_nobody_uses_is_collected(tmp_path: Path, make: Maker) -> None:
    for seed in range(3):
        remembered(tmp_path, KEY | {"seed": seed}, make)
    (tmp_path / "0123456789abcdef.9999999.writing").write_bytes(b"half")  # by a process that cannot be
    (tmp_path / "quarantine.jsonl").write_text("")
    with noted() as used:
        remembered(tmp_path, KEY | {"seed": 1}, make)
    count, size = collect(tmp_path, used)
    assert count == 3 and size > 4 and {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".jsonl"}
    remembered(tmp_path, KEY | {"seed": 1}, make)
    assert make.times == 3


@pytest.mark.parametrize("metadata", [None, {"key": "another"}])
def test_a_file_under_the_right_name_with_another_key_is_not_used(tmp_path: Path, make: Maker, metadata: dict | None) -> None:
    remembered(tmp_path, KEY, make)
    (path,) = tmp_path.iterdir()
    save_file({"latents": torch.zeros(3)}, path, metadata=metadata)
    check(remembered(tmp_path, KEY, make))
    assert make.times == 2


def test_an_interrupted_writing_is_not_seen(tmp_path: Path, make: Maker) -> None:
    remembered(tmp_path, KEY, make)
    (path,) = tmp_path.iterdir()
    path.with_suffix(".writing").write_bytes(path.read_bytes()[:100])
    path.unlink()
    check(remembered(tmp_path, KEY, make))
    assert make.times == 2


def test_a_full_disk_is_said_and_nothing_half_written_stays(tmp_path: Path, make: Maker) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written \(.*File too large.*\): make room there"):
            remembered(tmp_path, KEY, make)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_what_another_machine_is_writing_stays(tmp_path: Path) -> None:
    """Its processes' numbers say nothing here; those of this machine are looked for."""
    for host in ("another", cache._HOST):
        (tmp_path / f"0123456789abcdef.{host}.9999999.writing").write_bytes(b"half")
    assert collect(tmp_path, set())[0] == 1
    assert [path.name.split(".")[1] for path in tmp_path.iterdir()] == ["another"]
