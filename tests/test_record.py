"""A clip finds the models that made it, here and beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch

from videodit import folders, record
from videodit.backbone import attention
from videodit.request import Request


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
        assert where["kernels"] == {"attention": "fixed", "mkldnn": "on" if torch.backends.mkldnn.is_available() else "off"}
        assert where["numpy"] == np.__version__ and where.get("pillow", PIL.__version__) == PIL.__version__
    before = found("toybox")
    assert record.differences(before, Request(prompt="a"), "toybox") == []  # Pillow writes none
    monkeypatch.setitem(attention.CHOSEN, "attention float32 using 64 32", "plain")
    was = before["machine"]["kernels"]
    now, was["mkldnn"] = was["mkldnn"], "off" if was["mkldnn"] == "on" else "on"
    said = record.differences(before, Request(prompt="a"), "toybox")
    assert said[0] == "kernels.attention was 'fixed', is 'float32 using 64 32: plain'"
    assert said[1:] == [f"kernels.mkldnn was {was['mkldnn']!r}, is {now!r}"]
    assert record.differences(found("toybox"), Request(prompt="a"), "toybox") == []


def test_what_an_older_record_does_not_say_is_no_difference() -> None:
    old = found("toybox")
    old["machine"] = {key: old["machine"][key] for key in ("videodit", "torch", "av", "threads", "cpu")}
    assert record.differences(old, Request(prompt="a"), "toybox") == []
    old["machine"] |= {"torch": "0.1", "kernels": 5}
    assert record.differences(old, Request(prompt="a"), "toybox") == [f"torch was '0.1', is {record.machine()['torch']!r}"]
