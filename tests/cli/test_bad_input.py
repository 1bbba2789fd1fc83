"""Every mistake is one sentence on standard error and exit status 2, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from videodit.cli import generate
from videodit.cli.main import LATER, main

OUT = ["-o", "out.mp4"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sentence(arguments: list[str], capsys: pytest.CaptureFixture[str], status: int = 2) -> str:
    assert main(arguments) == status
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("videodit: ") and written.err.count("\n") == 1, written.err
    return written.err.strip()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "VERB"),
        (["gnerate"], "invalid choice: 'gnerate'"),
        (["generate", *OUT], "Nothing says what to generate"),
        (["generate", "a", "--prompts", "p.txt", *OUT], "exclude each other"),
        (["generate", "", *OUT], "The prompt is empty"),
        (["generate", " \n\t", *OUT], "The prompt is empty"),
        (["generate", "a\udcff", *OUT], "not UTF-8"),
        *((["generate", "a", option, "b\udcff", *OUT], "not UTF-8") for option in ("--negative", "--then", "--before")),
        (["generate", "a", "--then", "b", "--then", " ", *OUT], "--then is empty"),
        (["generate", "a"], "-o"),
        (["generate", "a", "-o", "out.avi"], ".mp4"),
        (["generate", "a", "-o", "out"], ".mp4"),
        (["generate", "a", "-o", "missing/out.mp4"], "missing"),
        (["generate", "a", "-o", "folder.mp4"], "is a directory"),
        (["generate", "a", "-o", "x" * 300 + ".mp4"], "File name too long"),
        (["generate", "a", "--num", "0", *OUT], "--num takes 1 to 100000, not 0."),
        (["generate", "a", "--frames", "0", *OUT], "--frames takes 1 to"),
        (["generate", "a", "--frames", "-3", *OUT], "--frames takes 1 to"),
        (["generate", "a", "--frames", "many", *OUT], "invalid int value: 'many'"),
        (["generate", "a", "--size", "64", *OUT], "64x64"),
        (["generate", "a", "--size", "64x-64", *OUT], "64x64"),
        (["generate", "a", "--steps", "0", *OUT], "--steps takes 1 to"),
        (["generate", "a", "--guidance", "nan", *OUT], "--guidance takes 0 to 100, not nan."),
        (["generate", "a", "--guidance", "inf", *OUT], "--guidance takes 0 to 100, not inf."),
        (["generate", "a", "--seed", "-1", *OUT], "--seed takes 0 to"),
        (["generate", "a", "--seed", str(2**70), *OUT], "--seed takes 0 to"),
        (["generate", "a", "--sed", "1", *OUT], "unrecognized arguments: --sed"),
        (["generate", "a", "--task", "v2v", *OUT], "There is no task 'v2v': use t2v, t2i, i2v"),
        (["generate", "a", "--task", "predict", *OUT], "needs --video: give it"),
        (["generate", "a", "--task", "interpolate", "--image", "empty.txt", *OUT], "needs --last: give it"),
        (["generate", "a", "--task", "t2v", "--image", "empty.txt", *OUT], "--image is not for the task t2v"),
        (["generate", "a", "--keep", "0-3", *OUT], "--keep is not for the task t2v"),
        (["generate", "a", "--image", "missing.png", *OUT], "--image missing.png is not there: name a picture"),
        (["generate", "a", "--video", "empty.txt", "--keep", "3-1", *OUT], "--keep takes frames such as 0-3,12-15, not '3-1'."),
        (["generate", "a", "--image", "empty.txt", *OUT], "cannot be read as a video or picture"),
        (["generate", "a", "--task", "i2v", *OUT], "give one by --image or --last"),
        (["generate", "a", "--strength", "0", *OUT], "--strength takes 0.01 to 1"),
        (["generate", "--like", "missing.mp4", *OUT], "missing.mp4 is not there"),
        (["generate", "--like", "empty.txt", *OUT], "cannot be read as a video"),
        (["generate", "a", "--sampler", "eulr", *OUT], "There is no sampler 'eulr': use euler"),
        (["generate", "a", "--shift", "-1", *OUT], "A shift of -1 is out of range"),
        (["generate", "a", "--frames", "15", *OUT], "15 frames do not fit: use 14 or 16"),
        (["generate", "--prompts", "missing.txt", *OUT], "missing.txt cannot be read"),
        (["generate", "--prompts", "folder.mp4", *OUT], "folder.mp4 cannot be read"),
        (["generate", "--prompts", "empty.txt", *OUT], "has no prompt"),
        (["generate", "--prompts", "binary.txt", *OUT], "not UTF-8"),
        (["generate", "a", "--model", "missing", *OUT], "The model missing does not exist"),
        (["generate", "a", "--model", "empty.txt", *OUT], "is a file"),
        (["train"], "RUN.toml"),
        (["train", "missing.toml"], "There is no file missing.toml"),
        (["train", "folder.mp4"], "Is a directory"),
        (["train", "binary.txt"], "not UTF-8"),
        (["train", "broken.toml"], "broken.toml is not valid TOML: Invalid value (at line 1, column 9)."),
        (["train", "empty.txt"], "empty.txt: kind takes one of"),
        (["train", "unknown.toml"], "unknown.toml: optimizer.lr is not a setting; did you mean optimizer.learning_rate?"),
        (["train", "good.toml", "steps=many"], 'steps=many: steps takes a whole number, not "many".'),
        (["train", "good.toml", "steps"], "write it as a.b=value"),
        (["train", "good.toml", "output=empty.txt"], "empty.txt cannot be written"),
        (["plan", "missing.toml"], "There is no file missing.toml"),
        (["config", "image-autoencodr"], "did you mean image-autoencoder?"),
        (["config", "zzz"], "zzz is no kind of run"),
        (["config", "missing.toml"], "There is no file missing.toml"),
        (["evaluate"], "WHAT"),
        (["evaluate", "beauty"], "invalid choice: 'beauty'"),
        (["evaluate", "fvd", "a", "b"], "There is no a: name a folder of videos, a list of them, or toybox."),
        (["evaluate", "fvd", "toybox", "toybox"], "i3d needs its weights: name their file by --weights"),
        (["evaluate", "fvd", "toybox", "toybox", "--extractor", "vgg"], "There is no extractor 'vgg': use random-3d, flow"),
        (["evaluate", "fvd", "toybox", "toybox", "--protocol", "mine"], "invalid choice: 'mine'"),
        (["evaluate", "fvd", "toybox", "folder.mp4", "--extractor", "flow"], "There is no video or picture in folder.mp4"),
        (["evaluate", "motion", "toybox", "toybox", "--count", "0"], "--count takes 1 to"),
        (["evaluate", "motion", "toybox", "toybox", "--size", "0x8"], "--size takes rows and columns from 1"),
        (["evaluate", "motion", "toybox", "toybox", "--resamples", "-1"], "--resamples takes 0 to 1000000, not -1."),
        (["evaluate", "motion", "toybox", "toybox", "--out", "missing/a.json"], "There is no directory missing"),
        (["evaluate", "motion", "toybox", "toybox", "--count", "2", "--frames", "2"], "Motion needs 3 frames"),
        (["evaluate", "motion", "toybox", "toybox", "--out", "folder.mp4"], "folder.mp4 is a directory: name a file in it"),
        (["evaluate", "fvd", "toybox", "toybox", "--state", "empty.txt"], "--state empty.txt is a file"),
        (["evaluate", "motion", "s3://bucket/clips", "toybox"], "s3://bucket/clips is an address, and what is measured stands on this"),
        (["evaluate", "is", "toybox", "toybox", "--count", "4"], "--splits 10 are more than 4 clips"),
        (["evaluate", "report", "folder.mp4", "-o", "missing/page.html"], "There is no directory missing"),
        (["evaluate", "report", "binary.txt"], "binary.txt is nothing that a page shows"),
        (["evaluate", "report", "numbers.json"], "numbers.json is not a score file (model.all is no finite number)"),
        (["evaluate", "report", "empty.json"], "empty.json is not a score file (it is empty)"),
        (["evaluate", "kid", "toybox", "toybox", "--subset-size", "1"], "--subset-size takes 2 to"),
        (["evaluate", "compare", "a", "b"], "There is no file a: name scores"),
        (["evaluate", "compare", "empty.txt", "b"], "empty.txt is no score"),
        (["audit", "folder.mp4", "--size", "0x0"], "--size takes rows and columns from 1"),
        (["prepare", "missing", "out"], "is no list that is there: name a folder"),
        (["prepare", "missing.tar", "out"], "There is no shard missing.tar"),
        (["prepare", "s3://bucket/list.jsonl", "out"], "is the address of one file or list"),
        (["prepare", "folder.mp4", "empty.txt"], "empty.txt is a file: name a folder"),
        (["audit", "missing"], "is no list that is there: name a folder"),
        (["plan", "out/run.toml", "--shapes", "what"], "unrecognized arguments: what"),
        (["evaluate", "toybox", "--count", "0"], "--count takes 1 to"),
        (["evaluate", "toybox", "--task", "v2v"], "invalid choice: 'v2v'"),
        (["evaluate", "toybox", "--model", "missing", "--task", "i2v"], "The model missing does not exist"),
        (["evaluate", "toybox", "--prompts", "all"], "invalid choice: 'all'"),
        (["evaluate", "toybox", "model"], "--model"),
        (["evaluate", "reconstruction"], "MODEL, CLIP"),
        (["evaluate", "reconstruction", "toybox"], "CLIP"),
        (["evaluate", "reconstruction", "toybox", "missing.mp4"], "There is no file missing.mp4: name videos, or toybox"),
        (["evaluate", "reconstruction", "toybox", "folder.mp4"], "There is no file folder.mp4"),
        (["evaluate", "reconstruction", "toybox", "toybox", "--frames", "0"], "--frames takes 1 to"),
        (["evaluate", "reconstruction", "toybox", "toybox", "--count", "0"], "--count takes 1 to"),
        (["evaluate", "reconstruction", "toybox", "toybox", "--windows", "0"], "--windows takes 1 to"),
        (["evaluate", "reconstruction", "toybox", "toybox", "--tiles", "4"], "--tiles takes 5 to"),
        (["evaluate", "reconstruction", "toybox", "binary.txt", "--count", "3"], "--count is for scenes of the toybox"),
        (["evaluate", "reconstruction", "toybox", "toybox", "--size", "64"], "--size takes ROWSxCOLUMNS"),
        (["evaluate", "reconstruction", "missing", "toybox"], "The model missing does not exist"),
        (["evaluate", "reconstruction", "toybox", "toybox", "--prompts", "two"], "unrecognized arguments: --prompts"),
        (["evaluate", "reconstruction", "toybox", "toybox", "--perceptual", "missing.pth"], "There is no file missing.pth"),
        (["evaluate", "reconstruction", "toybox", "toybox", "--perceptual", "binary.txt"], "binary.txt cannot be read as tensors alone"),
        (["convert"], "SOURCE"),
        (["convert", "missing", "out"], "missing does not exist: give the folder of an SD3 or DiT pipeline"),
        (["convert", "folder.mp4", "out"], "There is no config.json in folder.mp4"),
        (["convert", "empty.txt", "out"], "not a complete safetensors file"),
        (["convert", "missing", "folder.mp4"], "folder.mp4 exists"),
        (["convert", "missing", "no/such/out"], "does not exist: make it first"),
        (["convert", "missing", "out", "--time", "0"], "--time takes 1 to"),
        (["convert", "missing", "out", "--fps", "0"], "--fps takes 0.1 to"),
        (["convert", "missing", "out", "--size", "64"], "--size takes ROWSxCOLUMNS"),
        (["convert", "missing", "out", "--to", "gguf"], "invalid choice: 'gguf'"),
        (["convert", "missing", "out", "--to", "diffusers", "--fps", "8"], "--fps says how to make a video model"),
        (["convert", "missing", "out", "--to", "diffusers"], "The model missing does not exist"),
        (["convert", "toybox", "out", "--to", "diffusers"], "Diffusers has no such transformer"),
        (["doctor", "now"], "unrecognized arguments: now"),
    ],
)
def test_mistakes(arguments: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]):
    (here / "folder.mp4").mkdir()
    (here / "empty.txt").touch()
    (here / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (here / "broken.toml").write_text("steps = \n")
    (here / "good.toml").write_text('kind = "image-autoencoder"\noutput = "out"\n')
    (here / "unknown.toml").write_text('kind = "image-autoencoder"\noutput = "out"\noptimizer.lr = 1\n')
    (here / "numbers.json").write_text('{"model": {"all": NaN}}')
    (here / "empty.json").touch()
    before = sorted(here.iterdir())
    assert words in sentence(arguments, capsys)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("verb", LATER)
@pytest.mark.parametrize("rest", [[], ["--help"], ["a", "b", "--to", "c"]])
def test_verbs_that_are_not_there_yet(verb: str, rest: list[str], capsys: pytest.CaptureFixture[str]):
    assert f"{verb} is not in this version yet; " in sentence([verb, *rest], capsys)


def test_a_fault_of_ours_asks_for_debug_and_debug_shows_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def broken(_):
        raise KeyError("oops")

    monkeypatch.setattr(generate, "run", broken)
    assert "KeyError: 'oops'" in (text := sentence(["generate", "a", *OUT], capsys, 1)) and "--debug" in text
    for arguments in (["--debug", "generate", "a", *OUT], ["generate", "a", *OUT, "--debug"]):
        assert main(arguments) == 1
        assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "run", stopped)
    assert sentence(["generate", "a", *OUT], capsys, 130) == "videodit: Stopped."


def test_a_file_of_prompts_may_begin_with_a_byte_order_mark(here: Path) -> None:
    (here / "p.txt").write_text("a red circle\na blue star\n", encoding="utf-8-sig")
    assert generate._lines(here / "p.txt") == ["a red circle", "a blue star"]
