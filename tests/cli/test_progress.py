"""What long work tells while it lasts."""

from __future__ import annotations

import io
import re
import sys
from functools import partial
from pathlib import Path

import pytest

from videodit.cli.main import main
from videodit.train.progress import Progress, counting, told


class Terminal(io.StringIO):
    """A text that may say it is a terminal."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal():
    stream = Terminal(False)
    with Progress(stream, seconds=3600.0) as progress:
        for step in range(5, 9):
            progress.step(step, 8, {"loss": 1 / step})
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == ["step 5/8", "step 8/8"]
    assert stream.getvalue().endswith("loss 0.125\n")


def test_progress_is_a_bar_on_a_terminal():
    stream = Terminal(True)
    with Progress(stream) as progress:
        progress.step(1, 2, {"loss": 0.5})
        progress.step(2, 2, {"loss": 0.25})
    assert "2/2" in stream.getvalue() and "loss 0.25" in stream.getvalue()


def test_each_stage_has_the_peak_of_its_own_precision(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("videodit.train.progress.ceiling", lambda device, precision: {"bf16": 4e3, "fp32": 1e3}[precision])
    now, stream = [0.0], Terminal(False)
    monkeypatch.setattr("videodit.train.progress.time.monotonic", lambda: now[0])
    with Progress(stream, seconds=0.0) as progress:
        for precision in ("bf16", "fp32", "bf16"):
            progress.begins("cpu", precision)
            for step in (7, 8):  # as many as the stage before had done
                now[0] += 1
                progress.step(step, 8, {"tokens": 50.0, "operations": 500.0})
    told = stream.getvalue().splitlines()
    assert [line.split(", ")[2] for line in told[1::2]] == [f"50 tokens/s ({share} % of peak)" for share in (12, 50, 12)]
    assert all("tokens/s" not in line for line in told[::2])  # the first step of a stage is no span of time


def test_what_is_counted_is_a_line_now_and_then_where_there_is_no_terminal():
    silent, told_often, terminal = Terminal(False), Terminal(False), Terminal(True)
    for stream, seconds in ((silent, 3600.0), (told_often, 0.0), (terminal, 3600.0)):
        count = counting("clips encoded", stream, seconds=seconds)
        for done in range(1, 4):
            count(done, 3)
    assert silent.getvalue() == ""
    assert [line.split(",")[0] for line in told_often.getvalue().splitlines()] == [f"clips encoded: {done}/3" for done in range(1, 4)]
    assert terminal.getvalue().count("\n") == 1 and "3/3" in terminal.getvalue()


def test_what_is_counted_has_a_rate_and_a_time_left(monkeypatch: pytest.MonkeyPatch):
    """Of work taken up in its middle as well, and of one work after another."""
    now = [0.0]
    monkeypatch.setattr("videodit.train.progress.time.monotonic", lambda: now[0])
    for shown in (True, False):
        stream = Terminal(shown)
        count = counting("files read", stream, each="file", seconds=20.0)
        for seconds, done, total in ((30, 50, 100), (5, 60, 100), (35, 70, 100), (1, 100, 100), (1, 1, 5), (61, 2, 5), (1, 5, 5)):
            now[0] += seconds
            count(done, total)
        told = [line.strip() for line in stream.getvalue().replace("\r", "\n").splitlines() if line.strip()]
        expected = [
            "files read: 50/100",
            "files read: 60/100, 2 files/s, 0 min 20 s left",
            "files read: 70/100, 2 s/file, 1 min 00 s left",
            "files read: 100/100, 1.22 files/s",
            "files read: 1/5",
            "files read: 2/5, 61 s/file, 3 min 03 s left",
            "files read: 5/5, 15.5 s/file",
        ]
        assert told == [line for number, line in enumerate(expected) if shown or number not in (1, 4)]


@pytest.mark.parametrize("shown", [True, False])
def test_generating_shows_a_rate_and_the_time_left(shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stream = Terminal(shown)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("videodit.train.progress.counting", partial(counting, seconds=0.0))
    assert main(["generate", "a red circle moves right", "-o", str(tmp_path / "a.png"), "--steps", "3", "--json"]) == 0
    assert re.search(r"steps: 2/3, [\d.]+ (steps/s|s/step), 0 min \d\d s left", stream.getvalue())
    assert ("\r" in stream.getvalue()) == shown


def test_one_process_of_a_launch_talks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    stream = Terminal(False)
    Progress(stream).step(1, 1, {"loss": 1.0})
    assert stream.getvalue() == ""


def test_a_slow_run_counts_seconds_a_step():
    assert told(0.25, {"loss": 0.5}) == "4 s/step, loss 0.5"
    assert told(2.5, {}) == "2.5 steps/s"
