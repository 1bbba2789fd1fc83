"""What the command line shows and tells of what it makes, and videos of any length."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import asking
import tiny
import videodit
from asking import PROMPT, ROWS, VIDEO, generate
from videodit.cli.main import main
from videodit.data import video
from videodit.extend import at_once, cascade, infilled, rolled
from videodit.generate import Generator
from videodit.request import Request

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asking.build(tmp_path_factory.mktemp("asked"))


@pytest.fixture
def model(folder: Path) -> Generator:
    return videodit.load(folder / "model")


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--then", PROMPT),
        ("--video", "clip.webp", "--strength", 0.5),
        ("--video", "clip.webp", "--before", PROMPT),
        ("--by", "windows"),
        ("--by", "cascade"),
        ("--by", "queue"),
    ],
)
def test_a_preview_is_written_while_it_lasts(folder: Path, tmp_path: Path, more: tuple[str | float, ...]) -> None:
    given = [folder / word if word == "clip.webp" else word for word in more]
    made = generate(folder, tmp_path / "a.webp", PROMPT, "--steps", 4, "--preview", 2, *given)
    assert made.shape[1:] == (*tiny.CLIP[1:], 3) and video.read(tmp_path / "a-preview.png")[0].shape[1] % (ROWS + 2) == ROWS  # a sheet


@pytest.mark.parametrize(
    ("longer", "frames"),
    [
        (("--task", "extend", "--frames", "20"), 20),
        (("--by", "windows", "--frames", "20"), 20),
        (("--by", "windows", "--frames", "18", "--round"), 20),
        (("--by", "queue", "--frames", "18", "--round"), 18),
        (("--by", "cascade", "--frames", "26", "--round"), 50),
        (("--task", "infill", "--video", "clip.webp"), 78),
    ],
)
def test_a_longer_video_tells_its_drift(
    longer: tuple[str, ...],
    frames: int,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert main(["generate", PROMPT, "--model", "model", "-o", str(tmp_path / "a.webp"), "--steps", "1", "--json", *longer]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert [row["start"] for row in result["drift"]] == list(range(0, frames, 8)) and result["size"][0] == frames
    assert result["drift"][0].keys() == {"start", "brightness", "contrast", "sharpness"}
    assert said.err.count("sharpness") == len(result["drift"])


def test_every_way_to_a_longer_video_is_the_one_of_python(folder: Path, model: Generator) -> None:
    how, other = {"seed": 4, "first": 1, "steps": 2, "sampler": "heun"}, "a blue star"
    wanted = {
        "windows": at_once(model, [PROMPT, other], 16, **how),
        "cascade": cascade(model, PROMPT, 7, **how),
        "queue": rolled(model, PROMPT, 16, **how),
        "": infilled(model, PROMPT, video.read(folder / "clip.webp")[0], 7, **how),
    }
    plain = Request(prompt=PROMPT, seed=4, number=1, steps=2, sampler="heun")
    for way, frames in wanted.items():
        told: list[tuple[int, int]] = []
        longer = replace(plain, task="extend", by=way, then=(other,) if way == "windows" else ())
        one = longer if way else replace(plain, task="infill", video=folder / "clip.webp")
        assert np.array_equal(one.make(model, lambda done, total, told=told: told.append((done, total))), frames)
        assert told == sorted(told) and told[-1] == (told[-1][1],) * 2 and (one.counts == "frame") == (told[-1][1] == len(frames))


@pytest.mark.parametrize(
    ("way", "said"), [("queue", "trained at one time each clip"), ("cascade", "was not trained to go on from given frames")]
)
def test_a_way_that_a_model_cannot_go_is_said(
    way: str, said: str, world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", PROMPT, "--model", str(world.video_model), "-o", str(tmp_path / "a.webp"), "--by", way]) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


# --- Frames go into the file as they come ---


def long(folder: Path, out: Path, frames: int) -> list[str]:
    return ["generate", PROMPT, "--model", str(folder / "model"), "-o", str(out), "--task", "extend", "--frames", str(frames)]


def test_what_is_written_chunk_by_chunk_is_the_file_that_is_written_at_once(folder: Path, model: Generator, tmp_path: Path) -> None:
    one, other = tmp_path / "one.mp4", tmp_path / "other.mp4"
    assert main([*long(folder, one, 26), "--steps", "1", "--video", str(folder / "clip.webp")]) == 0
    asked = Request(prompt=PROMPT, task="extend", frames=26, steps=1, video=folder / "clip.webp")
    assert [len(part) for part in asked.parts(model)] == [8, 4, 4, 4, 6]
    video.write(other, asked.make(model), model.fps, note=video.read_note(one))
    assert one.read_bytes() == other.read_bytes()


def test_memory_does_not_grow_while_a_long_video_is_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """512 frames would be 1.5 MB; past the first 64 of them there is no more of anything."""
    held: list[int] = []

    def made(*_: object, **__: object) -> np.ndarray:
        if not held:
            tracemalloc.start()
        held.append(tracemalloc.get_traced_memory()[0])
        return VIDEO[:8].copy()

    monkeypatch.setattr(Generator, "generate", made)
    try:
        assert main(long(folder, tmp_path / "a.mp4", 512)) == 0
    finally:
        tracemalloc.stop()
    assert len(held) == 127 and max(held[16:]) < held[16] + 200_000
    assert len(video.read(tmp_path / "a.mp4")[0]) == 512


def test_ctrl_c_between_chunks_leaves_what_was_there(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a hundred frames and more are in the file already."""
    there: list[list[str]] = []

    def made(*_: object, **__: object) -> np.ndarray:
        there.append([path.suffix for path in tmp_path.iterdir()])
        if len(there) == 40:
            raise KeyboardInterrupt
        return VIDEO[:8].copy()

    monkeypatch.setattr(Generator, "generate", made)
    (tmp_path / "a.mp4").write_bytes(b"an older film")
    assert main(long(folder, tmp_path / "a.mp4", 512)) == 130
    assert there[0] == [".mp4"] and there[-1] == [".mp4"] * 2  # the file that grows beside the older one
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an older film"]
