"""A request is checked, made the same way by the command line and by Python, and read back from the clip it made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
import videodit
from videodit import adapters, backbone, models, record, request
from videodit.adapters import LoRA
from videodit.autoencoder import DPVAESettings
from videodit.cli.main import main
from videodit.data import video
from videodit.diffusion.times import Times
from videodit.extend import at_once, cascade, infilled, rolled
from videodit.generate import Generator
from videodit.given import mask_of
from videodit.models import Model
from videodit.request import TASKS, WAYS, Request, ranges, task_of
from videodit.shapes import Size, UserError

pytestmark = pytest.mark.usefixtures("unchecked")
PROMPT = "a red circle moves right"
FRAMES, ROWS, COLUMNS = tiny.CLIP
VIDEO = np.random.default_rng(0).integers(0, 256, (12, ROWS, COLUMNS, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is told of given frames, and files to give it."""
    here = tmp_path_factory.mktemp("asked")
    made = tiny.model(tiny.dpvae(trained=True), tiny.CLIP)
    network = backbone.build(replace(made.backbone.settings, given="time", rotary="time"))
    network.load_state_dict(made.backbone.state_dict())
    settings = replace(made.settings, backbone=network.settings, times=Times(each="frame"))
    models.save(here / "model", Model(settings, made.autoencoder, made.text, network))
    for i in (0, 1):
        Image.fromarray(VIDEO[i]).save(here / f"picture-{i}.png")
    Image.fromarray(np.repeat(np.repeat(VIDEO[0], 3, 0), 2, 1)).save(here / "wide.png")
    mask = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    mask[:, 16:] = 255
    Image.fromarray(mask).save(here / "region.png")
    video.write(here / "clip.webp", VIDEO, 8)
    return here


@pytest.fixture
def model(folder: Path) -> Generator:
    return videodit.load(folder / "model")


def generate(folder: Path, out: Path, *options: object) -> np.ndarray:
    assert main(["generate", "--model", str(folder / "model"), "-o", str(out), *map(str, options)]) == 0
    return video.read(out)[0]


def asked(folder: Path, task: str) -> tuple[Request, list[object]]:
    """A request of each task, and the options that say it."""
    files = {"image": folder / "picture-0.png", "last": folder / "picture-1.png", "video": folder / "clip.webp"}
    by_task: dict[str, dict[str, object]] = {
        "t2v": {},
        "t2i": {"frames": 1},
        "i2v": {"image": files["image"]},
        "interpolate": {"image": files["image"], "last": files["last"]},
        "predict": {"video": files["video"]},
        "complete": {"video": files["video"], "keep": "0,4-7"},
        "extend": {"video": files["video"], "frames": 18},
        "edit": {"video": files["video"], "region": folder / "region.png", "strength": 0.5, "frames": 8},
        "infill": {"video": files["video"]},
        "extend by chunks": {"by": "chunks", "frames": 18},
        "extend by windows": {"by": "windows", "frames": 20, "then": ("a blue star", "a red star")},
        "extend by cascade": {"by": "cascade"},
        "extend by queue": {"by": "queue", "frames": 18},
    }
    fields = {"seed": 4, "steps": 2, **by_task[task]}
    pairs = [(name, one) for name, value in fields.items() for one in (value if isinstance(value, tuple) else [value])]
    options, task = [word for name, one in pairs for word in (f"--{name}", one)], task.split()[0]
    return Request(prompt=PROMPT, task=task, **fields), [PROMPT, "--task", task, *options]  # pyright: ignore[reportArgumentType]


ASKED = [task for task in TASKS if task != "upscale"]  # which asks another model: tests/test_upscale.py


@pytest.mark.parametrize("task", [*ASKED, *(f"extend by {way}" for way in WAYS)])
def test_the_command_line_is_python_and_a_clip_says_how_to_make_it_again(
    task: str, folder: Path, model: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, options = asked(folder, task)
    request.check(one)
    by_python = one.make(model)
    by_command = generate(folder, tmp_path / "a.webp", *options)
    assert np.array_equal(by_python, by_command) and by_python.std() > 1
    note = json.loads(video.read_note(tmp_path / "a.webp"))
    assert note["videodit"]["task"] == one.task and note["videodit"].get("by", "") == one.by and "/" not in str(note["videodit"])
    assert note["machine"]["threads"] == torch.get_num_threads()
    monkeypatch.chdir(folder)  # where the files that were given are
    capsys.readouterr()
    assert main(["generate", "--like", str(tmp_path / "a.webp"), "-o", str(tmp_path / "b.webp")]) == 0
    assert "may differ" not in capsys.readouterr().err
    assert (tmp_path / "a.webp").read_bytes() == (tmp_path / "b.webp").read_bytes()


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
def test_every_kind_of_file_carries_its_record(suffix: str, folder: Path, tmp_path: Path) -> None:
    generate(folder, tmp_path / f"a{suffix}", PROMPT, "--steps", 1)
    assert record.read_record(tmp_path / f"a{suffix}")["videodit"] == {"prompt": PROMPT, "task": "t2v", "seed": 0, "number": 0, "steps": 1}
    generate(folder, tmp_path / f"b{suffix}", "--like", tmp_path / f"a{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_options_change_what_they_name_and_a_number_keeps_its_noise(folder: Path, tmp_path: Path) -> None:
    assert main(["generate", PROMPT, "--model", str(folder / "model"), "-o", str(tmp_path / "a.webp"), "--steps", "2", "--num", "2"]) == 0
    second = tmp_path / "a-001.webp"
    assert np.array_equal(generate(folder, tmp_path / "same.webp", "--like", second), video.read(second)[0])
    other = generate(folder, tmp_path / "other.webp", "--like", second, "--seed", 9)
    assert not np.array_equal(other, video.read(second)[0])
    assert record.read_record(tmp_path / "other.webp")["videodit"]["seed"] == 9


def test_what_is_not_as_it_was_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(VIDEO[0]).save(tmp_path / "first.png")
    generate(folder, tmp_path / "a.webp", PROMPT, "--steps", 1, "--image", tmp_path / "first.png")
    Image.fromarray(VIDEO[5]).save(tmp_path / "first.png")
    monkeypatch.setattr(record, "machine", lambda **_: {"torch": "9.9", "threads": 64})
    capsys.readouterr()
    generate(folder, tmp_path / "b.webp", "--like", tmp_path / "a.webp")
    said = capsys.readouterr().err
    assert "may differ" in said and "torch was" in said and "is '9.9'" in said and "threads was" in said
    assert "--image is not the file that was used" in said
    video.write(tmp_path / "c.webp", VIDEO, 8)
    assert main(["generate", "--like", str(tmp_path / "c.webp"), "-o", str(tmp_path / "d.webp")]) == 2
    assert "does not say how it was made" in capsys.readouterr().err


RECORD = {"videodit": {"prompt": PROMPT, "task": "t2v"}, "model": {"name": "toybox", "digest": ""}, "inputs": {}, "machine": {}}
ODD = [
    *({"videodit": {**RECORD["videodit"], key: value}} for key, value in [  # pyright: ignore
        ("steps", "a"), ("steps", 1.5), ("steps", 10**30), ("steps", True), ("seed", "0"), ("seed", -1), ("number", 10**40),
        ("frames", "4"),
        ("frames", 10**9), ("fps", [8]), ("fps", 0), ("guidance", "x"), ("prompt", 5), ("prompt", None), ("task", {}),
        ("task", "v2v"),
        ("sampler", 5), ("then", "x"), ("then", [5]), ("lora", 5), ("video", 5), ("shift", float("inf")), ("shift", float("nan")),
        ("odd", 1),
    ]),
    *({"model": value} for value in (None, 5, [], {}, {"name": 5}, {"name": "/somewhere/else"})),
    *({"inputs": value} for value in (None, 5, [1], {"a": 5})),
    *({"machine": value} for value in (None, 5, [])),
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_a_strangers_record_is_checked_before_it_is_believed(odd: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video.write(tmp_path / "a.gif", VIDEO[:2], 8, note=json.dumps({**RECORD, **odd}))
    assert main(["generate", "--like", str(tmp_path / "a.gif"), "-o", str(tmp_path / "b.mp4")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("videodit: ") and not (tmp_path / "b.mp4").exists()


def test_a_record_leads_nowhere_and_prints_nothing_odd(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files are looked for by name, here and beside the clip; control characters are not printed."""
    one = {
        **RECORD,
        "machine": {"torch": "\x1b[2J\n", "evil\n": 1},
        "videodit": {**RECORD["videodit"], "task": "i2v", "image": "/etc/hostname"},
    }
    video.write(tmp_path / "a.gif", VIDEO[:2], 8, note=json.dumps(one))
    assert main(["generate", "--like", str(tmp_path / "a.gif"), "-o", str(tmp_path / "b.mp4")]) == 2
    assert f"{tmp_path / 'hostname'} is not there" in capsys.readouterr().err
    one["videodit"] = {**RECORD["videodit"], "steps": 1}
    video.write(tmp_path / "a.gif", VIDEO[:2], 8, note=json.dumps(one))
    assert main(["generate", "--like", str(tmp_path / "a.gif"), "--model", str(folder / "model"), "-o", str(tmp_path / "b.mp4")]) == 0
    said = capsys.readouterr().err
    assert "\x1b" not in said and "evil" not in said and "the model was" in said


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


def test_a_picture_of_another_shape_is_cropped_to_fit(folder: Path, model: Generator) -> None:
    wide = Request(prompt=PROMPT, task="i2v", image=folder / "wide.png")
    assert wide.picture(wide.image, model).shape == (ROWS, COLUMNS, 3)
    assert wide.make(model).shape == (*tiny.CLIP, 3)


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


def test_adapters_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for run in ("one", "other"):
        (tmp_path / run / "lora").mkdir(parents=True)
        (tmp_path / run / "lora" / adapters.PEFT).write_text(run)
    paths = tuple(str(tmp_path / run / "lora") for run in ("one", "other"))
    found = json.loads(record.record(Request(prompt=PROMPT, lora=paths), "toybox"))
    assert record.differences(found, Request(prompt=PROMPT, lora=paths), "toybox") == []
    said = record.differences(found, Request(prompt=PROMPT, lora=(paths[1], paths[1])), "toybox")
    precise = json.loads(record.record(Request(prompt=PROMPT, lora=(f"{paths[0]}=0.123456789",)), "toybox"))
    assert precise["videodit"]["lora"] == ["lora=0.123456789"]
    assert said == ["--lora lora is not the file that was used"]


def test_edits_of_one_video_differ_by_their_number_and_hear_of_a_shift(folder: Path, model: Generator) -> None:
    one = Request(prompt=PROMPT, task="edit", video=folder / "clip.webp", frames=8, strength=0.7, steps=2)
    plain, other = one.make(model), replace(one, number=1).make(model)
    assert not np.array_equal(plain, other) and np.array_equal(plain, replace(one, number=0).make(model))
    with pytest.warns(UserWarning, match="samples with 9"):
        assert not np.array_equal(plain, replace(one, shift=9.0).make(model))


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


def test_a_filled_video_lasts_as_long_and_becomes_the_nearest_length(folder: Path, model: Generator) -> None:
    one = Request(prompt=PROMPT, task="infill", video=folder / "clip.webp")
    assert request.paced(one, model).fps == 8 * 7 and request.paced(replace(one, fps=9.0), model).fps == 9
    longer = Generator(replace(model.model, settings=replace(model.model.settings, size=Size(16, ROWS, COLUMNS))))
    asked = Request(prompt=PROMPT, task="extend", by="cascade")
    assert [request.fitting(replace(asked, frames=n), longer).frames for n in (2, 60, 61, 150, 151, 999)] == [46, 46, 76, 76, 226, 226]
    assert [request.fitting(replace(one, frames=n), longer).frames for n in (2, 45, 999)] == [34, 56, 166]
    with pytest.raises(UserError, match=r"60 frames do not fit: use 46 or 76 \(16 frames, filled 3 or 5 times\)"):
        replace(asked, frames=60).make(longer)


@pytest.mark.parametrize(
    ("way", "said"), [("queue", "trained at one time each clip"), ("cascade", "was not trained to go on from given frames")]
)
def test_a_way_that_a_model_cannot_go_is_said(
    way: str, said: str, world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", PROMPT, "--model", str(world.video_model), "-o", str(tmp_path / "a.webp"), "--by", way]) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


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
    assert request.fitting(one, model).frames == made


def test_an_edit_that_is_rounded_says_so(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video.write(tmp_path / "clip.webp", np.concatenate([VIDEO, VIDEO])[:11], 8)
    options = [PROMPT, "--video", tmp_path / "clip.webp", "--strength", 0.3, "--steps", 2, "--round"]
    for more in ([], ["--frames", 11]):
        assert len(generate(folder, tmp_path / "a.webp", *options, *more)) == 8
        assert "11 frames do not fit; 8 are made" in capsys.readouterr().err


def test_frames_are_rounded_to_whole_tokens(model: Generator) -> None:
    shape = replace(backbone.PRESETS["latte-xl-v2-tiny"], tube=2)
    wide = Generator(replace(model.model, settings=replace(model.model.settings, backbone=shape)))
    assert [request.fitting(Request(frames=frames), wide).frames for frames in (4, 9, 12, 16)] == [8, 8, 16, 16]
