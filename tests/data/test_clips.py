"""Shots end at cuts and nowhere else, and windows are what was filmed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videodit.data import clips, quarantine, toybox, video
from videodit.data.clips import Clips
from videodit.shapes import Size, UserError

SIZE = Size(4, 16, 24)


def drawn(seeds: list[int], frames: int = 12) -> np.ndarray:
    """Toybox scenes one after another, each before another background."""
    names = list(toybox.BACKGROUNDS)
    return np.concatenate([toybox.render(replace(toybox.scene(7, i), background=names[i % 2]), Size(frames, 48, 64)) for i in seeds])


def test_a_video_is_cut_where_the_scene_changes() -> None:
    assert [len(shot) for shot in clips.split(drawn([0, 1, 2]))] == [12, 12, 12]


@pytest.mark.parametrize("frames", [1, 2, 30])
def test_one_scene_is_one_shot(frames: int) -> None:
    assert [len(shot) for shot in clips.split(drawn([3], frames))] == [frames]
    noisy = np.random.default_rng(0).integers(0, 255, (frames, 32, 32, 3), np.uint8)  # all change and no cut
    assert len(clips.split(noisy)) == (2 if frames == 2 else 1)


def test_windows_are_pieces_of_one_shot() -> None:
    """Frames whose pixels tell (shot, frame, row, column)."""
    found = []
    for shot, frames in enumerate((3, 9, 20)):
        grid = np.stack(np.meshgrid(np.arange(frames), np.arange(20), np.arange(30), indexing="ij"), axis=-1).astype(np.uint8)
        grid[..., 0] += 100 * shot
        found.append(grid)
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


def test_files_are_shrunk_once_and_kept(tmp_path: Path) -> None:
    frames = drawn([0, 1])
    video.write(tmp_path / "a.mp4", frames, 8)
    settings = Clips(files=(str(tmp_path),), side=24, cache=tmp_path / "cache")
    found = clips.shots(settings, SIZE)
    assert [shot.shape for shot in found] == [(12, 24, 32, 3)] * 2
    (kept,) = (tmp_path / "cache").iterdir()
    before = kept.stat().st_mtime_ns
    assert all(np.array_equal(one, other) for one, other in zip(clips.shots(settings, SIZE), found, strict=True))
    assert kept.stat().st_mtime_ns == before
    large = clips.shots(replace(settings, side=100), SIZE)
    assert large[0].shape == (12, 48, 64, 3)  # never enlarged


def test_another_reader_shrinks_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video.write(tmp_path / "a.mp4", drawn([0]), 8)
    settings = Clips(files=(str(tmp_path / "a.mp4"),), side=24, cache=tmp_path / "cache")
    clips.shots(settings, SIZE)
    monkeypatch.setattr(quarantine, "READER", "another")
    clips.shots(settings, SIZE)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_what_is_hidden_in_a_folder_is_no_video_of_it(tmp_path: Path) -> None:
    """A Mac's notes beside files, what a disk's trash holds, and a folder that is called like a file."""
    video.write(tmp_path / "a.mp4", drawn([0]), 8)
    for name in ("._a.mp4", ".Trash-1000/b.mp4", "c.mp4/.d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"nothing")
    assert [len(shot) for shot in clips.shots(Clips(files=(str(tmp_path),), cache=tmp_path / "cache"), SIZE)] == [12]


@pytest.mark.parametrize("changes", [{"side": 0}, {"every": 0}, {"share": 1.5}, {"share": float("nan")}])
def test_numbers_that_no_clip_has_are_said(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="takes a share of 0 to 1, side and every of 1 or more"):
        Clips(**changes)


def test_mistakes_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no video in"):
        clips.shots(Clips(files=(str(tmp_path),)), SIZE)
    with pytest.raises(UserError, match="cannot be read"):
        clips.shots(Clips(files=(str(tmp_path / "none.mp4"),)), SIZE)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match="cannot be read as a video"):
        clips.shots(Clips(files=(str(tmp_path / "text.mp4"),), cache=tmp_path / "cache"), SIZE)


def test_a_file_that_no_clip_fits_is_named_before_any_clip_is_drawn(tmp_path: Path) -> None:
    """Among others that are large enough; one whose shots are all too short is never drawn."""
    video.write(tmp_path / "a.mp4", drawn([0]), 8)
    settings = Clips(files=(str(tmp_path),), side=48, cache=tmp_path / "cache")
    with pytest.raises(UserError, match="No shot lasts 14 frames"):
        clips.shots(settings, Size(14, 16, 24))
    with pytest.raises(UserError, match=r"a\.mp4 has frames of 24x32 at clips\.side=24, .* use a larger clips\.side"):
        clips.shots(replace(settings, side=24), Size(4, 32, 24))
    video.write(tmp_path / "small.mp4", drawn([0])[:6, :32, :32], 8)
    with pytest.raises(UserError, match=r"small\.mp4 has frames of 32x32, smaller than clips of 48x48: leave it out"):
        clips.shots(settings, Size(4, 48, 48))
    assert len(clips.shots(settings, Size(8, 48, 48))) == 2
