"""A whole pipeline of DiT becomes a whole video model told by labels, and goes back: the same pictures as diffusers'."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from diffusers.pipelines.dit import pipeline_dit

import tiny
import videodit
import videodit.generate
from videodit import backbone, models
from videodit.backbone import PRESETS, Cropped, DiT
from videodit.convert import pipeline, sources
from videodit.convert.foreign_dit import DIT
from videodit.diffusion.noise import noise
from videodit.diffusion.objectives import Flow
from videodit.generate import to_frames
from videodit.models import Provenance
from videodit.shapes import Size, UserError
from videodit.train import recipes
from videodit.train.backbone import BackboneRun, Joint

LABELS = ("tench, Tinca tinca", "crane", "crane, wading bird", *(f"thing {i}" for i in range(3, 1000)))  # diffusers' blank is 1000
EXTENT, STEPS = (32, 32), 6


def saved(folder: Path, *, variance: bool = True) -> Path:
    """A tiny random pipeline as diffusers saves it, with so few levels that both look at all: left-out ones diffusers spreads otherwise."""
    settings = replace(PRESETS["dit-xl-2-tiny"], channels=8, labels=len(LABELS), eps=1e-5, reached=True, places=Cropped(side=8, base=8))
    assert isinstance(settings, DiT)
    torch.manual_seed(7)
    model = DiTTransformer2DModel.from_config(DIT.described(replace(settings, variance=variance)))
    assert isinstance(model, DiTTransformer2DModel)
    tiny.randomised(model)
    for block in model.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    schedule = DDIMScheduler(num_train_timesteps=STEPS, beta_end=0.3, clip_sample=False)
    DiTPipeline(model.eval(), tiny.image_autoencoder(shift=0.0), schedule).save_pretrained(folder)
    index = folder / "model_index.json"  # where published pipelines name their labels; saving them again leaves the names out
    index.write_text(json.dumps(json.loads(index.read_text()) | {"id2label": {str(i): name for i, name in enumerate(LABELS)}}))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("dit") / "pipeline")


@pytest.fixture(scope="module")
def converted(source: Path) -> Path:
    out = source.parent / "video"
    done = pipeline.to_video(source, out, frames=8)
    assert done.whole and done.proof is not None and done.proof.difference <= 1e-5 and done.proof.autoencoder is not None
    return out


def picture(folder: Path, label: int, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What diffusers makes of our noise."""
    theirs = DiTPipeline.from_pretrained(folder, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    theirs.transformer.to(torch.float32)
    monkeypatch.setattr(pipeline_dit, "randn_tensor", lambda *_, **__: noise(3, [0], (8, 1, 16, 16))[:, :, 0])
    return theirs([label], guidance_scale=3.0, num_inference_steps=STEPS, output_type="np").images[0]


@pytest.mark.parametrize("name", ["tench", "Tinca tinca", "tench, Tinca tinca"])
def test_its_pictures_are_those_of_diffusers(name: str, converted: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, decoded = videodit.load(converted), []
    side = model.size.rows
    monkeypatch.setattr(videodit.generate, "to_frames", lambda video: (decoded.append(video), to_frames(video))[1])
    made = model.generate(name, size=Size(1, side, side), steps=STEPS, guidance=3.0, seed=3)
    assert made.std() > 1
    exact = (decoded[0][0, :, 0].clamp(-1, 1) + 1).permute(1, 2, 0).numpy() / 2
    assert np.abs(exact - picture(source, 0, monkeypatch)).max() < 1e-3
    assert np.abs(exact - picture(source, 1, monkeypatch)).max() > 1e-2


def test_it_makes_videos_at_once(converted: Path) -> None:
    model = videodit.load(converted)
    _, settings = models.read(converted, models.ModelFolder)
    assert settings.autoencoder.kind == "dpvae" and model.size == Size(8, 128, 128)
    assert settings.objective.kind == "diffusion" and (settings.objective.last, settings.objective.variance) == (0.3, True)
    assert model.generate("crane", steps=2, size=Size(8, *EXTENT)).shape == (8, *EXTENT, 3)


def test_a_label_is_named_or_the_nearest_are_told(converted: Path) -> None:
    text = models.load(converted).text
    assert text(["crane", "wading bird", ""]).label.tolist() == [1, 2, len(LABELS)]
    with pytest.raises(UserError, match=r"There is no label 'tenc': use one of tench \(of 1000\)"):
        text(["tenc"])


def test_it_goes_back(converted: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = pipeline.to_diffusers(converted, tmp_path / "back")
    before, after = (sources.weights_in(folder / "transformer") for folder in (source, tmp_path / "back"))
    assert done.whole and all(torch.equal(after[name], before[name]) for name in after)
    network = models.load_backbone(converted)
    assert network.video is not None and done.left == models.parameters(network.video)
    index = json.loads((tmp_path / "back" / "model_index.json").read_text())
    assert index["id2label"] == {str(i): name for i, name in enumerate(LABELS)}
    config = json.loads((tmp_path / "back" / "scheduler" / "scheduler_config.json").read_text())
    assert config["beta_end"] == 0.3 and config["prediction_type"] == "epsilon"
    np.testing.assert_allclose(picture(tmp_path / "back", 1, monkeypatch), picture(source, 1, monkeypatch), atol=2e-3)


def test_only_diffusions_go_back(converted: Path, tmp_path: Path) -> None:
    model = models.load(converted)
    models.save(tmp_path / "flow", replace(model, settings=replace(model.settings, objective=Flow())))
    with pytest.raises(UserError, match="only those with objective"):
        pipeline.to_diffusers(tmp_path / "flow", tmp_path / "back")


def test_labels_told_by_a_token_do_not_go_back(tmp_path: Path) -> None:
    network = backbone.build(replace(PRESETS["dit-xl-2-tiny"], told="token", reached=True))
    models.save_backbone(tmp_path / "video", network, Provenance())
    with pytest.raises(UserError, match="only image transformers that came from its DiT"):
        pipeline.to_diffusers(tmp_path / "video", tmp_path / "back")


def test_labels_of_one_name_are_told_apart(source: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(source, tmp_path / "copied"))
    index = copied / "model_index.json"
    described = json.loads(index.read_text())
    index.write_text(json.dumps(described | {"id2label": described["id2label"] | {"7": "crane"}}))
    pipeline.to_video(copied, tmp_path / "video", frames=4)
    text = models.load(tmp_path / "video").text
    assert text(["crane (1)", "crane (7)"]).label.tolist() == [1, 7]


@pytest.mark.parametrize("layout", ["interleaved", "factorised"])
def test_lavitas_layouts_take_frame_by_frame_and_are_told_nothing(layout: str, source: Path, tmp_path: Path) -> None:
    done = pipeline.to_video(source, tmp_path / "video", layout=layout)  # pyright: ignore[reportArgumentType]
    model = videodit.load(tmp_path / "video")
    assert done.whole and models.describe(tmp_path / "video").kind == "per-frame" and model.size.frames == 16
    assert model.generate("", steps=1, size=Size(3, *EXTENT)).shape == (3, *EXTENT, 3)


@pytest.mark.usefixtures("unchecked")
def test_a_transformer_alone_is_whole_with_an_autoencoder(source: Path, tmp_path: Path) -> None:
    done = pipeline.to_video(source / "transformer", tmp_path / "video", autoencoder=source / "vae", time=2, frames=4)
    model = videodit.load(tmp_path / "video")
    assert done.whole and model.generate("9", steps=1, size=Size(4, *EXTENT)).shape == (4, *EXTENT, 3)
    run = BackboneRun(
        output=tmp_path / "run", start=tmp_path / "video", autoencoder=tmp_path / "video", size=Size(4, *EXTENT), steps=1, batch=2, clips=2,
        pictures=2, precision="fp32", joint=Joint(video_probability=1.0), sampling=tiny.SAMPLING,
    )  # fmt: skip
    with pytest.raises(UserError, match="learnt another objective than this run's"):
        recipes.train(run)
    objective = models.read(tmp_path / "video", models.ModelFolder)[1].objective
    with pytest.raises(UserError, match="There is no label"):  # the toybox has nothing called 7
        recipes.train(replace(run, objective=objective))


def test_what_does_not_fit_is_said(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave --autoencoder out"):
        pipeline.to_video(source, tmp_path / "out", autoencoder=source / "vae")
    models.save_autoencoder(tmp_path / "ours", tiny.dpvae(shift=0.0), Provenance())
    with pytest.raises(UserError, match="is a video autoencoder, and the image model's is wanted"):
        pipeline.to_video(source / "transformer", tmp_path / "out", autoencoder=tmp_path / "ours")
    copied = Path(shutil.copytree(source, tmp_path / "copied"))
    for file, change, said in (
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "predicts sample is not read"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1], "prediction_type": "epsilon"}, "without trained betas"),
        ("scheduler/scheduler_config.json", {"trained_betas": None, "rescale_betas_zero_snr": True}, "without rescale_betas_zero_snr"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": False, "beta_end": None}, "beta_end = None, which is no number"),
        ("scheduler/scheduler_config.json", {"beta_end": 0.3}, None),
        ("model_index.json", {"id2label": {"0": "tench"}}, "does not name 1000 labels"),
    ):
        path = copied / file
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        if said:
            with pytest.raises(UserError, match=said):
                pipeline.to_video(copied, tmp_path / "out")
    assert not (tmp_path / "out").exists()
