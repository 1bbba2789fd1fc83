"""The page "On your own clips" leads from a folder of clips to a video, in an empty directory, by copy and paste."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from videodit.data.video import read

PAGE = Path(__file__).parents[1] / "docs" / "train.md"
BRIEF = {"train": ["steps=2"], "generate": ["--steps", "2"]}  # beside what the page says


def section() -> str:
    return PAGE.read_text(encoding="utf-8").partition("\n## On your own clips\n")[2].partition("\n### ")[0]


def commands() -> list[list[str]]:
    """Of the first block; in what follows MODEL has to be filled in."""
    (block, *_) = re.findall(r"(?:^    videodit .+\n)+", section(), re.MULTILINE)
    return [shlex.split(line)[1:] for line in block.splitlines()]


def typed(here: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "JAXTYPING_DISABLE": "1"}
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_the_page_names_every_verb_of_the_way() -> None:
    assert [verb for verb, *_ in commands()] == ["audit", "prepare", "train", "generate", "generate"]
    assert any(word.startswith("lora.") for word in commands()[2]) and commands()[1][1:] == commands()[2][1:]


@pytest.mark.slow
def test_a_newcomer_gets_from_clips_to_a_video(tmp_path: Path) -> None:
    (drawing,) = re.findall(r"```python\n(.*?)```", section(), re.DOTALL)
    typed(tmp_path, sys.executable, "-c", drawing)
    assert len(list((tmp_path / "my-clips").glob("*.mp4"))) == 10
    told = [
        json.loads(typed(tmp_path, sys.executable, "-m", "videodit", verb, *rest, *BRIEF.get(verb, ()), "--json").stdout)
        for verb, *rest in commands()
    ]
    audited, prepared, trained, *made = told
    assert audited["totals"]["good"] == 10 and len((tmp_path / "good.jsonl").read_text().splitlines()) == 10
    assert prepared["clips"] == prepared["captions"] == 10 and (tmp_path / "sheet.png").is_file()
    assert trained["steps"] == 2 and trained["model"] == "out/own_clips/model"
    cached = len(list((tmp_path / "out" / "cache").iterdir()))
    assert cached == prepared["entries"]  # nothing was encoded again
    for clip in made:
        frames, fps = read(tmp_path / clip["files"][0])
        assert frames.shape == (16, 64, 64, 3) and fps == 8
