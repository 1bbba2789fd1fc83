"""What is prepared is what a run reads: once, by content, by several processes, after a kill, and never when it is damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import films
import tiny
from videodit import config, models
from videodit.cli.main import main
from videodit.data import video
from videodit.data.sources import Folder
from videodit.train import pools, prepare
from videodit.train.backbone import BackboneRun, Joint

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def settings(world: tiny.World, tmp_path: Path) -> BackboneRun:
    """A run on three films with one caption each."""
    (tmp_path / "mine").mkdir()
    for i in range(3):
        video.write(tmp_path / "mine" / f"{i}.webp", films.numbered(20)[5 * i : 5 * i + 9], 8)
        (tmp_path / "mine" / f"{i}.txt").write_text(f"a film {i}\n")
    made = replace(tiny.runs(world, tmp_path, steps=2)["video"], start=world.video_model, joint=Joint(video_probability=1.0))
    return replace(made, data=Folder(path=tmp_path / "mine"), output=tmp_path / "out" / "run")  # type: ignore[arg-type]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names, plain, words = [], pools._of_file, pools._features
    monkeypatch.setattr(pools, "_of_file", lambda settings, item, *rest: (names.append(item.path.name), plain(settings, item, *rest))[1])
    monkeypatch.setattr(pools, "_features", lambda encoder, some: (names.extend(some), words(encoder, some))[1])
    return names


def test_one_new_clip_encodes_one_clip(settings: BackboneRun, encoded: list[str]) -> None:
    mine = settings.data.path  # type: ignore[union-attr]
    found = prepare.prepare(settings)
    assert (found.clips, found.captions, found.new, found.entries) == (3, 3, 7, 7) and len(encoded) == 7
    encoded.clear()
    assert prepare.prepare(settings).new == 0 and encoded == []
    video.write(mine / "new.webp", films.numbered(12)[::-1], 8)
    (mine / "new.txt").write_text("a film 0\na new one\n")
    assert prepare.prepare(settings).new == 2 and encoded == ["new.webp", "a new one"]
    encoded.clear()
    pool = pools.pools(settings, models.load_autoencoder(settings.autoencoder), "text", [True])[True]  # as the run does
    assert len(pool.latents) == 4 and encoded == []
    assert prepare.prepare(replace(settings, size=settings.size._replace(frames=4))).new == 4  # another size is another entry
    assert prepare.prepare(settings, clean=True).collected == 4 and prepare.prepare(settings).new == 0


def test_a_damaged_entry_is_made_again_and_a_half_written_one_is_not_seen(settings: BackboneRun, encoded: list[str]) -> None:
    prepare.prepare(settings)
    folder = pools.cache(settings)
    entries = sorted(folder.glob("*.safetensors"))
    whole = {path: path.read_bytes() for path in entries}
    entries[0].write_bytes(whole[entries[0]][:-1] + bytes([whole[entries[0]][-1] ^ 1]))
    entries[1].rename(entries[1].with_suffix(".4242.writing"))
    encoded.clear()
    assert prepare.prepare(settings, clean=True).collected == 1 and len(encoded) == 2
    assert {path: path.read_bytes() for path in folder.glob("*.safetensors")} == whole


def test_several_processes_leave_what_one_does(settings: BackboneRun, encoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As ranks of a launch, one after the other."""
    one = prepare.prepare(settings)
    other = replace(settings, output=settings.output.parent.parent / "ranks" / "run")
    threads = torch.get_num_threads()
    for rank in range(2):
        encoded.clear()
        prepare.share(other, rank, 2)
        assert len(encoded) == 2 - rank
    torch.set_num_threads(threads)
    assert prepare.prepare(other).entries == one.entries
    kept = [{path.name: load_file(path) for path in pools.cache(run).glob("*.safetensors")} for run in (settings, other)]
    assert kept[0].keys() == kept[1].keys()
    for name, tensors in kept[0].items():  # to half precision's last digits: sums depend on where memory lies
        for key, value in tensors.items():
            torch.testing.assert_close(value, kept[1][name][key], atol=1e-3, rtol=2e-3)


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_the_verb(settings: BackboneRun, tmp_path: Path, processes: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text(config.write(settings))
    assert main(["prepare", str(tmp_path / "run.toml"), "--processes", processes, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["clips"], found["captions"], found["entries"], found["unreadable"]) == (3, 3, 7, 0)
    assert main(["prepare", str(tmp_path / "mine")]) == 2 and "needs a folder" in capsys.readouterr().err
    assert main(["prepare", str(tmp_path / "run.toml"), "--processes", "0"]) == 2
