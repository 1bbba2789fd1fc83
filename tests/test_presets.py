"""Every preset and every run file is built on the meta device."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

import tiny
from videodit import backbone, config, models
from videodit.autoencoder import DPVAESettings, inflate
from videodit.autoencoder.presets import PRESETS, ImageAutoencoder
from videodit.backbone.variants import Variant
from videodit.cli.config import KINDS
from videodit.cli.main import main
from videodit.data.sources import Folder, Toybox
from videodit.shapes import Size, UserError
from videodit.train import planning, recipes
from videodit.train.autoencoder import AutoencoderRun
from videodit.train.backbone import BackboneRun

RUNS = sorted((Path(__file__).parents[1] / "runs").rglob("*.toml"))


@pytest.mark.parametrize("name", PRESETS)
def test_autoencoder(name: str) -> None:
    settings = PRESETS[name]
    with torch.device("meta"):
        image = settings.build()
        autoencoder = inflate(image)
        latents = autoencoder.encode(torch.empty(1, 3, 8, 32, 48)).mean
        video = autoencoder.decode(latents)
    assert settings.space == autoencoder.space == 2 ** (len(settings.widths) - 1) and ImageAutoencoder.of(image) == settings
    assert latents.shape == (1, settings.latent_channels, *autoencoder.latents(Size(8, 32, 48))) and video.shape == (1, 3, 8, 32, 48)


@pytest.mark.parametrize("name", backbone.PRESETS)
@pytest.mark.parametrize("video", [False, True])
def test_transformer(name: str, video: bool) -> None:
    settings = replace(backbone.PRESETS[name], video=video)
    text = tiny.text([3, 1], settings.text or 8)._replace(pooled=torch.ones(2, settings.pooled))
    with torch.device("meta"):
        network = backbone.build(settings)
        noisy = torch.empty(2, settings.channels, 3, 4, 6)
        out = network(noisy, torch.empty(2), text.map(lambda x: x.to("meta")))
    values = settings.channels * (2 if isinstance(settings, backbone.DiT) and settings.variance else 1)
    assert out.shape == (2, values, 3, 4, 6) and network.settings == settings


@pytest.mark.parametrize("name", [name for name in backbone.PRESETS if not name.endswith("tiny")])
def test_every_transformer_has_a_tiny_one(name: str) -> None:
    assert f"{name}-tiny" in backbone.PRESETS


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("latte-xl-v1", 673_681_568),
        ("latte-xl-v2", 673_681_568),
        ("latte-xl-v3", 676_355_360),  # the paper's 676.33 M leaves out some biases
        ("latte-xl-v4", 673_681_568),  # the paper's 676.44 M does not follow from its text
        ("sd3-medium", 2_028_328_000),
        ("sd3-medium-2d3d", 4_150_599_232),  # the paper's 4.15 B: SD3's, its blocks again, 47 projections, the 3D branch
    ],
)
def test_presets_have_the_parameters_of_the_papers(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert models.parameters(backbone.build(backbone.PRESETS[name])) == parameters


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_run_file(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = recipes.read(path)
    plan = planning.plan(settings)
    assert plan["parameters"] >= plan["trained"] > 10_000 and plan["kind"] == settings.kind
    assert not any(tmp_path.iterdir())  # a plan writes nothing
    opening = path.read_text().partition("\nkind")[0].splitlines()
    assert all(line.startswith("#") for line in opening) and any("videodit train" in line for line in opening)
    assert config.parse(recipes.Recipe, config.write(settings)) == settings


@pytest.mark.parametrize("name", recipes.TEMPLATES)
def test_template(name: str) -> None:
    settings = recipes.TEMPLATES[name]
    assert settings.kind == name and config.parse(recipes.Recipe, config.write(settings)) == settings


@pytest.mark.usefixtures("few_sentences")
def test_a_plan_counts_what_is_trained(world: tiny.World, tmp_path: Path) -> None:
    for kind, run in tiny.runs(world, tmp_path, steps=3).items():
        job, plan = recipes.JOBS[run.kind](run), planning.plan(run)
        network = job.network
        assert plan["parameters"] == models.parameters(network), kind
        assert plan["trained"] == sum(p.numel() for p in network.parameters() if p.requires_grad), kind
        assert plan["assumed"] == [] and plan["samples"] == 3 * run.batch, kind
        assert job.loss(0, job.batch(0))[0].isfinite(), kind  # the one step of each kind whose shapes are checked


@pytest.mark.usefixtures("few_sentences")
def test_a_plan_counts_the_discriminator(world: tiny.World, tmp_path: Path) -> None:
    run = next(run for run in tiny.runs(world, tmp_path, steps=3).values() if isinstance(run, AutoencoderRun))
    judged = replace(run, weights=replace(run.weights, adversarial=0.01))
    rival, plain, plan = recipes.JOBS[judged.kind](judged).rival, planning.plan(run), planning.plan(judged)
    assert rival is not None and plan["discriminator"] == models.parameters(rival.network)
    assert plan["trained"] - plain["trained"] == plan["parameters"] - plain["parameters"] == plan["discriminator"]


def test_runs_are_there() -> None:
    assert "toybox_tiny" in [path.stem for path in RUNS] and len(RUNS) >= 5
    assert tuple(recipes.TEMPLATES) == KINDS


@pytest.mark.usefixtures("few_sentences")
def test_a_plan_knows_tokens_and_disk(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=3)["video"]
    assert isinstance(run, BackboneRun)
    run = replace(run, output=tmp_path / "out" / "run", clips=300, pictures=64)
    planned, figures = planning.plan(run), recipes.train(run)
    clips = [figure["tokens"] for figure in figures if "video" in figure]
    assert clips and set(clips) == {float(planned["tokens"] * run.batch * run.accumulate)}
    disk = {
        name: sum(path.stat().st_size for path in (tmp_path / "out" / name).rglob("*.safetensors")) for name in ("cache", "run/checkpoints")
    }
    assert planned["cache_bytes"] == pytest.approx(disk["cache"], rel=0.15)
    kept = min(run.checkpoint.keep, -(-run.steps // run.checkpoint.every))
    assert planned["checkpoint_bytes"] / run.checkpoint.keep * kept == pytest.approx(disk["run/checkpoints"], rel=0.15)


def test_a_plan_does_not_know_what_files_keep_and_says_what_each_clip_does(world: tiny.World, tmp_path: Path) -> None:
    run = replace(tiny.runs(world, tmp_path, steps=3)["video"], data=Folder(path=Path("mine")))  # type: ignore[arg-type]
    plan = planning.plan(run)
    (said,) = plan["assumed"]
    assert plan["cache_bytes"] is None and "videodit audit mine says: each keeps up to " in said
    bytes_ = int(re.findall(r"([\d,]+) bytes", said)[0].replace(",", ""))
    one, two = (planning.plan(replace(run, data=Toybox(), clips=n, pictures=1))["cache_bytes"] for n in (100, 200))  # type: ignore[call-arg]
    assert bytes_ >= (two - one) / 100 > 0


SLOWLY = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("image-autoencoder", "image", "video from nothing", "decoder")]


@pytest.mark.usefixtures("few_sentences")
@pytest.mark.parametrize("kind", ["autoencoder", "video", *SLOWLY])
def test_a_plan_follows_what_lives(world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(planning, "SECONDS", 0.0)
    monkeypatch.setattr(planning, "_free", lambda device: 0)
    run = tiny.runs(world, tmp_path, steps=3)[kind]
    plain, more = (planning.plan(replace(run, batch=batch), whole=True) for batch in (4, 64))
    assert more["training_bytes"] > plain["training_bytes"] > plain["state_bytes"]
    assert plain["memory_bytes"] >= max(plain["encoding_bytes"], plain["training_bytes"])
    assert "are free" in plain["assumed"][0] and "seconds" not in plain
    step, encoding, most = planning.probe(run, 1)
    assert step > 0 and most > 1e8 and (encoding > 0) == (run.kind == "backbone")


@pytest.mark.usefixtures("few_sentences")
def test_a_plan_tries_steps_in_a_process_of_its_own(world: tiny.World, tmp_path: Path) -> None:
    planned = planning.plan(tiny.runs(world, tmp_path, steps=3)["video"], whole=True)
    assert planned["assumed"] == [] and planned["seconds"] >= 3 / planned["steps_per_second"] * 0.999
    assert planned["memory_bytes"] > max(planned["encoding_bytes"], planned["training_bytes"])


def test_living_tensors_are_counted() -> None:
    with planning.Shapes(), planning.Living() as living:
        x = torch.zeros(1000, 1000)
        y = x + 1  # two live
        z = (x * 2).sum()  # three, then two and a number
        del y, z
    assert living.most == 3 * 4_000_000 + 4 and living.now == 4_000_000
    del x
    assert living.now == 0


@pytest.mark.usefixtures("few_sentences")
def test_a_plan_for_a_device_that_is_not_here_says_so(world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    planned = planning.plan(replace(tiny.runs(world, tmp_path, steps=3)["video"], device="cuda"), whole=True)
    assert "steps_per_second" not in planned and "no cuda here" in planned["assumed"][0] and planned["training_bytes"] > 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("steps=-1", "steps takes 0 or more, not -1"),
        ("batch=0", "batch takes 1 or more, not 0"),
        ("accumulate=0", "accumulate takes 1 or more"),
        ("clips=-5", "clips and pictures take 1 or more, not -5"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate takes a number from 0"),
        ("optimizer.clip=-1.0", "optimizer.clip takes a number from 0"),
        ("optimizer.clip=0", "optimizer.clip takes a number above 0"),
        ("optimizer.warmup=-100", "optimizer.warmup 0 or more, not 1.0 and -100"),
        ("optimizer.fresh=5.0", "optimizer.fresh is for what an inflated autoencoder did not inherit"),
        ("average=-0.5", "average and averages take decays from 0 up to, not including, 1, not -0.5"),
        ("averages=[0.9, 1.0]", "average and averages take decays from 0 up to, not including, 1, not 1.0"),
        ("device=gpu", "device takes cpu, cuda or mps, not gpu"),
        ("text_dropout=7", "text_dropout takes 0 to 1"),
        ("fps=0", "fps a number above 0"),
        ("words=-1", "words and retention take 0 or more"),
        ("retention=-3", "words and retention take 0 or more"),
        ("joint.video_probability=-2", "joint.video_probability takes 0 to 1, not -2.0"),
        ("joint={video_probability = 0.0, appended = 2}", "joint.appended pictures go along with clips, and this run has none"),
        ("times.shift=-1", "times.shift takes a number above 0"),
        ("times.places=-5", "times.places 0 or more, not 1.0 and -5"),
        ("times={density = 'mode', heaviness = 9.0}", "a heaviness of -1 to 1.75"),
        ("text.heads=3", "text takes a width that its heads divide"),
        ("text.heads=0", "text takes a width that its heads divide"),
        ("text.width=0", "text takes a width that its heads divide"),
        ("text.length=0", "a length of 1 or more"),
        ("text.depth=-1", "a depth of 0 or more"),
        ("sampling.steps=0", "sampling.steps takes 1 or more, not 0"),
        ("conversion.layout=beside", "set start, or the layout in"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        recipes.read(Path(__file__).parents[1] / "runs" / "toybox_tiny.toml", [override])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["objective.kind=diffusion", "times.shift=5"], "of times it takes each alone"),
        (["objective.kind=diffusion", "times.density=uniform"], "of times it takes each alone"),
    ],
)
def test_settings_that_nothing_would_ask_for_are_refused(overrides: list[str], words: str) -> None:
    path = Path(__file__).parents[1] / "runs" / "toybox_tiny.toml"
    with pytest.raises(UserError, match=words):
        recipes.read(path, overrides)
    assert isinstance(recipes.read(path, ["objective.kind=diffusion", "times.each=frame"]), BackboneRun)


@pytest.mark.parametrize(
    ("kind", "override", "words"),
    [
        ("image-autoencoder", "equivariance=2", "equivariance takes 0 to 1"),
        ("image-autoencoder", "kl=-1", "weights of 0 or more"),
        ("image-autoencoder", "clips.side=0", "a side of 1 or more"),
        ("image-autoencoder", "data={kind='folder',path='.',most=4}", "data.most counts clips that are cut"),
        ("autoencoder", "clips.share=1.5", "clips takes a share of 0 to 1"),
        ("autoencoder", "critics.optimizer.fresh=5", "a discriminator inherits nothing"),
        ("autoencoder", "critics.discriminator.depth=0", "a width and a depth of 1 or more, not 64 and 0"),
        ("decoder", "averages=[0.9, 0.995]", "has the average of decay 0.995 already"),
        ("backbone", "lora.alpha=0", "an alpha other than 0"),
        ("decoder", "optimizer.fresh=5", "optimizer.fresh is for what an inflated autoencoder did not inherit"),
    ],
)
def test_settings_of_other_runs_that_cannot_be_run_are_refused(kind: str, override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        recipes.read_text(config.write(recipes.TEMPLATES[kind]), [override])
    assert isinstance(recipes.read_text(config.write(recipes.TEMPLATES["autoencoder"]), ["optimizer.fresh=5"]), AutoencoderRun)


def test_a_run_is_refused_before_it_begins_where_it_could_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for override, words in (
        ("device=cuda:1", "There is no cuda:1 here: set device=cpu"),
        ("device=mps", "There is no mps here: set device=cpu"),
        ("sampling.sampler=eulr", "There is no sampler 'eulr'"),
    ):
        with pytest.raises(UserError, match=words):
            recipes.train(recipes.read("toybox_tiny", [override]))


def test_memory_that_files_take_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MEMORY", tmp_path / "meminfo")
    without = planning._free("cpu")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemFree:  1 kB\nMemAvailable:   7 kB\n")
    assert planning._free("cpu") == 7 * 1024 != without > 0


def test_settings_may_stand_behind_options(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(Path(__file__).parents[1] / "runs" / "toybox_tiny.toml")
    assert main(["plan", path, "--shapes", "steps=7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 7


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (kind, change, said)
        for kind in (backbone.Transformer, backbone.DiT)
        for change, said in (
            ("heads=5", "A width of .* does not go with 5 heads"),
            ("heads=0", "heads takes 1 or more, not 0"),
            ("patch=0", "patch takes 1 or more"),
            ("window=0", "window takes 1 or more"),
            ("depth=0", "depth takes 1 or more"),
            ("depth=-1", "depth takes 1 or more, not -1"),
            ("picture=-1", "picture takes 0 or more, not -1"),
        )
    ]
    + [
        (backbone.Transformer, "twice=-1", "twice takes 0 or more"),
        (DPVAESettings, "step=0", "step takes 1 or more"),
        (DPVAESettings, "window=0", "window takes 1 or more"),
        (DPVAESettings, "window=-1", "window takes 1 or more, not -1"),
    ],
)
def test_a_shape_that_cannot_be_is_said_where_it_is_set(kind: type, change: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "shape.toml").touch()
    with pytest.raises(UserError, match=said):
        config.read(kind, tmp_path / "shape.toml", [change])


@pytest.mark.parametrize("layout", get_args(Variant))
def test_a_second_attention_stands_where_blocks_see_all_or_are_folded(layout: Variant) -> None:
    if layout in ("global", "spatial", "beside"):
        assert backbone.Transformer(layout=layout, twice=1).twice == 1
        return
    with pytest.raises(UserError, match=f"not all blocks of the layout {layout} do: set twice=0"):
        backbone.Transformer(layout=layout, twice=1)
