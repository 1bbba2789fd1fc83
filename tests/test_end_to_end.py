"""The whole way on the command line: four stages of training at a tiny size, then a prompt becomes a file that the judge looks at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from videodit.data.video import read
from videodit.evaluate.toybox import Verdict, judge

RUNS = Path(__file__).parents[1] / "runs"
SMALL = ["steps=3", "batch=4", "precision=fp32", "checkpoint.every=2"]
CLIPS = ["size=[8, 16, 16]", "then=[['size=[8, 32, 32]']]", "clips=8", "pictures=8"]  # two stages, in the last of the run files
TEXT = ["text.width=16", "text.depth=1", "text.heads=2", "clips=8", "pictures=8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def videodit(folder: Path, *arguments: str) -> dict:
    """Run the command as a user does, and return the JSON object it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "JAXTYPING_DISABLE": "1"}
    command = [sys.executable, "-m", "videodit", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """The model that the four stages leave."""
    stages = {
        "image_autoencoder": ["preset=tiny", "size=[1, 32, 32]"],
        "autoencoder": ["size=[8, 32, 32]", "batch=1"],
        "image": ["preset=toybox-tiny", "size=[1, 32, 32]", *TEXT],
        "video": CLIPS,
    }
    for name, changes in stages.items():
        said = videodit(folder, "train", str(RUNS / f"toybox_{name}.toml"), *SMALL, *changes)
        assert said["model"] == f"out/toybox_{name}/model" and said["steps_now"] == (6 if name == "video" else 3)
        output = folder / "out" / f"toybox_{name}"
        assert (output / "model").is_dir() and (output / "checkpoints" / "step-00000003").is_dir()
    return output / "model"


def test_a_prompt_becomes_a_video(folder: Path, trained: Path) -> None:
    made = videodit(folder, "generate", "a red circle moves right", "--model", str(trained), "--steps", "2", "-o", "circle.mp4")
    assert made["size"] == [8, 32, 32] and made["files"] == ["circle.mp4"]
    frames, fps = read(folder / "circle.mp4")
    assert frames.shape == (8, 32, 32, 3) and fps == made["fps"]
    assert isinstance(judge(frames), Verdict)


def test_a_prompt_becomes_a_picture(folder: Path, trained: Path) -> None:
    videodit(folder, "generate", "a red circle", "--model", str(trained), "--frames", "1", "--steps", "2", "-o", "circle.png")
    assert Image.open(folder / "circle.png").size == (32, 32)


def test_the_model_is_measured(folder: Path, trained: Path) -> None:
    said = videodit(folder, "evaluate", "toybox", "--model", str(trained), "--count", "2", "--steps", "2")
    assert said["count"] == 2
    assert all(0 <= rate <= 1 for name in ("model", "rebuilt", "truth", "shuffled") for rate in said[name].values())


def test_the_same_command_again_has_nothing_to_do(folder: Path, trained: Path) -> None:
    before = (trained / "backbone.safetensors").read_bytes()
    said = videodit(folder, "train", str(RUNS / "toybox_video.toml"), *SMALL, *CLIPS)
    assert said["steps_now"] == 0 and (trained / "backbone.safetensors").read_bytes() == before
