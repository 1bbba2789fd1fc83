"""What is prepared is what a run reads: once, by content, by several processes, after a kill, and never when it is damaged."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import films
import tiny
from videodit import config, models
from videodit.autoencoder import DPVAESettings
from videodit.backbone import PRESETS
from videodit.cli.main import main
from videodit.data import audit, sources, video
from videodit.data.labels import Labels, LabelSettings
from videodit.data.sources import Folder, Manifest, Toybox
from videodit.shapes import UserError
from videodit.train import pools, prepare
from videodit.train import words as features
from videodit.train.backbone import BackboneRun, Joint
from videodit.train.looks import Looks, held

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
    names, plain, words = [], pools._of_file, features._features
    monkeypatch.setattr(pools, "_of_file", lambda settings, item, *rest: (names.append(item.path.name), plain(settings, item, *rest))[1])
    monkeypatch.setattr(features, "_features", lambda encoder, some: (names.extend(some), words(encoder, some))[1])
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


def test_what_the_audit_leaves_out_is_left_out_and_pictures_are_the_first_frames_of_clips(settings: BackboneRun) -> None:
    mine = settings.data.path  # type: ignore[union-attr]
    (mine / "twin.webp").write_bytes((mine / "0.webp").read_bytes())
    video.write(mine / "still.mp4", np.full((20, 64, 64, 3), 77, np.uint8), 8)
    video.write(mine / "long.webp", films.numbered(20), 8)
    for name in ("twin", "still", "long"):
        (mine / f"{name}.txt").write_text("words")
    rows = list(audit.audited(sources.items(settings.data), settings.size, settings.data, worded=True))  # type: ignore[arg-type]
    assert {row.item.path.name: row.why for row in rows if row.why} == {"twin.webp": "duplicate", "still.mp4": "static"}
    found = prepare.prepare(replace(settings, joint=Joint(video_probability=0.5)))
    assert found.clips == found.pictures == sum(row.clips for row in rows) == 5 and found.captions == 4


@pytest.mark.parametrize("processes", [1, 2])
def test_a_missing_caption_is_said_before_anything_is_encoded(settings: BackboneRun, encoded: list[str], processes: int) -> None:
    (settings.data.path / "2.txt").unlink()  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"2\.webp has no caption"):
        prepare.prepare(settings, processes=processes)
    assert encoded == [] and not pools.cache(settings).exists()


@pytest.mark.parametrize("learns", [False, True])
def test_too_long_a_caption_is_said_before_anything_is_encoded(settings: BackboneRun, encoded: list[str], learns: bool) -> None:
    """Of clips and of what looks see, whether the text encoder is there or learns."""
    made = replace(settings, start=None, preset="toybox-tiny", text=tiny.TEXT) if learns else settings
    (mine := settings.data.path / "2.txt").write_text("a film " * 40)  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"2\.webp: The prompt .* tokens: use at most 31"):
        prepare.prepare(made)
    (folder := mine.parent.parent / "held").mkdir()
    for path in (mine, mine.with_suffix(".webp")):
        path.rename(folder / f"held{path.suffix}")
    with pytest.raises(UserError, match=r"held\.webp: The prompt"):
        prepare.prepare(replace(made, looks=Looks(every=1, data=Folder(path=folder))))
    with pytest.raises(UserError, match="The prompt 'so long"):
        prepare.prepare(replace(made, looks=Looks(every=1, prompts=("so long " * 40,))))
    assert encoded == [] and not pools.cache(settings).exists()


@pytest.mark.parametrize(("label", "match"), [("", "1.webp has no label: give it one"), ("run", "1.webp: There is no label 'run'")])
def test_a_label_that_is_missing_or_unknown_is_said_before_anything_is_encoded(
    settings: BackboneRun, encoded: list[str], tmp_path: Path, label: str, match: str
) -> None:
    rows = [{"path": f"mine/{i}.webp", "label": name} for i, name in ((0, "walk"), (1, label))]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    made = replace(settings, start=None, preset="dit-xl-2-tiny", data=Manifest(path=tmp_path / "list.jsonl"))
    with pytest.raises(UserError, match=match):
        pools.check(made, Labels(LabelSettings(names=("walk",))))
    if not label:
        with pytest.raises(UserError, match=match):
            prepare.prepare(made)
    with pytest.raises(UserError, match="There is no label"):
        pools.check(replace(made, data=Toybox()), Labels(LabelSettings(names=("walk",))))
    assert encoded == [] and not pools.cache(settings).exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("Do this."), UserError("Do this.")),
        (
            video.Unreadable(Path("a.mp4"), "why"),
            UserError("a.mp4 cannot be read as a video or picture (why): name another, such as an .mp4."),
        ),
        (OSError(28, "No space left on device", "here"), OSError(28, "No space left on device", "here")),
        (ValueError("ours"), RuntimeError("ValueError: ours")),
        (None, UserError("A process ended with 7: the same command goes on where it stopped.")),
    ],
)
def test_what_stops_one_process_stops_all_and_is_said_as_its_own(
    settings: BackboneRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception | None, said: Exception
) -> None:
    def share(settings: BackboneRun, rank: int, size: int) -> None:
        signal.raise_signal(signal.SIGINT)  # which is for the first process alone
        if rank == 0:
            time.sleep(600)
        if error is None:
            os._exit(7)
        raise error

    forking = multiprocessing.get_context("fork")
    monkeypatch.setattr(prepare.multiprocessing, "get_context", lambda how: forking)
    monkeypatch.setattr(prepare, "share", share)
    with pytest.raises(type(said)) as caught:
        prepare._spread(settings, 2)
    assert (type(caught.value), str(caught.value)) == (type(said), str(said))
    assert not multiprocessing.active_children() and capfd.readouterr().err == ""
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def long_command(settings: BackboneRun, folder: Path) -> list[str]:
    """Two processes prepare many files."""
    mine = settings.data.path  # type: ignore[union-attr]
    for i in range(60):
        video.write(mine / f"more-{i}.webp", np.random.default_rng(i).integers(0, 255, (9, 64, 64, 3), np.uint8), 8)
        (mine / f"more-{i}.txt").write_text("more")
    (folder / "run.toml").write_text(config.write(settings))
    return [sys.executable, "-m", "videodit", "prepare", str(folder / "run.toml"), "--processes", "2", "--json"]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 4.0])
def test_ctrl_c_ends_all_processes_with_one_sentence(settings: BackboneRun, tmp_path: Path, seconds: float) -> None:
    """While they import, and later."""
    command = long_command(settings, tmp_path)
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what is run in the background is deaf to it
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True, preexec_fn=hears)

    def children() -> list[str]:
        return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

    until = time.monotonic() + 250
    while len(children()) < 3 and time.monotonic() < until:  # with the resource tracker
        time.sleep(0.01)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and said.splitlines()[-1] == "videodit: Stopped." and "Traceback" not in said


def test_only_entries_are_collected(settings: BackboneRun) -> None:
    prepare.prepare(settings)
    folder = pools.cache(settings)
    ours = {path.name for path in folder.iterdir()}
    for name in ("model.safetensors", "0123456789abcdef.safetensors"):
        save_file({"weights": torch.zeros(3)}, folder / name)
    (folder / "mine.writing").touch()
    (folder / f"0123456789abcdef.{os.getpid()}.writing").touch()  # by a process that lives
    theirs = {path.name for path in folder.iterdir()} - ours
    other = replace(settings, size=settings.size._replace(frames=4))
    assert prepare.prepare(other, clean=True).collected == 3  # the clips at the size before
    assert theirs < {path.name for path in folder.iterdir()}


def test_a_killed_one_goes_on(settings: BackboneRun, encoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies as it begins its third file."""
    plain = pools._of_file

    def dying(settings: BackboneRun, item: object, *rest: object) -> object:
        if len(list(pools.cache(settings).glob("*.safetensors"))) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(settings, item, *rest)  # type: ignore[arg-type]

    if (child := os.fork()) == 0:
        monkeypatch.setattr(pools, "_of_file", dying)
        torch.set_num_threads(1)
        prepare.prepare(settings)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    found = prepare.prepare(settings)
    assert (found.clips, found.captions, found.entries, found.new) == (3, 3, 7, 5)
    assert encoded == ["2.webp", "a film 0", "a film 1", "a film 2", ""]


@pytest.mark.slow
def test_a_killed_command_of_two_processes_goes_on_and_leaves_nobody_behind(settings: BackboneRun, tmp_path: Path) -> None:
    command = long_command(settings, tmp_path)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    folder = pools.cache(settings)
    until = time.monotonic() + 900
    while len(list(folder.glob("*.safetensors"))) < 4 and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.wait()
    with suppress(ProcessLookupError):  # once nobody of the group is left
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert 4 <= len(kept) < 63 and time.monotonic() < until
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["clips"] == 63 and found["entries"] - found["new"] == len(kept)
    assert all(path.stat().st_mtime_ns == kept.get(path.name, path.stat().st_mtime_ns) for path in folder.glob("*.safetensors"))
    assert not list(folder.glob("*.writing")) or prepare.prepare(settings, clean=True).collected


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_the_verb(settings: BackboneRun, tmp_path: Path, processes: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text(config.write(settings))
    assert main(["prepare", str(tmp_path / "run.toml"), "--processes", processes, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["clips"], found["captions"], found["entries"], found["unreadable"]) == (3, 3, 7, 0)
    assert main(["prepare", str(tmp_path / "mine")]) == 2 and "needs a folder" in capsys.readouterr().err
    assert main(["prepare", str(tmp_path / "run.toml"), "--processes", "0"]) == 2
    capsys.readouterr()
    assert main(["prepare", str(tmp_path / "run.toml"), "--model", "m"]) == 2
    assert "--model is for a list" in (said := capsys.readouterr().err) and "set start=m autoencoder=m" in said


def test_folders_may_be_called_like_dates_and_numbers(settings: BackboneRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").rename(tmp_path / "2024-05-01")
    monkeypatch.chdir(tmp_path)
    asked: list[BackboneRun] = []
    monkeypatch.setattr(prepare, "prepare", lambda settings, **_: asked.append(settings) or prepare.Prepared(*[0] * 8, ""))
    assert main(["prepare", "2024-05-01", "2024", "steps=3"]) == 0
    assert asked[0].data == Folder(path=Path("2024-05-01")) and (asked[0].output, asked[0].steps) == (Path("2024/run"), 3)


def test_a_shape_of_its_own_goes_before_the_preset(tmp_path: Path) -> None:
    made = BackboneRun(output=tmp_path, autoencoder=tmp_path, backbone=replace(PRESETS["dit-xl-2-tiny"], patch=4))
    assert made.preset == "toybox" and pools.patch(made) == 4


def test_scenes_are_kept_by_how_latents_are_normalised_and_grouped() -> None:
    """Which no weight says."""
    autoencoders = tiny.dpvae(), tiny.dpvae(scaling=0.9), tiny.dpvae(shift=0.2), tiny.dpvae(settings=DPVAESettings(time=4, reach="causal"))
    keys = [pools.scenes_key(Toybox(), 0, tiny.CLIP, autoencoder, "fp32") for autoencoder in autoencoders]
    assert len({key["autoencoder"] for key in keys}) == 1 and len({str(key) for key in keys}) == 4


def test_scenes_are_kept_by_their_precision(world: tiny.World, tmp_path: Path) -> None:
    made = tiny.runs(world, tmp_path, steps=1)["video"]
    assert isinstance(made, BackboneRun)
    coder = models.load_autoencoder(made.autoencoder)
    half, whole = (pools.pools(replace(made, precision=said), coder, "text", [False])[False] for said in ("bf16", "fp32"))
    assert len(list(pools.cache(made).iterdir())) == 2 and not torch.equal(
        torch.stack(tiny.latents(half)), torch.stack(tiny.latents(whole))
    )


def test_what_a_run_is_looked_at_by_is_prepared_and_not_collected(settings: BackboneRun, tmp_path: Path, encoded: list[str]) -> None:
    (tmp_path / "held").mkdir()
    video.write(tmp_path / "held" / "h.webp", films.numbered(20)[8:17], 8)
    (tmp_path / "held" / "h.txt").write_text("a film 9\n")
    made = replace(settings, looks=Looks(every=1, data=Folder(path=tmp_path / "held")))
    coder = models.load_autoencoder(made.autoencoder)
    held(made, coder, "text")
    assert encoded == ["h.webp"]
    assert prepare.prepare(made, clean=True).collected == 0 and encoded.count("h.webp") == 1
    encoded.clear()
    held(made, coder, "text")
    assert encoded == []
