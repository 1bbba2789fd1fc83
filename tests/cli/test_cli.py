"""Verbs do what they say: results on standard output, the rest on standard error, and torch only when it is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
import tiny_sd3
import videodit
from videodit import config, models, request
from videodit.autoencoder.perceptual import Perceptual
from videodit.cli.main import LATER, VERBS, main
from videodit.cli.terminal import print_json
from videodit.data.things import THINGS
from videodit.data.video import write
from videodit.generate import Generator
from videodit.record import model_digest
from videodit.shapes import Size
from videodit.train import recipes

RUNS = Path(__file__).parents[2] / "runs"


class Painter(Generator):
    """Stands for a model: a clip is as bright as its prompt is long, so that files can be told apart."""

    size, fps, takes = Size(2, 16, 16), 8.0, "text"

    def __init__(self) -> None:
        object.__setattr__(self, "calls", [])

    def generate(self, prompt: Sequence[str], *, size: Size, progress: Callable[[int, int], None], **rest) -> np.ndarray:
        assert not any(rest.pop(name) for name in ("preview", "sampler", "shift", "given", "negative"))
        self.calls.append({"prompts": list(prompt), "size": size, **rest})
        progress(1, 1)
        return np.stack([np.full((*size, 3), len(text), np.uint8) for text in prompt])

    def sampling(self, steps: int | None, guidance: float | None, sampler: str | None) -> models.Sampling:
        return models.Sampling(steps=steps or 24)

    def check_words(self, prompts: list[str]) -> None:
        pass

    def unknown_words(self, prompt: str) -> list[str]:
        return [word for word in prompt.split() if word == "zebra"]


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> Painter:
    model = Painter()
    monkeypatch.setitem(vars(videodit), "load", lambda name: model)
    monkeypatch.setattr(request, "load", lambda name, device: model)
    return model


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *([verb, "--help"] for verb in VERBS),
        ["evaluate", "reconstruction", "--help"],
        ["evaluate", "fvd", "--help"],
        ["serve"],
        ["generate", "", "-o", "x.mp4"],
    ],
)
def test_help_and_plain_mistakes_come_without_torch(arguments: list[str]):
    code = (
        "import sys; from videodit.cli.main import main\n"
        f"try: main({arguments})\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "videodit", "serve"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("videodit: serve is not in this version yet")


def test_help_names_every_verb_and_says_what_is_not_there(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for verb, (_, what) in VERBS.items():
        assert f"{verb} {what}" in text
    for verb, (what, _) in LATER.items():
        assert f"{verb} {what} (not in this version yet)" in text


def test_version(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert re.fullmatch(r"videodit \S.*\n", capsys.readouterr().out)


def test_generate_writes_one_file_and_says_where(painter: Painter, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "clip.png"
    options = ["--frames", "1", "--size", "16x32", "--steps", "3", "--guidance", "2.5", "--seed", "7"]
    assert main(["generate", "a red circle", "-o", str(out), *options]) == 0
    written = capsys.readouterr()
    assert written.out == "" and str(out) in written.err
    assert painter.calls == [{"prompts": ["a red circle"], "size": Size(1, 16, 32), "seed": 7, "steps": 3, "guidance": 2.5, "first": 0}]
    assert np.asarray(Image.open(out).convert("RGB")).shape == (16, 32, 3)


def test_generate_leaves_unsaid_things_to_the_model(painter: Painter, tmp_path: Path):
    assert main(["generate", "a", "-o", str(tmp_path / "a.gif")]) == 0
    assert painter.calls == [{"prompts": ["a"], "size": painter.size, "seed": 0, "steps": None, "guidance": None, "first": 0}]


def test_several_prompts_and_numbers_are_numbered_files(painter: Painter, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "prompts.txt").write_text("a\n\n  abc  \n", encoding="utf-8")
    out = tmp_path / "clip.png"
    options = ["--prompts", str(tmp_path / "prompts.txt"), "--num", "5", "--frames", "1", "--json"]
    assert main(["generate", "-o", str(out), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result.keys() == {"files", "prompt", "task", "seed", "size", "fps", "seconds"}
    assert result["files"] == [str(tmp_path / f"clip-{i:03d}.png") for i in range(10)]
    assert result["prompt"] == ["a"] * 5 + ["abc"] * 5
    assert [int(np.asarray(Image.open(path)).max()) for path in result["files"]] == [1] * 5 + [3] * 5
    assert [call["first"] for call in painter.calls] == list(range(10))  # the noise of clip i


def test_words_the_model_never_read_are_named(painter: Painter, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["generate", "a zebra", "-o", str(tmp_path / "a.png"), "--frames", "1"]) == 0
    assert "never read the words zebra" in capsys.readouterr().err


@pytest.mark.parametrize("fault", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")])
def test_too_large_a_clip_is_a_sentence(
    painter: Painter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: Exception
):
    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(painter, "generate", fail)
    assert main(["generate", "a", "-o", str(tmp_path / "a.mp4"), "--frames", "9000"]) == 2
    assert "9000 frames of 16x16 does not fit into memory" in capsys.readouterr().err


def test_config_lists_the_names(capsys: pytest.CaptureFixture[str]):
    assert main(["config"]) == 0
    own = sorted(path.relative_to(RUNS).with_suffix("").as_posix() for path in RUNS.rglob("*.toml"))
    assert capsys.readouterr().out.split() == [*recipes.TEMPLATES, *own]


def test_a_run_file_of_the_packages_is_known_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(["config", "toybox_tiny", "steps=3"]) == 0
    own = recipes.read(RUNS / "toybox_tiny.toml")
    assert capsys.readouterr().out == config.write(replace(own, steps=3))
    (tmp_path / "toybox_tiny").mkdir()
    assert recipes.read("toybox_tiny") == own  # which is no run file
    (tmp_path / "toybox_tiny").rmdir()
    (tmp_path / "toybox_tiny").write_text(config.write(replace(own, steps=4)), encoding="utf-8")
    assert recipes.read("toybox_tiny").steps == 4  # what is there goes first
    for name in ("runs/toybox_tiny.toml", "toybox_tinny.toml"):
        assert main(["train", name]) == 2
        assert f"There is no file {name}: give the path of a TOML file; the package has one of its own by the name toybox_tiny." in (
            capsys.readouterr().err
        )


@pytest.mark.parametrize("name", recipes.TEMPLATES)
def test_config_prints_what_reads_back(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["config", name]) == 0
    run_file = tmp_path / "run.toml"
    run_file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert recipes.read(run_file) == recipes.TEMPLATES[name]
    assert main(["config", str(run_file), "steps=7"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["steps"] == 7


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    overrides = [f"output={tmp_path / 'out'}", "preset=tiny", "steps=2", "batch=2", "precision=fp32", "size=[1, 16, 16]"]
    template = recipes.TEMPLATES["image-autoencoder"]
    path.write_text(config.write(config.parse(type(template), config.write(template), overrides)), encoding="utf-8")
    return path


def test_plan(run_file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", str(run_file), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 2 and plan["samples"] == 4 and plan["parameters"] > 0
    assert main(["plan", str(run_file), "steps=1500"]) == 0
    assert re.search(r"^steps +1\.5 K$", capsys.readouterr().out, re.MULTILINE)


def test_train_trains_and_the_same_command_finds_it_done(run_file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", str(run_file), "--json"]) == 0
    written = capsys.readouterr()
    result = json.loads(written.out)
    assert (result["steps"], result["steps_now"]) == (2, 2) and "loss" in result["figures"]
    assert Path(result["model"]).is_dir()
    assert written.err.splitlines()[-1].startswith("step 2/2, ")
    assert main(["train", str(run_file)]) == 0
    assert "0 of them now" in capsys.readouterr().err


def test_an_interrupted_run_says_how_to_go_on(run_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def stopped(*_, **__):
        raise recipes.Interrupted("Stopped at step 1 of 2; the same command goes on from there.")

    monkeypatch.setattr(recipes, "train", stopped)
    assert main(["train", str(run_file)]) == 130
    assert capsys.readouterr().err == "videodit: Stopped at step 1 of 2; the same command goes on from there.\n"


def test_convert_prints_its_proof_and_what_to_type_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = tiny_sd3.pipeline(tmp_path)
    assert main(["convert", str(source), str(tmp_path / "video"), "--time", "2", "--frames", "6", "--size", "32x64", "--fps", "12"]) == 0
    written = capsys.readouterr()
    rows = [re.split(r"  +", line) for line in written.out.splitlines()]
    assert [row[0].split(",")[0] for row in rows[2:]] == [
        "output on one frame",
        "latents of key frames",
        "parameters added to the blocks",
        "parameters added to the transformer in all",
        "largest output of what was added",
    ]
    assert 0 < float(rows[2][1]) <= 1e-5 and rows[4][1] == rows[6][1] == "0"
    assert f'videodit generate "..." --model {tmp_path / "video"} -o out.mp4' in written.err
    model = videodit.load(tmp_path / "video")
    assert model.size == Size(6, 32, 64) and model.fps == 12 and model.model.autoencoder.time == 2
    assert main(["convert", str(tmp_path / "video"), str(tmp_path / "back"), "--to", "diffusers", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["whole"] and done["left"] > 0 and done["out"] == str(tmp_path / "back")


def test_evaluate_prints_the_table_and_the_object(
    painter: Painter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from videodit.evaluate import compare, suite
    from videodit.evaluate.judges import TOYBOX

    def rates(value: float) -> dict[str, float]:
        return dict.fromkeys(("shape", "colour", "motion", "all"), value)

    def measured(model, judge, *, prompts: str, count: int, **rest) -> dict:
        assert (model, prompts, rest["seed"], rest["steps"]) == (painter, "two", 3, 5)
        assert judge is TOYBOX
        surface = {name: {"model": 2.5, "rebuilt": 2.25, "truth": 2.0, "ratio": 1.25} for name in ("flicker", "sharpness")}
        assert rest["estimator"].resamples == 7
        asked = {"count": count, "prompts": prompts, "task": "t2v", "seed": 3}
        figures = {"figures": {"model.all": {"value": 0.5, "interval": (0.25, 0.75), "floor": 0.125}}}
        rows = {"model": rates(0.5), "rebuilt": rates(0.75), "truth": rates(1.0), "shuffled": rates(0.125)}
        return asked | rows | surface | figures

    monkeypatch.setattr(suite, "measure", measured)
    command = ["evaluate", "toybox", "--prompts", "two", "--count", "4", "--seed", "3", "--steps", "5", "--resamples", "7"]
    assert main([*command, "--json", "--out", str(tmp_path / "a.json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "a.json").read_text()) == compare.read(tmp_path / "a.json")
    assert found["shuffled"]["all"] == 0.125 and (found["value"], found["interval"], found["floor"]) == (0.5, [0.25, 0.75], 0.125)
    card = found["card"]
    assert (card["measure"], card["fake"]["steps"], card["real"]["frames"], card["extent"]) == ("toybox", 5, 2, [16, 16])
    assert card["real_digest"] == TOYBOX.world.content() and card["extractor"]["digest"] == ""
    assert found["fake_digest"] == model_digest("toybox") and card["fake"]["guidance"]["scale"] >= 1
    assert {"torch", "scipy", "tokenizers"} <= set(card["versions"])
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["4", "clips", "shape", "colour", "motion", "all"]
    assert [line.split()[-2] for line in (lines[2], *lines[4:7])] == ["50.0", "75.0", "100.0", "12.5"]
    assert re.split(" {2,}", lines[3].strip()) == ["interval, %", "25.0 to 75.0"]
    assert lines[8] == "flicker: 2.50; of truth: 2.00, rebuilt: 2.25; times truth's: 1.25"


@pytest.mark.parametrize(("takes", "said"), [("label", "is told a label"), ("nothing", "is told nothing")])
def test_scenes_are_not_asked_of_a_model_that_reads_no_words(
    takes: str, said: str, painter: Painter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(Painter, "takes", takes)
    assert main(["evaluate", "toybox"]) == 2
    assert f"asks by words, and toybox {said}: compare its videos with others by evaluate fvd." in capsys.readouterr().err


def test_evaluate_sprites_asks_for_a_model_and_draws_with_the_font_that_is_named(
    world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for noun in THINGS:
        Image.new("RGBA", (9, 9), (250, 90, 200, 255)).save(tmp_path / f"{noun}.png")
    command = ["evaluate", "sprites", "--model", str(world.video_model), "--count", "2", "--steps", "1"]
    assert main([*command, "--font", str(tmp_path), "--prompts", "two", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["model"]) == ["object", "colour", "motion", "background", "count", "place", "all"]
    assert found["truth"]["background"] == 1 and {"flicker", "sharpness", "shuffled"} <= found.keys()
    assert len(found["card"]["extractor"]["digest"]) == 64 and found["figures"]["model.object"]["interval"] is not None
    assert main([*command, "--font", str(tmp_path / "none.ttf")]) == 2
    assert "There is no colour font at" in capsys.readouterr().err
    assert main(["evaluate", "sprites"]) == 2 and "--model" in capsys.readouterr().err


def test_evaluate_reconstruction_measures_files_and_scenes(world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path / "clip.mp4", np.zeros((9, 20, 32, 3), np.uint8) + np.arange(0, 180, 20, dtype=np.uint8)[:, None, None, None], 8)
    command = ["evaluate", "reconstruction", str(world.autoencoder), str(tmp_path / "clip.mp4"), "toybox"]
    assert main([*command, "--count", "2", "--frames", "8", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    file, *drawn = result["clips"]
    assert (file["frames"], file["size"], file["from"]) == (8, [16, 32], [20, 32])
    assert [(clip["name"], clip["frames"], clip["size"]) for clip in drawn] == [(f"toybox {i}", 8, [64, 64]) for i in range(2)]
    assert len(result["positions"]) == result["group"] == 4 and result["perceptual"] is None
    assert result["positions"][0].keys() == {"psnr", "ssim", "temporal"} and result["parts"] is None
    assert result["value"] == result["all"]["psnr"] and result["interval"][0] < result["value"] < result["interval"][1]
    assert result["floor"] == result["references"]["previous frame copied"]["all"]["psnr"] and result["card"]["extent"] is None
    assert result["card"]["real"] == {"count": 3, "frames": 8, "every": 1, "size": None, "resize": "bicubic, antialiased"}
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    assert main(command) == 2
    assert "clip.mp4 cannot be read as a video or picture" in capsys.readouterr().err


def test_evaluate_reconstruction_prints_tables_with_the_name_of_the_network(
    world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    torch.manual_seed(0)
    net = Perceptual("st-lpips-alex")
    names = ((re.sub(r"^weights\.(\d)$", r"lin\1.model.1.weight", name), value) for name, value in net.state_dict().items())
    torch.save(dict(names), tmp_path / "net.pth")
    options = ["--count", "1", "--frames", "10", "--size", "32x24", "--windows", "1"]
    command = ["evaluate", "reconstruction", str(world.autoencoder), "toybox", *options]
    assert main([*command, "--perceptual", str(tmp_path / "net.pth")]) == 0
    written = capsys.readouterr()
    lines = written.out.splitlines()
    assert re.split(" {2,}", lines[0]) == ["1 clips", "frames of a group", "PSNR dB", "SSIM", "st-lpips-alex", "temporal error"]
    assert [line.split()[0] for line in lines[3:8]] == ["interval", "key", "1", "2", "3"]
    assert "10 frames, 32x24" in lines[-1] and written.err == ""
    assert re.search(r"in parts, against the whole: \d+\.\d\d dB, at most 0\.\d{4}", written.out)
    assert "|mu_z - mu_zk|" in written.out and "by the image decoder" in written.out
    assert main(command) == 0
    written = capsys.readouterr()
    assert "lpips" not in written.out and "--perceptual FILE" in written.err


def test_doctor_tries_everything_and_the_cpu_works(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    works = {(trial["group"], trial["name"]): trial["works"] for trial in found["tried"]}
    sure = ("cpu matrix product", "fp32"), ("cpu attention", "math"), ("encoder", "mp4 (x264)"), ("encoder", "png")
    assert all(works[trial] for trial in sure) and not works["cpu attention", "cudnn"]
    assert all(trial["works"] == (trial["reason"] is None) and trial["milliseconds"] > 0 for trial in found["tried"])
    assert {"attention float32 using 512 32", "attention bfloat16 learning 512 32"} <= found["kernels"].keys()
    assert set(found["kernels"].values()) <= {"default", "onednn", "fused", "plain", "parts"}


def test_json_has_null_for_what_is_no_number(capsys):
    print_json({"loss": float("nan"), "bins": [float("inf"), 1.5, {"t": (2, True, None)}]})
    assert capsys.readouterr().out == '{"loss": null, "bins": [null, 1.5, {"t": [2, true, null]}]}\n'
