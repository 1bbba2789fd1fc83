"""Lengths that no model makes become the nearest that one does, and a filled video plays as long as it did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import asking
import videodit
from asking import COLUMNS, PROMPT, ROWS, VIDEO, generate
from videodit import backbone, fitting
from videodit.cli.main import main
from videodit.data import video
from videodit.generate import Generator
from videodit.request import Request
from videodit.shapes import Size, UserError

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asking.build(tmp_path_factory.mktemp("asked"))


@pytest.fixture
def model(folder: Path) -> Generator:
    return videodit.load(folder / "model")


def test_frames_that_do_not_fit_are_refused_or_rounded_and_reported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["generate", PROMPT, "--model", str(folder / "model"), "-o", str(tmp_path / "a.webp"), "--steps", "1", "--frames"]
    assert main([*options, "10"]) == 2
    assert "10 frames do not fit: use 8 or 12" in capsys.readouterr().err
    for frames, made in ((9, 8), (10, 12), (2, 4)):
        assert main([*options, str(frames), "--round"]) == 0
        assert f"{frames} frames do not fit; {made} are made" in capsys.readouterr().err
        assert len(video.read(tmp_path / "a.webp")[0]) == made


def test_a_filled_video_lasts_as_long_and_becomes_the_nearest_length(folder: Path, model: Generator) -> None:
    one = Request(prompt=PROMPT, task="infill", video=folder / "clip.webp")
    assert fitting.paced(one, model).fps == 8 * 7 and fitting.paced(replace(one, fps=9.0), model).fps == 9
    longer = Generator(replace(model.model, settings=replace(model.model.settings, size=Size(16, ROWS, COLUMNS))))
    asked = Request(prompt=PROMPT, task="extend", by="cascade")
    assert [fitting.fitting(replace(asked, frames=n), longer).frames for n in (2, 60, 61, 150, 151, 999)] == [46, 46, 76, 76, 226, 226]
    assert [fitting.fitting(replace(one, frames=n), longer).frames for n in (2, 45, 999)] == [34, 56, 166]
    with pytest.raises(UserError, match=r"60 frames do not fit: use 46 or 76 \(16 frames, filled 3 or 5 times\)"):
        replace(asked, frames=60).make(longer)


@pytest.mark.parametrize(
    ("there", "frames", "made"),
    [(17, None, 16), (17, 17, 16), (19, None, 16), (18, 18, 16), (18, 11, 12), (16, None, None), (3, None, None), (16, 19, 19)],
)
def test_an_edit_is_rounded_to_frames_that_are_there(
    there: int, frames: int | None, made: int | None, model: Generator, tmp_path: Path
) -> None:
    clip = np.random.default_rng(1).integers(0, 256, (there, 8, 8, 3), np.uint8)
    video.write(tmp_path / "clip.webp", clip, 8)
    one = Request(prompt=PROMPT, task="edit", video=tmp_path / "clip.webp", frames=frames)
    assert fitting.fitting(one, model).frames == made


def test_an_edit_that_is_rounded_says_so(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video.write(tmp_path / "clip.webp", np.concatenate([VIDEO, VIDEO])[:11], 8)
    options = [PROMPT, "--video", tmp_path / "clip.webp", "--strength", 0.3, "--steps", 2, "--round"]
    for more in ([], ["--frames", 11]):
        assert len(generate(folder, tmp_path / "a.webp", *options, *more)) == 8
        assert "11 frames do not fit; 8 are made" in capsys.readouterr().err


def test_frames_are_rounded_to_whole_tokens(model: Generator) -> None:
    shape = replace(backbone.PRESETS["latte-xl-v2-tiny"], tube=2)
    wide = Generator(replace(model.model, settings=replace(model.model.settings, backbone=shape)))
    assert [fitting.fitting(Request(frames=frames), wide).frames for frames in (4, 9, 12, 16)] == [8, 8, 16, 16]
