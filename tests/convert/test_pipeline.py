"""A whole image pipeline becomes a whole video model, and its image half goes back: the same bits, and the same pictures as diffusers'."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file

import tiny
import tiny_sd3
import videodit
import videodit.generate
from videodit import backbone, models
from videodit.backbone.variants import Variant
from videodit.convert import pipeline, sources
from videodit.convert.foreign import SD3
from videodit.convert.pipeline import Converted
from videodit.diffusion.noise import noise
from videodit.generate import to_frames
from videodit.shapes import Size, UserError
from videodit.train import planning, recipes
from videodit.train.backbone import BackboneRun, Joint

PROMPT, STEPS = "a red circle moves right", 3
EXTENT = (32, 32)
TABLE = "pos_embed.pos_embed"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd3.pipeline(tmp_path_factory.mktemp("sd3"))


@pytest.fixture(scope="module")
def converted(source: Path) -> tuple[Path, Converted]:
    out = source.parent / "video"
    return out, pipeline.to_video(source, out, frames=8, extent=EXTENT)


@pytest.fixture
def copied(source: Path, tmp_path: Path) -> Path:
    """A pipeline that a test may spoil."""
    return Path(shutil.copytree(source, tmp_path / "pipeline"))


def changed(path: Path, **change: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


# --- There ---


def test_the_proof_is_measured_and_written(converted: tuple[Path, Converted]) -> None:
    out, done = converted
    _, settings = models.read(out, models.ModelFolder)
    proof = settings.provenance.proof
    assert proof is not None and proof == done.proof
    assert 0 < proof.difference <= 1e-5 and proof.autoencoder is not None and proof.autoencoder <= 1e-5
    assert (proof.blocks, proof.output, proof.source) == (0, 0.0, "SD3Transformer2DModel")
    network = models.load_backbone(out)
    assert network.video is not None and proof.added == models.parameters(network.video) > 0
    assert done.whole and done.unused == [] and settings.times.shift == 3.0


def test_a_proof_that_fails_writes_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = sources.Source.theirs
    monkeypatch.setattr(sources.Source, "theirs", lambda self: tiny.randomised(honest(self), size=1e-3))
    with pytest.raises(UserError, match=r"differs from the image model's by .* nothing was written"):
        pipeline.to_video(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_its_pictures_are_those_of_diffusers(converted: tuple[Path, Converted], source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, decoded = videodit.load(converted[0]), []
    monkeypatch.setattr(videodit.generate, "to_frames", lambda video: (decoded.append(video), to_frames(video))[1])
    ours = model.generate(PROMPT, size=Size(1, *EXTENT), steps=STEPS, guidance=4.0, seed=3)
    theirs = StableDiffusion3Pipeline.from_pretrained(source, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    latents = noise(3, [0], (8, 1, 4, 4))[:, :, 0]
    sigmas = torch.linspace(1, 0, STEPS + 1)[:-1].tolist()
    out = theirs(
        PROMPT, negative_prompt="", height=32, width=32, guidance_scale=4.0, sigmas=sigmas, latents=latents, output_type="np"
    ).images  # fmt: skip
    assert ours.std() > 1  # not one grey
    exact = (decoded[0][0, :, 0].clamp(-1, 1) + 1).permute(1, 2, 0).numpy() / 2
    assert np.abs(exact - out[0]).max() < 1e-3
    assert np.abs(ours[0].astype(int) - np.rint(out[0] * 255).astype(int)).max() <= 1


def test_it_makes_videos_at_once(converted: tuple[Path, Converted]) -> None:
    model = videodit.load(converted[0])
    assert model.size == Size(8, *EXTENT)
    assert model.generate(PROMPT, steps=2).shape == (8, *EXTENT, 3)


@pytest.mark.usefixtures("unchecked")
def test_training_goes_on_from_it(converted: tuple[Path, Converted], tmp_path: Path) -> None:
    start = converted[0]
    run = BackboneRun(
        output=tmp_path / "run", start=start, autoencoder=start, size=Size(8, *EXTENT), steps=2, batch=2, clips=3, pictures=3,
        precision="fp32", joint=Joint(video_probability=0.5), sampling=tiny.SAMPLING,
    )  # fmt: skip
    assert planning.plan(run)["trained"] == models.parameters(models.load_backbone(start))
    assert len(recipes.train(run)) == 2
    after = videodit.load(tmp_path / "run" / "model")
    assert after.generate(PROMPT, steps=1).shape == (8, *EXTENT, 3)


# --- And back ---


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_a_round_trip_gives_the_same_bits(precision: torch.dtype, tmp_path: Path) -> None:
    source = tiny_sd3.pipeline(tmp_path, precision)
    pipeline.to_video(source, tmp_path / "video")
    done = pipeline.to_diffusers(tmp_path / "video", tmp_path / "back")
    before, after = (sources.weights_in(folder / "transformer") for folder in (source, tmp_path / "back"))
    before.pop(TABLE)  # a table that their class makes
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert all(value.dtype == precision for value in after.values()) and done.whole and done.left > 0
    described = sources.described_in(source / "transformer")
    assert {key: sources.described_in(tmp_path / "back" / "transformer")[key] for key in described if key[0] != "_"}.items() <= (
        described.items()
    )


def test_diffusers_reads_what_goes_back(converted: tuple[Path, Converted], source: Path, tmp_path: Path) -> None:
    pipeline.to_diffusers(converted[0], tmp_path / "back")
    pictures = []
    for folder in (source, tmp_path / "back"):
        theirs = StableDiffusion3Pipeline.from_pretrained(folder, local_files_only=True)
        theirs.set_progress_bar_config(disable=True)
        latents = noise(3, [0], (8, 1, 4, 4))[:, :, 0]
        pictures.append(theirs(PROMPT, height=32, width=32, num_inference_steps=2, latents=latents, output_type="np").images)
    np.testing.assert_allclose(pictures[0], pictures[1], atol=2e-3)  # the image autoencoder went through fp32


def test_a_transformer_alone_goes_there_and_back(source: Path, tmp_path: Path) -> None:
    done = pipeline.to_video(source / "transformer", tmp_path / "video")
    assert not done.whole and done.proof is not None and done.proof.autoencoder is None
    pipeline.to_diffusers(tmp_path / "video", tmp_path / "back")
    before, after = (sources.weights_in(folder) for folder in (source / "transformer", tmp_path / "back"))
    assert all(torch.equal(after[name], before[name]) for name in after) and before.keys() - after.keys() == {TABLE}
    with pytest.raises(UserError, match="a transformer alone, not a whole model"):
        videodit.load(tmp_path / "video")


def test_copies_beside_the_blocks_stay_here(source: Path, tmp_path: Path) -> None:
    done = pipeline.to_video(source / "transformer", tmp_path / "video", layout="beside")
    before = sources.weights_in(source / "transformer")
    before.pop(TABLE)
    image = sum(value.numel() for value in before.values())
    assert done.proof is not None and done.proof.difference <= 1e-5 and done.proof.blocks > image // 2
    back = pipeline.to_diffusers(tmp_path / "video", tmp_path / "back")
    after = sources.weights_in(tmp_path / "back")
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert back.parameters == image and back.left == done.parameters - image


@pytest.mark.parametrize("layout", get_args(Variant))
def test_what_goes_back_is_the_model_on_one_frame(layout: Variant, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = tiny.randomised(backbone.build(replace(tiny_sd3.SETTINGS, video=True, layout=layout, window=2)).eval())
    silent = ("video.out.", *(f"blocks.{i}.to_" for i in range(tiny_sd3.SETTINGS.depth)))
    for name, parameter in network.named_parameters():
        parameter.data.mul_(not name.startswith(silent))
    models.save_backbone(tmp_path / "video", network, models.Provenance(), torch.float32)
    if layout not in ("global", "spatial", "factorised", "divided", "beside"):
        with pytest.raises(UserError, match=f"the layout {layout} is no image model that diffusers has"):
            pipeline.to_diffusers(tmp_path / "video", tmp_path / "back")
        assert not (tmp_path / "back").exists()
        return
    pipeline.to_diffusers(tmp_path / "video", tmp_path / "back")
    noisy, t = tiny.grid(1, 8, 1, 8, 8), torch.tensor([0.4])
    text = tiny.text([5], tiny_sd3.WIDTH)._replace(pooled=tiny.grid(1, tiny_sd3.POOLED), mask=None)
    with torch.no_grad():
        ours, theirs = network(noisy, t, text), SD3.call(sources.read(tmp_path / "back").theirs(), noisy, t, text)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_a_toybox_model_does_not_go_to_diffusers(world: tiny.World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Diffusers has no such transformer"):
        pipeline.to_diffusers(world.video_model, tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


# --- What is wrong ---


def test_nothing_is_written_over(source: Path, tmp_path: Path) -> None:
    for action in (pipeline.to_video, pipeline.to_diffusers):
        with pytest.raises(UserError, match="exists: give a folder that does not"):
            action(source, tmp_path)
        with pytest.raises(UserError, match="does not exist"):
            action(source, tmp_path / "no" / "such")


def test_parts_that_do_not_belong_together_are_said(copied: Path, tmp_path: Path) -> None:
    tiny.image_autoencoder(latent_channels=4).save_pretrained(copied / "vae")
    with pytest.raises(UserError, match="latents of 8 channels, the autoencoder makes 4"):
        pipeline.to_video(copied, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [({"use_dynamic_shifting": True}, "without use_dynamic_shifting"), ({"shift": None}, "shift = None, which is no number")],
)
def test_a_schedule_that_is_not_read_is_said(change: dict[str, object], said: str, copied: Path, tmp_path: Path) -> None:
    changed(copied / "scheduler" / "scheduler_config.json", **change)
    with pytest.raises(UserError, match=said):
        pipeline.to_video(copied, tmp_path / "out")


@pytest.mark.parametrize("part", ["vae", "tokenizer_2", "text_encoder", "transformer", "scheduler"])
def test_a_missing_part_is_said(part: str, copied: Path, tmp_path: Path) -> None:
    shutil.rmtree(copied / part)
    with pytest.raises(UserError, match=part):
        pipeline.to_video(copied, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_copied_model_whose_text_was_spoiled_is_said(converted: tuple[Path, Converted], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(converted[0], tmp_path / "model"))
    weights = folder / "text" / "text_encoder" / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    with pytest.raises(UserError, match="is not the file that was saved"):
        models.load(folder)


@pytest.mark.parametrize(
    ("how", "said"), [({"frames": 8}, "--frames"), ({"fps": 8.0}, "--fps"), ({"extent": (32, 32)}, "--size"), ({"time": 2}, "--time")]
)
def test_what_a_transformer_alone_cannot_have_is_said(source: Path, tmp_path: Path, how: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"{said} is for a whole model"):
        pipeline.to_video(source / "transformer", tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_an_extent_that_does_not_fit_is_said(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="30 rows do not fit"):
        pipeline.to_video(source, tmp_path / "out", extent=(30, 32))
