"""A transformer is only taken on by an autoencoder whose latents it knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor

import tiny
from videodit import backbone, config, models
from videodit.adapters import LoRA
from videodit.autoencoder import DPVAESettings, PerFrame, inflate
from videodit.data.labels import Labels, LabelSettings
from videodit.diffusion.objectives import Diffusion
from videodit.models import Provenance
from videodit.shapes import Size, UserError
from videodit.train import checkpoint, planning, recipes
from videodit.train.backbone import BackboneRun, Joint
from videodit.train.starting import seen, starting, told


def test_a_latent_space_is_that_of_the_image_autoencoder(world: tiny.World) -> None:
    """Whatever was trained beside it, and however it was saved."""
    spaces = {models.latent_space(models.load_autoencoder(folder)) for folder in (world.image_autoencoder, world.autoencoder)}
    spaces |= {models.latent_space(models.load(folder).autoencoder) for folder in (world.image_model, world.video_model)}
    spaces.add(models.latent_space(PerFrame(tiny.image_autoencoder())))
    assert len(spaces) == 1
    other = tiny.image_autoencoder()
    with torch.no_grad():
        other.encoder.conv_in.weight[0, 0, 0, 0] += 0.01
    assert models.latent_space(inflate(other)) not in spaces
    assert models.latent_space(inflate(tiny.image_autoencoder(scaling=0.9))) not in spaces


def test_latents_of_another_autoencoder_are_refused(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["video"]
    assert isinstance(run, BackboneRun)
    other = tiny.image_autoencoder(shift=0.2)
    models.save_autoencoder(tmp_path / "other", inflate(other), Provenance())
    with pytest.raises(UserError, match="have other latents: convert a model of the same image autoencoder"):
        recipes.train(replace(run, autoencoder=tmp_path / "other"))


def test_the_latents_of_clips_are_e_r_s_and_its_groups_too() -> None:
    known = models.clip_space(dpvae := tiny.dpvae(trained=True))
    assert models.clip_space(PerFrame(dpvae.image)) == models.latent_space(dpvae) != known
    with torch.no_grad():
        for part, alike in ((dpvae.decoder, True), (dpvae.encoder, False)):
            part.conv_out.module.bias += 0.1
            assert (models.clip_space(dpvae) == known) == alike
    changes = {"step": 2, "window": 3, "time": 2, "first": "alone", "reach": "causal", "keys": False}
    made = {name: tiny.dpvae(trained=True, settings=replace(DPVAESettings(), **{name: value})) for name, value in changes.items()}
    assert [name for name, one in made.items() if models.clip_space(one) == known] == ["step", "window"]
    causal = [tiny.dpvae(trained=True, settings=DPVAESettings(reach="causal", window=window)) for window in (8, 3)]
    assert models.clip_space(causal[0]) == models.clip_space(made["reach"]) != models.clip_space(causal[1])


def test_a_model_whose_clips_were_other_latents_is_said(world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["video"]
    assert isinstance(run, BackboneRun)
    other = tiny.dpvae(trained=True)
    with torch.no_grad():
        other.encoder.conv_out.module.bias += 0.1
    converted = models.load(world.video_model)
    proved = replace(converted.settings, provenance=Provenance(proof=models.Proof()))
    models.save(tmp_path / "converted", replace(converted, settings=proved))
    same = models.load_autoencoder(world.autoencoder)
    cases = ((world.video_model, other, True), (world.video_model, same, False), (world.image_model, other, False))
    for start, autoencoder, heard in (*cases, (tmp_path / "converted", other, False)):
        starting(replace(run, start=start), autoencoder)
        assert ("learnt clips in other latents than" in capsys.readouterr().err) == heard


@pytest.mark.parametrize(("kind", "size"), [("video", (0, 32, 32)), ("video", (-8, 32, 32)), ("video", (8, 8, 8)), ("image", (1, 8, 8))])
def test_extents_that_nothing_can_be_made_of_are_refused(world: tiny.World, tmp_path: Path, kind: str, size: tuple[int, int, int]) -> None:
    run = tiny.runs(world, tmp_path, steps=1)[kind]
    assert isinstance(run, BackboneRun)
    autoencoder = models.load_autoencoder(run.autoencoder)
    with pytest.raises(UserError, match=r"frames, rows and columns start at 1|latent rows do not fit patches of 2"):
        starting(replace(run, size=Size(*size)), autoencoder)


def test_conversions(world: tiny.World, tmp_path: Path) -> None:
    """What a run makes of an image model: global attention without places in time, or copies that learn beside frozen blocks."""
    run = tiny.runs(world, tmp_path, steps=1)["video"]
    assert isinstance(run, BackboneRun)
    autoencoder = models.load_autoencoder(world.autoencoder)
    flat = starting(replace(run, conversion=replace(run.conversion, branch=False)), autoencoder)["backbone"]
    assert flat.video is None and not flat.settings.video
    like_paper = replace(run, conversion=replace(run.conversion, layout="beside"))
    beside = starting(like_paper, autoencoder)["backbone"]
    trained = {name for name, parameter in beside.named_parameters() if parameter.requires_grad}
    assert beside.settings.layout == "beside" and trained and not any(".spatial." in name for name in trained)
    with pytest.raises(UserError, match=r"sees time already, by global: leave conversion.layout out"):
        starting(replace(like_paper, start=world.video_model), autoencoder)
    flat = replace(run, conversion=replace(run.conversion, branch=False))
    with pytest.raises(UserError, match=r"sees time already, by global: leave conversion.branch out"):
        starting(replace(flat, start=world.video_model), autoencoder)
    for name, still in (("layout", like_paper), ("branch", flat)):
        with pytest.raises(UserError, match=rf"size has one frame no model is converted: leave conversion.{name} out"):
            starting(replace(still, size=tiny.PICTURE), autoencoder)


def test_what_learned_clips_is_not_converted_again(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["video"]
    assert isinstance(run, BackboneRun)
    for layout, frames, converted in (("global", 1, True), ("global", 4, False), ("spatial", 4, True), ("interleaved", 1, False)):
        start = models.ModelFolder(size=run.size._replace(frames=frames), backbone=backbone.DiT(layout=layout, time="table"))
        assert seen(start, run) == (replace(start.backbone, layout="global", time="none", video=True) if converted else start.backbone)


def test_a_shape_stands_in_a_presets_place(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["video"]
    assert isinstance(run, BackboneRun)
    wanted = replace(backbone.PRESETS["latte-xl-v4-tiny"], channels=1, variance=True)
    run = replace(run, start=None, backbone=wanted, preset="none of these")
    autoencoder = models.load_autoencoder(world.autoencoder)
    network = starting(run, autoencoder)
    assert network["backbone"].settings == replace(wanted, channels=autoencoder.channels, variance=False)
    assert network["text"].takes == "nothing" and config.parse(recipes.Recipe, config.write(run)) == run


# --- Pictures that train along with clips ---


@pytest.mark.usefixtures("unchecked", "few_sentences")
@pytest.mark.parametrize("each", ["clip", "frame"])
@pytest.mark.parametrize("preset", ["latte-xl-v2-tiny", "toybox-tiny"])
def test_pictures_train_along_as_if_they_stood_behind_their_clip(
    preset: str, each: Literal["clip", "frame"], world: tiny.World, tmp_path: Path
) -> None:
    """The loss is that of one call in which they are the last frames, each with a label or words of its own: every frame counts alike."""
    run = tiny.runs(world, tmp_path, steps=1)["video from nothing"]
    assert isinstance(run, BackboneRun)
    shape = backbone.PRESETS[preset]
    run = replace(
        run, preset=preset, backbone=replace(shape, labels=1) if isinstance(shape, backbone.DiT) else shape, precision="fp32", words=0.0,
        joint=Joint(video_probability=1.0, appended=2), times=replace(run.times, each=each),
    )  # fmt: skip
    job = recipes.JOBS["backbone"](run)
    network, text = job.network["backbone"], job.network["text"]
    tiny.randomised(network)
    batch = job.batch(3)
    loss, figures = job.loss(3, batch)
    along = batch.appended
    assert along is not None and len(along.clean) == 2 * len(batch.clean) and len({*figures} & {"video", "image"}) == 2

    def behind(one: Tensor, other: Tensor) -> Tensor:
        return torch.cat([one, rearrange(other, "(b i) c 1 h w -> b c i h w", i=2)], dim=2)

    clean, noise = behind(batch.clean, along.clean), behind(batch.noise, along.noise)
    frames = batch.clean.shape[2]
    t = batch.times if each == "clip" else torch.cat([batch.times, along.times.view(-1, 2)], dim=1)
    if each == "clip":
        assert torch.equal(along.times.view(-1, 2), batch.times[:, None].expand(-1, 2))
    whole = network(run.objective.corrupt(clean, noise, t), t, (text(batch.text), text(along.text)), images=2)
    torch.testing.assert_close(loss, (whole - (noise - clean)).square().mean(), rtol=1e-5, atol=1e-6)
    alone, _ = job.loss(3, batch._replace(appended=None))
    assert figures["tokens"] == job.loss(3, batch._replace(appended=None))[1]["tokens"] * (frames + 2) / frames and alone != loss


@pytest.mark.usefixtures("unchecked")
def test_a_run_with_pictures_along_is_planned_and_trains(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=2)["video"]
    assert isinstance(run, BackboneRun)
    run = replace(run, joint=Joint(video_probability=1.0, appended=3))
    assert [set(figures) >= {"video", "image"} for figures in recipes.train(run)] == [True, True]
    plain = replace(run, joint=Joint(video_probability=1.0))
    more, less = (planning.plan(one, whole=False)["cache_bytes"] for one in (run, plain))
    assert more > less > 0  # pictures are encoded too
    with pytest.raises(UserError, match="0 or more pictures, not -1"):
        replace(run, joint=Joint(appended=-1))


# --- What a run starts from ---


def test_a_plan_counts_what_muon_keeps_and_pictures_along(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["video from nothing"]
    assert isinstance(run, BackboneRun)
    run = replace(run, steps=2, optimizer=replace(run.optimizer, muon=1e-3), joint=Joint(video_probability=1.0, appended=2))
    recipes.train(run)
    (path,) = checkpoint.found(run.output / "checkpoints")
    real = sum(x.nbytes for file in path.glob("*.safetensors") for name, x in load_file(file).items() if not name.endswith("/step"))
    plan = planning.plan(run)
    assert plan["checkpoint_bytes"] == real * run.checkpoint.keep and plan["samples"] == 2 * run.batch * 3


def test_a_model_of_another_objective_is_refused_where_its_answers_have_other_numbers(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["video from nothing"]
    assert isinstance(run, BackboneRun)
    shape = replace(backbone.PRESETS["latte-xl-v2-tiny"], channels=8, variance=True)
    text = Labels(LabelSettings())
    settings = models.ModelFolder(size=tiny.CLIP, text=text.settings, backbone=shape, objective=Diffusion(variance=True))
    models.save(tmp_path / "start", models.Model(settings, tiny.dpvae(trained=True), text, backbone.build(shape)))
    with pytest.raises(UserError, match=r"set \[objective\] as in its model.toml, whose answers have a variance"):
        starting(replace(run, start=tmp_path / "start"), models.load_autoencoder(world.autoencoder))
    with pytest.raises(UserError, match="whose answers lack a variance"):
        starting(replace(run, start=world.image_model, objective=Diffusion(variance=True)), models.load_autoencoder(world.autoencoder))


def test_settings_that_would_change_nothing_are_refused(world: tiny.World, tmp_path: Path) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["video from nothing"]
    assert isinstance(run, BackboneRun)
    with pytest.raises(UserError, match="set start, or the depth in"):
        replace(run, conversion=replace(run.conversion, depth=9))
    with pytest.raises(UserError, match="lone=channels, upscale and sight add layers"):
        replace(run, start=world.video_model, lora=LoRA(), lone="channels", tasks=replace(run.tasks, first=0.5))


def test_what_a_model_was_told_by_is_not_lost_silently(world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny.runs(world, tmp_path, steps=1)["video"]
    assert isinstance(run, BackboneRun)
    tasks = replace(run.tasks, first=0.5)
    with_hints = starting(replace(run, lone="channels", tasks=tasks), models.load_autoencoder(world.autoencoder))["backbone"]
    assert with_hints.hints is not None
    assert told(with_hints, replace(run, tasks=tasks)).hints is None
    assert "was told by hints of what is given" in capsys.readouterr().err
