"""A clip says how it was made and is made again from that, and finds the models that made it, here and beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

import asking
import videodit
from asking import PROMPT, VIDEO, generate
from videodit import adapters, folders, kernels, record, request
from videodit.cli.main import main
from videodit.data import video
from videodit.generate import Generator
from videodit.request import TASKS, WAYS, Request

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asking.build(tmp_path_factory.mktemp("asked"))


@pytest.fixture
def model(folder: Path) -> Generator:
    return videodit.load(folder / "model")


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


# --- Models by name and digest ---


def other(folder: Path, fps: int) -> Path:
    """A folder that says something else of the bundled model."""
    folder.mkdir(parents=True)
    said = (folders.bundled() / "model.toml").read_text(encoding="utf-8")
    (folder / "model.toml").write_text(said.replace("fps = 8.0", f"fps = {fps}.0"), encoding="utf-8")
    return folder


def found(model: Path | str, upscale: Path | str = "") -> dict[str, Any]:
    return json.loads(record.record(Request(prompt="a", upscale=str(upscale)), str(model)))


def test_a_folder_that_is_called_as_the_bundled_model_is_found_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, clip = other(tmp_path / "toybox", 9), tmp_path / "clip.mp4"
    assert record.model_of(found(own), clip) == record.second_of(found("toybox", own), clip) == str(own)
    assert record.model_of(found("toybox"), clip) == record.second_of(found(own, "toybox"), clip) == "toybox"
    assert record.model_of(found(other(tmp_path / "changed" / "toybox", 7)), clip) == "toybox"  # which is here no more
    monkeypatch.chdir(tmp_path)
    assert record.model_digest(record.model_of(found(own), tmp_path / "elsewhere" / "clip.mp4")) == record.model_digest(str(own))


def test_of_two_folders_of_one_name_the_one_that_made_a_clip_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, beside = other(tmp_path / "here" / "model", 9), other(tmp_path / "there" / "model", 7)
    monkeypatch.chdir(tmp_path / "here")
    for model in (here, beside):
        assert record.model_of(found(model), tmp_path / "there" / "clip.mp4") == str(model)
    gone = found(other(tmp_path / "gone" / "model", 6))
    assert record.model_of(gone, Path("../there/clip.mp4")) == str(here)


def test_a_record_holds_the_versions_and_kernels_that_shape_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's where it writes or reads pictures alone."""
    picture = tmp_path / "first.png"
    picture.write_bytes(b"a")
    for image, suffix, pictures in (
        (None, ".mp4", False),
        (None, ".gif", False),
        (None, ".WebP", True),
        (None, ".png", True),
        (picture, ".mp4", True),
    ):
        one = Request(prompt="a", image=image)
        where = json.loads(record.record(one, "toybox", suffix))["machine"]
        assert set(where) == {"videodit", "torch", "diffusers", "numpy", "av", "threads", "cpu", "kernels"} | (
            {"pillow"} if pictures else set()
        )
        assert where["kernels"] == {
            "mkldnn": "on" if torch.backends.mkldnn.is_available() else "off",
            "onednn": "there" if kernels.available() else "missing",
        }
        assert where["numpy"] == np.__version__ and where.get("pillow", PIL.__version__) == PIL.__version__
    before = found("toybox")
    assert record.differences(before, Request(prompt="a"), "toybox") == []  # Pillow writes none
    was = before["machine"]["kernels"]
    now, was["mkldnn"] = was["mkldnn"], "off" if was["mkldnn"] == "on" else "on"
    said = record.differences(before, Request(prompt="a"), "toybox")
    assert said == [f"kernels.mkldnn was {was['mkldnn']!r}, is {now!r}"]
    assert record.differences(found("toybox"), Request(prompt="a"), "toybox") == []


def test_what_an_older_record_does_not_say_is_no_difference() -> None:
    old = found("toybox")
    old["machine"] = {key: old["machine"][key] for key in ("videodit", "torch", "av", "threads", "cpu")}
    assert record.differences(old, Request(prompt="a"), "toybox") == []
    old["machine"] |= {"torch": "0.1", "kernels": 5}
    assert record.differences(old, Request(prompt="a"), "toybox") == [f"torch was '0.1', is {record.machine()['torch']!r}"]
