"""A checkpoint is what was written, or it is named and not used."""

from __future__ import annotations

import errno
import json
import random
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lives
from videodit.shapes import UserError
from videodit.train import checkpoint, saving
from videodit.train.checkpoint import Damaged
from videodit.train.saving import newest
from videodit.train.step import train

FILES = ("network.safetensors", "average.safetensors", "optimizer.safetensors", "manifest.json")


def trained(folder: Path, steps: int = 4) -> Path:
    """The folder of two checkpoints, of steps 2 and 4."""
    run = lives.settings(folder, steps, every=2)
    train(run, lives.job(run.output))
    return folder / "checkpoints"


def damage(path: Path, chance: random.Random) -> str:
    """One bit turned, or an end cut off."""
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content))
    if chance.random() < 0.3:
        path.write_bytes(content[:at])
        return f"{path.name} cut at {at}"
    content[at] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return f"{path.name} turned at {at}"


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_no_damage_is_loaded(count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance, there = random.Random(count), trained(tmp_path / "run")
    for number in range(count):
        copy = shutil.copytree(there, tmp_path / "copy")
        what = damage(copy / "step-00000004" / FILES[number % len(FILES)], chance)
        with pytest.raises(Damaged):
            checkpoint.verified(copy / "step-00000004")
        found = newest(copy)
        assert found and found.name == "step-00000002", what
        said = capsys.readouterr().err
        assert "step-00000004 is damaged" in said and "goes on from step-00000002" in said
        assert sorted(path.name for path in copy.iterdir()) == ["damaged-step-00000004", "step-00000002"]
        shutil.rmtree(copy)
    assert newest(there) == there / "step-00000004"


def test_a_manifest_says_what_the_run_was(tmp_path: Path) -> None:
    manifest = checkpoint.verified(trained(tmp_path) / "step-00000004")
    run = lives.settings(tmp_path, 4, 2)
    assert {name: manifest[name] for name in ("step", "passes", "skipped", "seed", "settings")} == {
        "step": 4,
        "passes": 8,
        "skipped": 0,
        "seed": 0,
        "settings": run.digest,
    }
    assert manifest["code"]["torch"] == torch.__version__
    assert replace(run, steps=9, output=Path("other")).digest == run.digest != replace(run, average=0.5).digest


def test_a_run_goes_on_from_before_the_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    straight, broken = (lives.settings(tmp_path / name, 6, 2) for name in ("straight", "broken"))
    train(straight, lives.job(straight.output))
    train(replace(broken, steps=4), lives.job(broken.output))
    last = broken.output / "checkpoints" / "step-00000004"
    (last / "average.safetensors").write_bytes((last / "average.safetensors").read_bytes()[::-1])
    assert len(train(replace(broken, steps=6), lives.job(broken.output))) == 4
    assert "average.safetensors is not what was written" in capsys.readouterr().err
    one, other = (checkpoint.verified(run.output / "checkpoints" / "step-00000006")["files"] for run in (straight, broken))
    assert one == other
    kept = sorted(path.name for path in last.parent.iterdir())
    assert kept == ["damaged-step-00000004", "step-00000004", "step-00000006"]


def test_without_a_whole_one_nothing_begins_anew(tmp_path: Path) -> None:
    there = trained(tmp_path)
    for path in there.iterdir():
        (path / "manifest.json").unlink()
    run = lives.settings(tmp_path, 6, 2)
    with pytest.raises(UserError, match=r"step-00000004 cannot be read \(manifest.json: No such file.*remove that folder"):
        train(run, lives.job(tmp_path))
    assert len(checkpoint.found(there)) == 2


def test_a_run_killed_behind_its_last_save_removes_the_older_ones_when_taken_up(tmp_path: Path) -> None:
    run = lives.settings(tmp_path, 6, every=2)
    train(replace(run, checkpoint=replace(run.checkpoint, keep=9)), lives.job(run.output))  # what the kill left
    assert len(checkpoint.found(tmp_path / "checkpoints")) == 3
    assert train(run, lives.job(run.output)) == []
    assert [path.name for path in checkpoint.found(tmp_path / "checkpoints")] == ["step-00000004", "step-00000006"]


def test_two_whole_ones_stay_whatever_lies_between(tmp_path: Path) -> None:
    there = trained(tmp_path, steps=6)
    assert [path.name for path in checkpoint.found(there)] == ["step-00000004", "step-00000006"]
    damage(there / "step-00000004" / "network.safetensors", random.Random(0))
    run = lives.settings(tmp_path, 8, 2)
    train(run, lives.job(tmp_path))
    assert [path.name for path in checkpoint.found(there)] == ["step-00000006", "step-00000008"]


def test_old_ones_go_only_when_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    write, remove = checkpoint.write, checkpoint.remove
    monkeypatch.setattr(checkpoint, "write", lambda *given: order.append(write(*given).name) or Path(given[0]) / order[-1])
    monkeypatch.setattr(checkpoint, "remove", lambda path: order.append(f"-{path.name}") or remove(path))
    trained(tmp_path, steps=6)
    assert order == ["step-00000002", "step-00000004", "step-00000006", "-step-00000002"]


def test_a_full_disk_costs_a_checkpoint_and_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    straight, full = (lives.settings(tmp_path / name, 9, 2) for name in ("straight", "full"))
    history = train(straight, lives.job(straight.output))
    save, left = checkpoint.save_file, [4]  # files: one checkpoint, and a part of the next

    def saving_file(tensors: object, path: Path) -> None:
        left[0] -= 1
        if -4 < left[0] < 0:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", saving_file)
    seen = []

    class Watch:
        def step(self, step: int, total: int, figures: dict[str, float]) -> None:
            seen.append([path.name for path in checkpoint.found(full.output / "checkpoints")])

    assert train(full, lives.job(full.output), Watch()) == history
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "The checkpoint of step 4 could not be written (No space left on device): step-00000002 stays the last, and the run goes on."
    )
    assert ["step-00000002"] in seen and not list((full.output / "checkpoints").glob(".writing*"))
    one, other = (checkpoint.verified(run.output / "checkpoints" / "step-00000009")["files"] for run in (straight, full))
    assert one == other


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """Files may not grow: checkpoints, then the log too, are refused by the system itself."""
    straight = tmp_path / "straight"
    train(lives.settings(straight, 6, 2), lives.job(straight))
    most = (straight / "checkpoints" / "step-00000006" / "optimizer.safetensors").stat().st_size - 1
    code = f"""
import resource, signal, lives
from pathlib import Path
from videodit.train.step import train
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, resource.RLIM_INFINITY))
run = lives.settings(Path({str(tmp_path / "full")!r}), 6, 2)
print(len(train(run, lives.job(run.output))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(lives.__file__).parent, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == "6\n", done.stderr
    assert done.stderr.count("could not be written") == 3 and "there is none yet, and the run goes on" in done.stderr
    assert len((tmp_path / "full" / "log.jsonl").read_text().splitlines()) == 6
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != most  # of this process


def test_lines_that_a_disk_refuses_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from videodit.train import log

    write, refused = log.os.write, [False, True, True, False]

    def writing(file: int, content: bytes) -> int:
        if refused.pop(0):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content)

    with log.Log(tmp_path / "log.jsonl", 0) as lines:
        monkeypatch.setattr(log.os, "write", writing)
        for step in range(1, 5):
            lines.write(step, {"loss": float("nan") if step == 2 else 0.5})
    monkeypatch.undo()
    told = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in told] == [(1, 0.5), (2, None), (3, 0.5), (4, 0.5)]
    assert capsys.readouterr().err.count("could not be written") == 1
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    log.Log(tmp_path / "log.jsonl", 3)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_small_numbers_are_no_zeros_in_the_log(tmp_path: Path) -> None:
    from videodit.train import log

    with log.Log(tmp_path / "log.jsonl", 0) as lines:
        lines.write(1, {"rate": 4.123456789e-7, "loss": 0.1234567, "operations": 123456789.125})
    told = json.loads((tmp_path / "log.jsonl").read_text())
    assert (told["rate"], told["loss"], told["operations"]) == (4.12346e-7, 0.123457, 123456789.125)


def test_a_fault_of_saving_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(saving.checkpoint, "write", broken)
    with pytest.raises(ZeroDivisionError, match="mistake"):
        trained(tmp_path)
