"""Runs of autoencoders and decoders on files: whatever names the files, the steps are the same, and a resume is exact."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from videodit.data import toybox, video
from videodit.data.clips import Clips
from videodit.data.sources import Folder, Manifest, Shards
from videodit.shapes import Size
from videodit.train import recipes
from videodit.train.recipes import JOBS, Recipe

pytestmark = pytest.mark.usefixtures("one_thread", "unchecked")
KINDS = ["image-autoencoder", "autoencoder", "decoder"]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Two films, and one that is cut off."""
    (tmp_path / "mine").mkdir()
    for i in range(2):
        video.write(tmp_path / "mine" / f"{i}.mp4", toybox.clip(7, i, Size(10, 40, 48)).video, 8)
    (tmp_path / "mine" / "x.mp4").write_bytes((tmp_path / "mine" / "1.mp4").read_bytes()[:900])
    return tmp_path / "mine"


def run(world: tiny.World, output: Path, kind: str, **changes: Any) -> Recipe:
    """On files alone; what is kept lies in a folder of its own."""
    changes |= {"files" if kind == "decoder" else "clips": Clips(side=36)} | ({"clips": 2} if kind == "decoder" else {})
    return replace(tiny.runs(world, output, steps=3)[kind], **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_a_list_and_a_shard_of_it_are_the_same_run(world: tiny.World, tmp_path: Path, mine: Path, kind: str) -> None:
    names = sorted(path.name for path in mine.iterdir())
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps({"path": f"mine/{name}"}) for name in names))
    with tarfile.open(tmp_path / "part.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
        for name in names:
            shard.add(mine / name, name)
    told, batches = [], []
    for source in (
        Folder(path=mine, budget=0.5),
        Manifest(path=tmp_path / "list.jsonl", budget=0.5),
        Shards(path=str(tmp_path / "part.tar"), budget=0.5),
    ):
        settings = run(world, tmp_path / source.kind, kind, data=source)
        batches.append(JOBS[kind](settings).batch(1))
        (lost,) = map(json.loads, (settings.output / "unreadable.jsonl").read_text().splitlines())
        told.append((Path(lost["file"]).name, lost["reason"]))
    assert told[0] == told[1] == told[2] and told[0][0] == "x.mp4"
    for other in batches[1:]:
        pairs = zip(other, batches[0], strict=True)
        assert all(torch.equal(one, same) for one, same in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_files_resumes_bit_for_bit(world: tiny.World, tmp_path: Path, mine: Path, kind: str) -> None:
    settings = run(world, tmp_path, kind, data=Folder(path=mine, budget=0.5))
    whole = recipes.train(settings)
    again = replace(settings, output=tmp_path / "again")
    halves = recipes.train(replace(again, steps=2)) + recipes.train(again)
    assert len(whole) == len(halves) == 3
    assert [figures["loss"] for figures in whole] == [figures["loss"] for figures in halves]
    drawn = recipes.train(replace(settings, output=tmp_path / "drawn", data=None))
    assert [figures["loss"] for figures in drawn] != [figures["loss"] for figures in whole]
