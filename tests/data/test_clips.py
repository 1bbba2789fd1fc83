"""Shots end at cuts and nowhere else, and windows are what was filmed, whatever names the files."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from videodit.data import clips, quarantine, toybox, video
from videodit.data.clips import Clips, Shots
from videodit.data.item import digest
from videodit.data.rows import Rows
from videodit.data.shots import lengths, thumbnail
from videodit.data.sources import Filed, Folder, Labelled, Manifest, Shards
from videodit.shapes import Size, UserError

SIZE = Size(4, 16, 24)


def drawn(seeds: list[int], frames: int = 12) -> np.ndarray:
    """Toybox scenes one after another, each before another background."""
    names = list(toybox.BACKGROUNDS)
    return np.concatenate([toybox.render(replace(toybox.scene(7, i), background=names[i % 2]), Size(frames, 48, 64)) for i in seeds])


def cut(frames: np.ndarray) -> list[int]:
    return lengths(np.stack([thumbnail(frame) for frame in frames]))


def shots(source: Filed | Path, side: int = 24, size: Size = SIZE, beside: Path | None = None) -> Shots:
    """Of a source or of a folder; what is kept lies in `cache` beside it."""
    source, beside = (Folder(path=source), source.parent) if isinstance(source, Path) else (source, beside)
    assert beside is not None
    return clips.shots(source, Clips(side=side), size, beside / "cache", beside / "unreadable.jsonl", lambda done, total: None)


def windows(found: Shots, size: Size = SIZE) -> list[np.ndarray]:
    return [clips.window(found, size, 1, np.random.default_rng([3, i])) for i in range(20)]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Two films, of one and of two shots."""
    (tmp_path / "mine").mkdir()
    video.write(tmp_path / "mine" / "a.mp4", drawn([0]), 8)
    video.write(tmp_path / "mine" / "b.mp4", drawn([2, 3]), 8)
    return tmp_path / "mine"


def test_a_video_is_cut_where_the_scene_changes() -> None:
    assert cut(drawn([0, 1, 2])) == [12, 12, 12]


@pytest.mark.parametrize("frames", [1, 2, 30])
def test_one_scene_is_one_shot(frames: int) -> None:
    assert cut(drawn([3], frames)) == [frames]
    noisy = np.random.default_rng(0).integers(0, 255, (frames, 32, 32, 3), np.uint8)  # all change and no cut
    assert len(cut(noisy)) == (2 if frames == 2 else 1)


def test_windows_are_pieces_of_one_shot(tmp_path: Path) -> None:
    """Frames whose pixels tell (shot, frame, row, column); a shot that weighs nothing is never drawn."""
    rows, lasting = Rows(tmp_path, lambda entry: None), (3, 9, 20, 20)
    for shot, frames in enumerate(lasting):
        grid = np.stack(np.meshgrid(np.arange(frames), np.arange(20), np.arange(30), indexing="ij"), axis=-1).astype(np.uint8)
        grid[..., 0] += min(100 * shot, 230)
        rows.add({"shot": shot}, lambda grid=grid: {"frames": torch.from_numpy(grid)})
    found = Shots(rows, np.array([0, 3, 12, 32]), np.array(lasting), np.array([1.0, 1, 1, 0]), "")
    rng, seen, flips = np.random.default_rng(1), set(), 0
    for _ in range(400):
        clip = clips.window(found, SIZE, 2, rng)
        assert clip.shape == (4, 16, 24, 3)
        first = clip[0, 0, 0]
        flips += clip[0, 0, 0, 2] > clip[0, 0, 1, 2]
        assert (np.diff(clip[:, 0, 0, 0].astype(int)) == 2).all() and (np.diff(clip[0, :, 0, 1].astype(int)) == 1).all()
        seen.add(int(first[0]))
    assert seen == {100, 101, 102, *range(200, 214)}  # every start of the shots that are long enough
    assert 150 < flips < 250


def test_a_folder_a_list_labels_and_shards_of_the_same_files_are_the_same_clips(mine: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in mine.iterdir())
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps({"path": f"mine/{name}", "digest": digest(mine / name)}) for name in names))
    (tmp_path / "list.csv").write_text("path\n" + "\n".join(f"mine/{name}" for name in names))
    with tarfile.open(tmp_path / "part.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
        for name in names:
            shard.add(mine / name, name)
    (tmp_path / "labelled" / "label").mkdir(parents=True)
    for name in names:
        (tmp_path / "labelled" / "label" / name).write_bytes((mine / name).read_bytes())
    sources: list[Filed] = [Manifest(path=tmp_path / "list.jsonl"), Manifest(path=tmp_path / "list.csv")]
    sources += [Shards(path=str(tmp_path / "part.tar")), Labelled(path=tmp_path / "labelled")]
    plain = shots(mine)
    assert plain.lengths.tolist() == [12, 12, 12]
    for number, source in enumerate(sources):
        (beside := tmp_path / str(number)).mkdir()  # nothing is kept there yet
        found = shots(source, beside=beside)
        assert found.digest == plain.digest
        assert all(np.array_equal(one, other) for one, other in zip(windows(found), windows(plain), strict=True))


def test_a_list_says_which_part_of_a_film_and_how_often(mine: Path, tmp_path: Path) -> None:
    part = {"path": "mine/b.mp4", "start": 1.5, "end": 3.0, "crop": "32x40+8+16"}
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, [{"path": "mine/a.mp4", "weight": 1e-9}, part])))
    found = shots(Manifest(path=tmp_path / "list.jsonl"), side=32, beside=tmp_path)
    assert found.lengths.tolist() == [12, 12] and found.weights.tolist() == [1e-9, 1]
    frames = np.stack([frame.numpy() for frame in found.frames.read("frames", range(12, 24))])
    assert np.array_equal(frames, video.read(mine / "b.mp4")[0][12:, 8:40, 16:56])


def test_pictures_are_shots_of_one_frame_for_runs_of_one(mine: Path) -> None:
    Image.fromarray(drawn([1])[0]).save(mine / "p.png")
    (mine / "empty.txt").write_text("no film")
    assert shots(mine).lengths.tolist() == [12, 12, 12]
    assert shots(mine, size=SIZE._replace(frames=1)).lengths.tolist() == [12, 12, 12, 1]


def test_a_damaged_file_is_listed_and_not_tried_again(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine / "x.mp4").write_bytes((mine / "a.mp4").read_bytes()[:900])
    (mine / "twin.mp4").write_bytes((mine / "a.mp4").read_bytes())
    tried, plain = [], clips._shrunk
    monkeypatch.setattr(clips, "_shrunk", lambda item, *rest: (tried.append(item.path.name), plain(item, *rest))[1])
    for wanted in (["a.mp4", "b.mp4", "x.mp4"], []):
        tried.clear()
        assert shots(Folder(path=mine, budget=0.5), beside=tmp_path).lengths.tolist() == [12, 12, 12] and tried == wanted
        (lost,) = map(json.loads, (tmp_path / "unreadable.jsonl").read_text().splitlines())
        (kept,) = map(json.loads, (tmp_path / "cache" / "quarantine.jsonl").read_text().splitlines())
        assert lost["file"].endswith("x.mp4") and kept["digest"] == digest(mine / "x.mp4") and kept["reason"] == lost["reason"]
    with pytest.raises(UserError, match=r"1 of 4 files could not be used so far, more than data.budget=0.01 allows; .*x\.mp4"):
        shots(mine)


def test_files_are_shrunk_once_and_kept(mine: Path, tmp_path: Path) -> None:
    (mine / "a.mp4").unlink()
    found = shots(mine)
    assert found.frames.shape("frames", 0) == (24, 32, 3) and found.firsts.tolist() == [0, 12]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert all(np.array_equal(one, other) for one, other in zip(windows(shots(mine)), windows(found), strict=True))
    assert len(before) == 2 and before == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert shots(mine, side=100).frames.shape("frames", 0) == (48, 64, 3)  # never enlarged


def test_another_reader_shrinks_anew(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine / "b.mp4").unlink()
    shots(mine)
    monkeypatch.setattr(quarantine, "READER", "another")
    shots(mine)
    assert len(list((tmp_path / "cache").iterdir())) == 4  # frames, and how long shots last


def test_what_is_hidden_in_a_folder_is_no_video_of_it(mine: Path) -> None:
    """A Mac's notes beside files, what a disk's trash holds, and a folder that is called like a file."""
    for name in ("._a.mp4", ".Trash-1000/b.mp4", "c.mp4/.d.mp4"):
        (mine / name).parent.mkdir(exist_ok=True)
        (mine / name).write_bytes(b"nothing")
    assert shots(mine).lengths.tolist() == [12, 12, 12]


@pytest.mark.parametrize("changes", [{"side": 0}, {"share": 1.5}, {"share": float("nan")}])
def test_numbers_that_no_clip_has_are_said(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="takes a share of 0 to 1 and a side of 1 or more"):
        Clips(**changes)


def test_a_file_that_no_clip_fits_is_named_before_any_clip_is_drawn(mine: Path) -> None:
    """Among others that are large enough; one whose shots are all too short is never drawn."""
    with pytest.raises(UserError, match=r"No shot in .*mine lasts 14 frames"):
        shots(mine, 48, Size(14, 16, 24))
    with pytest.raises(UserError, match=r"a\.mp4 has frames of 24x32 at clips\.side=24, .* use a larger clips\.side"):
        shots(mine, 24, Size(4, 32, 24))
    video.write(mine / "small.mp4", drawn([0])[:6, :32, :32], 8)
    with pytest.raises(UserError, match=r"small\.mp4 has frames of 32x32, smaller than clips of 48x48: take it out"):
        shots(mine, 48, Size(4, 48, 48))
    assert len(shots(mine, 48, Size(8, 48, 48)).lengths) == 4
