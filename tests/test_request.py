"""What is asked for is checked, and what is given beside the words is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import asking
import tiny
import videodit
from asking import COLUMNS, PROMPT, ROWS, generate
from videodit import adapters, models
from videodit.adapters import LoRA
from videodit.autoencoder import DPVAESettings
from videodit.cli.main import main
from videodit.data import video
from videodit.generate import Generator
from videodit.given import mask_of
from videodit.request import Request, ranges, task_of
from videodit.shapes import Size, UserError

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asking.build(tmp_path_factory.mktemp("asked"))


@pytest.fixture
def model(folder: Path) -> Generator:
    return videodit.load(folder / "model")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shift", "nan"], "A shift of nan is out of range"),
        (["--sampler", "PNDM", "--steps", "1"], "PNDM cannot make 1 steps"),
        (["--sampler", "DDIM", "--steps", "2000"], "DDIM cannot make 2000 steps"),
        (["--sampler", ""], "There is no sampler ''"),
        (["--size", "0x0"], "is empty"),
        (["--task", "t2i", "--frames", "8"], "makes one frame, not 8"),
        (["--before", " "], "--before is empty"),
        (["--video", "clip.webp", "--before", PROMPT, "--region", "region.png"], "--region is not for an edit by --before"),
        (["--video", "clip.webp", "--before", PROMPT, "--strength", "0.5"], "--strength is not for an edit by --before"),
        (["--video", "clip.webp", "--before", PROMPT, "--sampler", "heun"], "--sampler is not for an edit by --before"),
        (["--video", "clip.webp", "--before", PROMPT, "--negative", "a star"], "--negative is not for an edit by --before"),
        (["--video", "clip.webp", "--frames", "8", "--strength", "0.4", "--sampler", "DDIM"], "DDIM begins at noise alone"),
        (["--video", "clip.webp", "--task", "predict", "--frames", "4"], "Half a clip of 4 frames is no whole group of 4"),
        (["--image", "picture-0.png", "--task", "i2v", "--frames", "1"], "makes a video from pictures, not one frame"),
        (["--video", "clip.webp", "--before", PROMPT, "--num", "2"], "draws no noise, so all would be alike"),
        (["--video", "."], "is no file"),
        (["--video", "clip.webp", "--strength", "0.5", "--frames", "16"], "has 12 frames, not 16"),
        (["--video", "clip.webp", "--frames", "8", "--region", "black.png"], "has nothing white in it"),
        (["--by", "sledge"], "There is no way 'sledge' to a longer video: use --by chunks, windows, cascade, queue."),
        (["--by", "queue", "--then", "a star"], "--then is not for --by queue (frame after frame"),
        (["--by", "windows", "--video", "clip.webp"], "leave it out, or use --by chunks."),
        (["--by", "windows", "--task", "t2v"], "--by is not for the task t2v (a video from text): leave it out, or use --task extend."),
        (["--by", "windows", "--frames", "26"], "26 frames do not fit: use 24 or 28"),
        (["--by", "windows", "--then", "a", "--then", "b", "--frames", "8"], "8 frames have no part that is made under"),
        (["--by", "cascade", "--frames", "26"], "26 frames do not fit: use 50 (8 frames, filled 7 times)."),
        (["--task", "infill", "--video", "clip.webp", "--frames", "9"], "9 frames do not fit: use 78 (12 frames, filled 7 times)."),
        (["--task", "infill", "--video", "picture-0.png"], "One frame has nothing between"),
        (["--task", "infill"], "needs --video"),
    ],
)
def test_what_cannot_be_asked_is_said(
    folder: Path, tmp_path: Path, options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("black.png")
    assert main(["generate", PROMPT, "--model", "model", "-o", str(tmp_path / "a.webp"), *options]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "a.webp").exists()


def test_a_picture_of_another_shape_is_cropped_to_fit(folder: Path, model: Generator) -> None:
    wide = Request(prompt=PROMPT, task="i2v", image=folder / "wide.png")
    assert wide.picture(wide.image, model).shape == (ROWS, COLUMNS, 3)
    assert wide.make(model).shape == (*tiny.CLIP, 3)


def test_the_last_prompt_is_read_before_the_first_clip_is_made(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\n{'red ' * 100}\n", encoding="utf-8")
    options = ["--model", str(folder / "model"), "--prompts", str(tmp_path / "prompts.txt"), "--steps", "1"]
    assert main(["generate", "-o", str(tmp_path / "a.png"), *options]) == 2
    assert "tokens: use at most" in capsys.readouterr().err and not list(tmp_path.glob("*.png"))


def test_adapters_are_merged_as_often_as_they_say(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = models.load_backbone(folder / "model")
    adapters.attach(network, LoRA(rank=2))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_B." in name:
                parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    adapters.save(tmp_path / "lora", network)
    options = [PROMPT, "--steps", 1, "--lora"]
    plain, none, half, whole = (
        generate(folder, tmp_path / "a.webp", *(options[:-1] if scale is None else [*options, f"{tmp_path / 'lora'}={scale}"]))
        for scale in (None, 0, 0.5, 1)
    )
    assert np.array_equal(plain, none) and not np.array_equal(half, whole) and not np.array_equal(whole, plain)
    capsys.readouterr()
    again = generate(folder, tmp_path / "b.webp", "--like", tmp_path / "a.webp")
    assert np.array_equal(again, whole) and "may differ" not in capsys.readouterr().err
    wrongs = {f"{tmp_path / 'lora'}={scale}": "with a number such as 0.8" for scale in ("much", "nan")}
    for wrong, said in (wrongs | {str(tmp_path): "There are no adapters in"}).items():
        assert main(["generate", PROMPT, "-o", str(tmp_path / "c.webp"), "--lora", wrong]) == 2
        assert said in capsys.readouterr().err


def test_edits_of_one_video_differ_by_their_number_and_hear_of_a_shift(folder: Path, model: Generator) -> None:
    one = Request(prompt=PROMPT, task="edit", video=folder / "clip.webp", frames=8, strength=0.7, steps=2)
    plain, other = one.make(model), replace(one, number=1).make(model)
    assert not np.array_equal(plain, other) and np.array_equal(plain, replace(one, number=0).make(model))
    with pytest.warns(UserWarning, match="samples with 9"):
        assert not np.array_equal(plain, replace(one, shift=9.0).make(model))


def test_what_is_given_says_the_task() -> None:
    image, clip = Path("a.png"), Path("a.mp4")
    wanted = {
        "t2v": Request(),
        "i2v": Request(image=image),
        "interpolate": Request(image=image, last=image),
        "extend": Request(video=clip),
        "complete": Request(video=clip, keep="0-3"),
        "edit": Request(video=clip, strength=0.3),
    }
    assert {name: task_of(one) for name, one in wanted.items()} == {name: name for name in wanted}
    assert (
        task_of(Request(then=("b",))) == "extend"
        and task_of(Request(last=image)) == "i2v"
        and task_of(Request(video=clip, before="x")) == "edit"
        and task_of(Request(by="windows")) == "extend"
    )


def test_ranges_of_frames() -> None:
    assert ranges("0-3, 12", 16) == [0, 1, 2, 3, 12] and ranges("5", 16) == [5]
    for wrong in ("a", "3-1", "0-", "-3", "1,,2", ""):
        with pytest.raises(UserError, match="--keep takes frames such as"):
            ranges(wrong, 16)
    for beyond in ("0-99999", "0-3,50-60", "50", "17-20"):
        with pytest.raises(UserError, match="beyond the last frame, 15"):
            ranges(beyond, 16)


@pytest.mark.parametrize(("task", "keep", "frames"), [("predict", "", 8), ("complete", "0-3", 8), ("edit", "", 4)])
def test_of_a_long_video_only_what_is_used_is_read(
    task: str, keep: str, frames: int, folder: Path, model: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, most = video.read, []
    monkeypatch.setattr(video, "read", lambda path, **how: most.append(how.get("frames")) or read(path, **how))
    Request(prompt=PROMPT, task=task, video=folder / "clip.webp", keep=keep, frames=frames, steps=1).make(model)
    assert most and None not in most and max(most) <= 8


def test_a_clip_too_short_to_be_given_is_said(folder: Path, model: Generator) -> None:
    with pytest.raises(UserError, match="has 12 frames, too few"):
        Request(prompt=PROMPT, task="complete", video=folder / "clip.webp", keep="12-15", frames=16).make(model)


def test_what_a_clip_is_predicted_from_are_whole_groups_where_the_first_frame_stands_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = DPVAESettings(time=4, reach="causal", keys=False, first="alone")
    model, told = Generator(tiny.model(tiny.dpvae(settings=groups), Size(17, ROWS, COLUMNS))), []
    made = np.zeros((1, *model.size, 3), np.uint8)
    monkeypatch.setattr(Generator, "generate", lambda *given, **named: (told.append(named["given"]), made)[1])
    for frames, known in ((17, 5), (9, 1), (2, 1)):
        Request(prompt=PROMPT, task="predict", video=folder / "clip.webp", frames=frames).make(model)
        assert sorted(told[-1]) == list(range(known)) and mask_of(model.model.autoencoder, told[-1]).images == ()
