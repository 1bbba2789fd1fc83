"""Runs that give parts of their clips: what they read, and what counts in their loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from videodit import generate as generating
from videodit import given, models
from videodit.data import sight, toybox
from videodit.data.sources import Folder
from videodit.diffusion.noise import Prior
from videodit.diffusion.tasks import Tasks
from videodit.evaluate import tasks
from videodit.evaluate.judges import TOYBOX
from videodit.generate import Generator
from videodit.parallel import Parallel
from videodit.shapes import Size, UserError
from videodit.train import backbone, planning, prepare, recipes
from videodit.train.backbone import BackboneRun, Joint
from videodit.train.latents import Latents
from videodit.train.pools import Pool
from videodit.train.starting import starting

pytestmark = pytest.mark.usefixtures("unchecked")
ALL = Tasks(none=1.0, first=1.0, last=1.0, both=1.0, prefix=1.0, suffix=1.0, every=1.0, random=1.0, clips=8)


def run(world: tiny.World, folder: Path, **changes: object) -> BackboneRun:
    made = tiny.runs(world, folder, steps=3)["video"]
    assert isinstance(made, BackboneRun)
    return replace(made, **{"tasks": ALL, "joint": Joint(video_probability=1.0), **changes})


def pixels(settings: BackboneRun, i: int) -> Tensor:
    video = torch.from_numpy(toybox.clip(settings.seed, i, settings.size).video)
    return video.permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def test_what_is_given_is_encoded_from_given_pixels_alone(world: tiny.World, tmp_path: Path) -> None:
    settings = run(world, tmp_path)
    coder = models.load_autoencoder(settings.autoencoder)
    data = Latents(settings, coder, None, "nothing")
    clips = [pixels(settings, i) for i in range(8)]
    seen = set()
    for step in range(40):
        batch = data.batch(step)
        if batch.given is None:
            continue
        mask = given.Mask(tuple(i for i in range(2) if batch.given.mask[0, 0, i].any()), tuple(-(p > 0) for p in batch.given.places))
        seen.add(mask)
        whole = [one.float() for one in tiny.latents(data.pools[True])]
        first = next(i for i in range(8) if torch.equal(batch.clean[0], whole[i]))  # one of the clips whose parts are known
        with torch.no_grad():
            for start, stop in mask.runs:
                alone = given.encode_run(coder, clips[first], start, stop)[0]
                torch.testing.assert_close(batch.given.latents[0, :, start:stop], alone, rtol=0, atol=2e-3)
            for at, frame in enumerate(mask.images):
                alone = given.encode_picture(coder, clips[first], frame)[0]
                torch.testing.assert_close(batch.given.images[0, :, at : at + 1], alone, rtol=0, atol=2e-3)
    assert len(seen) == 5  # of two groups: the one, the other; the first frame, the last, both


def test_lone_pictures_are_hints_beside_the_groups_that_they_head(world: tiny.World, tmp_path: Path) -> None:
    settings = run(world, tmp_path, tasks=Tasks(none=0.0, both=1.0, keys=2.0, clips=8), lone="channels")
    coder = models.load_autoencoder(settings.autoencoder)
    data, clips, seen = Latents(settings, coder, None, "nothing"), [pixels(settings, i) for i in range(8)], set()
    for step in range(24):
        batch = data.batch(step)
        assert batch.given is not None and batch.given.hint is not None and not batch.given.mask.any()
        groups = batch.given.hint[0, 0].amax((1, 2)).nonzero().flatten().tolist()
        seen.add((tuple(groups), batch.given.places))
        first = next(i for i in range(8) if torch.equal(batch.clean[0], tiny.latents(data.pools[True])[i].float()))
        for group in groups:
            with torch.no_grad():
                alone = given.encode_picture(coder, clips[first], group * coder.time)[0, :, 0]
            torch.testing.assert_close(batch.given.hint[0, 1:, group], alone, rtol=0, atol=2e-3)
    assert seen == {((0,), (1.75,)), ((0,), ()), ((1,), ()), ((0, 1), ())}  # of two groups: first and last; heads


def test_a_run_with_hints_starts_as_the_model_and_leaves_one_that_meets_a_picture(world: tiny.World, tmp_path: Path) -> None:
    settings = run(world, tmp_path, tasks=Tasks(none=0.0, first=1.0, both=1.0, clips=8), lone="channels")
    begun, plain = (backbone.job(one).network["backbone"].eval() for one in (settings, replace(settings, lone="frames")))
    batch = backbone.job(settings).batch(0)
    assert batch.given is not None and batch.given.hint is not None
    words = tiny.text([3] * len(batch.clean))
    with torch.no_grad():
        assert torch.equal(begun(batch.noise, batch.times, words, hint=batch.given.hint), plain(batch.noise, batch.times, words))
    recipes.train(settings)
    assert planning.plan(settings)["trained"] == sum(p.numel() for p in begun.parameters())
    model = Generator(models.load(settings.output / "model"))
    assert model.model.settings.backbone.hints and model.model.backbone.hints.proj.weight.abs().max() > 0
    made = tasks.make("i2v", model, TOYBOX.world, TOYBOX.scenes("held-out", 2), 0, seed=1)
    picture = toybox.render(TOYBOX.scenes("held-out", 2)[0], model.size)[0]
    met = tasks.squared(made.judged[0][0], tasks._as_image(model, picture))
    assert made.figures[0]["given"] == met > 0  # its frame against D_k(z_k), on pixels
    other = Generator(models.load(world.video_model))
    with pytest.raises(UserError, match="was not trained to go on from given frames"):
        other.generate("a red circle moves right", given={0: picture})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": Tasks(last=1.0)}, "lone=channels is for pictures that head a group"),
        ({"tasks": Tasks(first=1.0), "autoencoder": "image_autoencoder"}, "no picture is less than a group"),
    ],
)
def test_hints_are_refused_where_no_picture_is_lone(world: tiny.World, tmp_path: Path, changes: dict, words: str) -> None:
    changes = {name: getattr(world, value) if isinstance(value, str) else value for name, value in changes.items()}
    with pytest.raises(UserError, match=words):
        backbone.job(run(world, tmp_path, lone="channels", **changes))


def test_passes_that_processes_cannot_share_are_refused_before_the_first(world: tiny.World, tmp_path: Path) -> None:
    """Two latent frames, with a signal each where something is given, by two processes."""
    coder = models.load_autoencoder(world.autoencoder)
    split = run(world, tmp_path, start=world.video_model, parallel=Parallel(sequence=2))
    for name, refused in (("first", "lone pictures, 3 latent frames"), ("both", None), ("prefix", None), ("none", None)):
        settings = replace(split, tasks=Tasks(**{"none": 0.0, name: 1.0, "clips": 8}))
        if refused:
            with pytest.raises(UserError, match=f"Where tasks give {refused} cannot be shared by 2 processes: .* or leave such tasks out"):
                starting(settings, coder)
            with pytest.raises(UserError, match="cannot be shared"):
                planning.plan(settings)
            starting(replace(settings, lone="channels"), coder)
            starting(replace(settings, given="channels"), coder)  # 12 tokens, of which frames may be cut
        else:
            starting(settings, coder)
    with pytest.raises(UserError, match=r"^8 tokens cannot be shared by 3 processes"):
        starting(replace(split, tasks=Tasks(), parallel=Parallel(sequence=3)), coder)


def test_clips_of_one_latent_frame_have_no_parts(world: tiny.World, tmp_path: Path) -> None:
    short = run(world, tmp_path, start=world.video_model, size=Size(4, 32, 32))
    for verb in (backbone.job, partial(planning.plan, whole=False)):
        with pytest.raises(UserError, match="tasks give parts of clips of two latent frames or more"):
            verb(short)


def test_a_model_that_was_told_otherwise_goes_on(world: tiny.World, tmp_path: Path) -> None:
    """What the run does not tell by channels is left out."""
    first = run(world, tmp_path, tasks=Tasks(none=0.0, first=1.0, clips=8), lone="channels", given="channels")
    recipes.train(first)
    again = replace(first, output=tmp_path / "again", start=first.output / "model", lone="frames", given="time")
    network = backbone.job(again).network["backbone"]
    assert network.hints is None and network.given is None and network.settings.given == "time"


def test_what_a_first_frame_shows_is_read_once_learnt_and_kept_in_the_model(world: tiny.World, tmp_path: Path) -> None:
    encoder = sight.load(tiny.sight(tmp_path / "clip"))
    chances = Tasks(none=1.0, first=1.0, last=1.0, prefix=1.0, clips=8)
    settings = run(world, tmp_path, tasks=chances, sight=encoder.folder)
    data, seen = Latents(settings, models.load_autoencoder(settings.autoencoder), None, "nothing"), set()
    for step in range(24):
        batch = data.batch(step)
        if batch.given is None:
            continue
        begins = bool(batch.given.mask[0, 0, 0].any()) or 0.0 in batch.given.places
        seen.add(begins)
        assert (batch.given.picture is not None) == begins
        if batch.given.picture is not None:
            first = next(i for i in range(8) if torch.equal(batch.clean[0], tiny.latents(data.pools[True])[i].float()))
            alone = encoder(pixels(settings, first)[:, :, 0])[0]
            torch.testing.assert_close(batch.given.picture[0], alone, rtol=2e-3, atol=2e-3)
    assert seen == {True, False}
    recipes.train(settings)
    made = models.load(settings.output / "model")
    assert planning.plan(settings)["trained"] == sum(p.numel() for p in made.backbone.parameters())
    assert made.sight and made.sight.content == encoder.content and made.backbone.picture.cross.out.weight.abs().max() > 0
    tiny.randomised(made.backbone.picture)
    generator, blind = Generator(made), Generator(replace(made, sight=None))
    picture = toybox.render(TOYBOX.scenes("held-out", 1)[0], generator.size)[0]
    prompt = "a red circle moves right"
    assert (generator.generate(prompt, given={0: picture}) != blind.generate(prompt, given={0: picture})).any()
    for given_at in ({}, {generator.size.frames - 1: picture}):  # of no first frame anything is shown
        assert (generator.generate(prompt, given=given_at) == blind.generate(prompt, given=given_at)).all()
    again = replace(settings, output=tmp_path / "again", start=settings.output / "model", sight=None, steps=1)
    recipes.train(again)
    kept = models.load(again.output / "model").sight
    assert kept and kept.content == encoder.content
    other = replace(again, output=tmp_path / "other", sight=tiny.sight(tmp_path / "other clip", seed=1))
    with pytest.raises(UserError, match=r"told of pictures by another encoder than .*other clip"):
        backbone.job(other)
    (settings.output / "model" / "sight" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match="is not the file that was saved"):
        models.load(settings.output / "model")


def test_sight_is_refused_where_no_first_frame_is_given(world: tiny.World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sight is for first frames that are given"):
        run(world, tmp_path, tasks=Tasks(last=1.0), sight=tmp_path)


def test_noise_is_lent_a_first_frame_as_in_sampling(world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = run(world, tmp_path, tasks=replace(ALL, every=0.0, random=0.0), prior=Prior(kind="shared", share=0.3, lows=0.4))
    recipes.train(settings)
    model, coder = Generator(models.load(settings.output / "model")), models.load_autoencoder(settings.autoencoder)
    plain, lent = (Latents(replace(settings, prior=replace(settings.prior, lows=lows)), coder, None, "nothing") for lows in (0.0, 0.4))
    clips, begins, seen = [toybox.clip(settings.seed, i, settings.size).video for i in range(8)], [], set()

    def sampler(name: str) -> Callable[..., Tensor]:
        return lambda field, start, *rest: begins.append(start) or start

    monkeypatch.setattr(generating, "sampler_of", sampler)
    for step in range(24):
        one, other = plain.batch(step), lent.batch(step)
        if one.given is None:
            assert torch.equal(one.noise, other.noise)
            continue
        groups = one.given.mask[0, 0].amax((1, 2)).nonzero().flatten().tolist()
        frames = [group * coder.time + i for group in groups for i in range(coder.time)]
        frames += [-1 % settings.size.frames if place else 0 for place in one.given.places]
        which = [next(i for i in range(8) if torch.equal(x, tiny.latents(plain.pools[True])[i].float())) for x in one.clean]
        monkeypatch.setattr(generating, "noise", lambda *told, drawn=one.noise, **more: drawn)
        model.generate(["a star"] * len(which), given=[{frame: clips[i][frame] for frame in frames} for i in which])
        torch.testing.assert_close(
            torch.where(one.given.mask > 0, 0, other.noise), torch.where(one.given.mask > 0, 0, begins[-1]), rtol=0, atol=2e-3
        )
        assert torch.equal(one.noise, other.noise) == (0 not in frames)
        seen.add(tuple(frames))
    assert len(seen) == 5


def test_lows_are_refused_where_no_first_frame_is_given(world: tiny.World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prior\.lows lends noise a given first frame: set tasks\.first"):
        run(world, tmp_path, tasks=Tasks(last=1.0), prior=Prior(lows=0.25))


def test_only_what_is_not_given_counts(world: tiny.World, tmp_path: Path) -> None:
    settings = run(world, tmp_path, tasks=Tasks(none=0.0, prefix=1.0, clips=8))
    job = backbone.job(settings)
    batch = job.batch(0)
    assert isinstance(batch, backbone.Batch) and batch.given is not None
    one, _ = job.loss(0, batch)
    held = batch.given.mask > 0
    other, _ = job.loss(0, batch._replace(clean=torch.where(held, 9.0, batch.clean), noise=torch.where(held, -9.0, batch.noise)))
    assert torch.equal(one, other)
    changed, _ = job.loss(0, batch._replace(clean=torch.where(held, batch.clean, batch.clean + 1)))
    assert (one - changed).abs() > 1e-3


@pytest.mark.parametrize("told", ["noise", "channels", "time"])
def test_such_a_run_leaves_a_model_that_says_how_it_is_told(world: tiny.World, tmp_path: Path, told: str) -> None:
    settings = run(world, tmp_path, given=told)
    figures = recipes.train(settings)
    assert all(torch.isfinite(torch.as_tensor(value)) for step in figures for value in step.values())
    assert models.load(settings.output / "model").settings.backbone.given == told
    assert planning.plan(settings)["trained"] == sum(p.numel() for p in backbone.job(settings).network["backbone"].parameters())
    again = recipes.train(replace(settings, output=tmp_path / "again", start=settings.output / "model"))
    assert len(again) == 3


def test_without_tasks_nothing_is_given(world: tiny.World, tmp_path: Path) -> None:
    settings = run(world, tmp_path, tasks=Tasks())
    job = backbone.job(settings)
    assert all(job.batch(step).given is None for step in range(8))
    assert models.load_backbone(world.image_model).settings.given == job.network["backbone"].settings.given == "refused"


@pytest.mark.parametrize("verb", [recipes.JOBS["backbone"], prepare.prepare, partial(planning.plan, whole=False)])
def test_pictures_beside_groups_need_groups(verb: Callable[[BackboneRun], object], world: tiny.World, tmp_path: Path) -> None:
    settings = run(world, tmp_path, lone="channels", autoencoder=world.image_model)
    with pytest.raises(UserError, match="groups have one frame each"):
        verb(settings)


def test_a_plan_says_how_often_a_clip_is_learnt(world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = run(world, tmp_path, clips=6, tasks=Tasks(none=3.0, first=1.0, clips=3), steps=400)
    data, drawn, draw = Latents(settings, models.load_autoencoder(settings.autoencoder), None, "nothing"), {False: 0, True: 0}, Pool.draw

    def counted(pool: Pool, rng: np.random.Generator, count: int, *, told: bool) -> np.ndarray:
        drawn[told] += count
        return draw(pool, rng, count, told=told)

    monkeypatch.setattr(Pool, "draw", counted)
    for step in range(settings.steps * settings.accumulate):
        data.batch(step)
    plan = planning.plan(settings)
    assert plan["clip_visits"] == pytest.approx(drawn[False] / 6, rel=0.1) and plan["given_visits"] == pytest.approx(
        drawn[True] / 3, rel=0.2
    )


def test_what_tasks_would_do_nothing_for_is_said(world: tiny.World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this run has pictures alone"):
        run(world, tmp_path, tasks=ALL, joint=Joint(video_probability=0.0))
    with pytest.raises(UserError, match=r"leave tasks\.clips out"):
        run(world, tmp_path, tasks=ALL, data=Folder(path=tmp_path))
