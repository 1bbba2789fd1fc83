"""Ctrl-C while a video is made: within a step nothing more is done, and no half file is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from videodit.backbone import DualTransformer
from videodit.cli.main import main
from videodit.data import video
from videodit.train import progress

pytestmark = pytest.mark.usefixtures("unchecked")
ENDINGS = (".mp4", ".gif", ".webp", ".png")


@pytest.fixture(autouse=True)
def pythons_own() -> Any:
    """The signal is answered as Python does, whatever ran before."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One for each time that the network is asked."""
    asked, plain = [], DualTransformer.forward
    monkeypatch.setattr(DualTransformer, "forward", lambda *told, **more: (asked.append(1), plain(*told, **more))[1])
    return asked


def stopping_at(monkeypatch: pytest.MonkeyPatch, clip: int, step: int) -> list[tuple[int, int]]:
    """Ctrl-C after a step of a clip; what was told until then."""
    told: list[tuple[int, int]] = []
    clips = iter(range(1000))

    def counting(name: str, each: str = "step") -> Callable[[int, int], None]:
        number = next(clips)

        def count(now: int, steps: int) -> None:
            told.append((number, now))
            if (number, now) == (clip, step):
                ctrl_c()

        return count

    monkeypatch.setattr(progress, "counting", counting)
    return told


def command(world: tiny.World, out: Path, *more: str) -> list[str]:
    return ["generate", "a star", "--model", str(world.video_model), "-o", str(out), "--steps", "6", *more]


@pytest.mark.parametrize("sampler", ["euler", "ancestral", "UniPCMultistep"])
@pytest.mark.parametrize("there", [False, True])
def test_ctrl_c_between_steps_ends_the_work_and_writes_nothing(
    world: tiny.World, tmp_path: Path, sampler: str, there: bool, looks: list[int], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """What stood in the file's place stays."""
    told, out = stopping_at(monkeypatch, 0, 2), tmp_path / "out.mp4"
    if there:
        out.write_bytes(b"an older film")
    assert main(command(world, out, "--sampler", sampler)) == 130
    assert told == [(0, 1), (0, 2)] and len(looks) == 2 and "Stopped." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"] * there
    assert not there or out.read_bytes() == b"an older film"


def test_ctrl_c_in_the_second_video_leaves_the_first_whole(
    world: tiny.World, tmp_path: Path, looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping_at(monkeypatch, 1, 3)
    assert main(command(world, tmp_path / "out.mp4", "--num", "3", "--preview", "2")) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-000-preview.png", "out-000.mp4", "out-001-preview.png"]
    assert len(video.read(tmp_path / "out-000.mp4")[0]) == tiny.CLIP.frames and len(looks) == 6 + 3


@pytest.mark.parametrize("ending", ENDINGS)
def test_ctrl_c_while_a_file_is_written_leaves_none(
    world: tiny.World, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With half of it there, after the frames and before the last bytes."""
    writer, held = video._WRITERS[ending], []

    def half(path: Path, *rest: Any) -> None:
        writer(path, *rest)
        os.truncate(path, path.stat().st_size // 2)
        held.extend(tmp_path.iterdir())
        ctrl_c()
        os.truncate(path, 0)

    monkeypatch.setitem(video._WRITERS, ending, half)
    assert main(command(world, tmp_path / f"out{ending}")) == 130
    assert len(held) == 1 and not list(tmp_path.iterdir())


class Filled:
    """A file that FFmpeg holds open, and Ctrl-C once so many parts are written."""

    def __init__(self, container: Any, most: int, there: Callable[[], None]) -> None:
        self.container, self.most, self.there, self.parts = container, most, there, 0

    def __enter__(self) -> Filled:
        self.container.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.container.__exit__(*raised)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.container, name)

    def mux(self, packets: Any) -> None:
        self.parts += 1
        self.container.mux(packets)
        if self.parts == self.most:
            self.there()
            ctrl_c()


@pytest.mark.parametrize(("ending", "part"), [(".mp4", tiny.CLIP.frames + 1), (".gif", 3)])
def test_ctrl_c_between_frames_of_a_file_leaves_none(
    world: tiny.World, tmp_path: Path, ending: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An .mp4's come when the last is in, before its index is written."""
    plain, held, made = video.av.open, [], []

    def opened(*told: Any, **more: Any) -> Filled:
        made.append(Filled(plain(*told, **more), part, lambda: held.extend(path.suffix for path in tmp_path.iterdir())))
        return made[-1]

    monkeypatch.setattr(video.av, "open", opened)
    assert main(command(world, tmp_path / f"out{ending}")) == 130
    assert held == [ending] and made[-1].parts == part and not list(tmp_path.iterdir())
