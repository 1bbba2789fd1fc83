"""Rows that stay on disk are the rows that were made, in any order; what is damaged or gone is made again."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from videodit.data import cache
from videodit.data.rows import Rows
from videodit.shapes import UserError

COUNTS = (3, 1, 0, 4)


class Maker:
    """Entries of several clips each, and what was made."""

    def __init__(self, folder: Path) -> None:
        self.made: list[int] = []
        self.rows = Rows(folder, self.again)

    def fill(self) -> Rows:
        for number in range(len(COUNTS)):
            self.rows.add({"number": number}, partial(self.make, number))
        return self.rows

    def make(self, number: int) -> dict[str, Tensor]:
        self.made.append(number)
        if not COUNTS[number]:
            return {"latents": torch.zeros(0), "mask": torch.zeros(0)}
        width = 2 if number == 3 else 5
        latents = torch.randn(COUNTS[number], 2, width, generator=torch.Generator().manual_seed(number)).half()
        return {"latents": latents, "mask": latents[:, 0] > 0}

    def again(self, entry: int) -> None:
        number = [i for i, count in enumerate(COUNTS) if count][entry]
        cache.remembered(self.rows.folder, {"number": number}, partial(self.make, number))


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "cache")


def every(maker: Maker) -> list[Tensor]:
    return [row for number, count in enumerate(COUNTS) if count for row in maker.make(number)["latents"]]


def same(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_rows_are_those_that_were_made(maker: Maker) -> None:
    rows, whole = maker.fill(), every(maker)
    assert len(rows) == 8 and rows.tensors == ["latents", "mask"]
    assert same(rows.read("latents", range(8)), whole)
    order = [7, 0, 3, 0, 5, 2]
    assert same(rows.read("latents", order), [whole[i] for i in order])
    assert same(rows.read("mask", order), [whole[i][0] > 0 for i in order])
    assert torch.equal(rows.together("latents", [4, 6]), torch.stack([whole[4], whole[6]]))
    shapes, which = rows.shapes("latents")
    assert [shapes[i] for i in which] == [tuple(row.shape) for row in whole] == [rows.shape("latents", i) for i in range(8)]
    assert [rows.entry(i) for i in range(8)] == [0, 0, 0, 1, 2, 2, 2, 2]


def test_several_are_joined(maker: Maker, tmp_path: Path) -> None:
    rows, whole = maker.fill(), every(maker)
    both = Rows.joined([rows, Rows.one(rows.folder, {"another": 1}, lambda: {"latents": torch.ones(2, 3), "mask": torch.ones(2, 1)}), rows])
    assert same(both.read("latents", range(18)), [*whole, torch.ones(3), torch.ones(3), *whole])
    for path in rows.folder.iterdir():
        path.unlink()
    assert same(both.read("latents", range(18)), [*whole, torch.ones(3), torch.ones(3), *whole])  # each by who made it


def test_what_is_kept_is_not_made_and_not_read_before_it_is_asked_for(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    maker.fill()
    assert maker.made == [0, 1, 2, 3]
    verified, plain = [], cache.sound
    monkeypatch.setattr(cache, "sound", lambda folder, name: (verified.append(name), plain(folder, name))[1])
    again = Maker(maker.rows.folder)
    rows = again.fill()
    assert again.made == verified == []
    for _ in range(3):
        rows.read("latents", [0, 2])
    assert len(verified) == 1
    rows.verify()
    assert len(verified) == 3 and again.made == []


@pytest.mark.parametrize("harm", ["a bit", "half", "gone"])
@pytest.mark.parametrize("seen", [False, True])
def test_what_is_damaged_is_made_again(maker: Maker, harm: str, seen: bool) -> None:
    """The first time that it is read; what is gone, or cut off, at any time."""
    rows, whole = maker.fill(), every(maker)
    if seen:
        rows.verify()
    path = rows.folder / f"{cache.head(rows.folder, {'number': 3})[0]}.safetensors"
    content = path.read_bytes()
    harmed = {"a bit": content[:-1] + bytes([content[-1] ^ 1]), "half": content[:-9], "gone": b""}[harm]
    path.write_bytes(harmed)
    if harm == "gone":
        path.unlink()
    maker.made.clear()
    read = rows.read("latents", range(8))
    assert same(read, whole) and ((harm == "a bit" and seen) or maker.made == [3])
    assert (harm == "a bit" and seen) or path.read_bytes() == content


def test_what_cannot_be_made_as_it_was_is_said(maker: Maker) -> None:
    rows = maker.fill()
    rows.again = lambda entry: None
    for path in rows.folder.iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"\.safetensors is lost, and what it was made of has changed: start the command again"):
        rows.read("latents", [0])
