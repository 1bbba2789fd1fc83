"""Runs whose clips and pictures are told of at a lower resolution: what they read, how they start, what they leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import films
import tiny
import videodit
from videodit import config, given, models
from videodit.adapters import LoRA
from videodit.data import toybox, video
from videodit.data.buckets import Bucketed
from videodit.data.sources import Folder
from videodit.diffusion.tasks import Tasks
from videodit.diffusion.upscaling import Upscale
from videodit.shapes import UserError
from videodit.train import backbone, planning, pools, prepare, recipes
from videodit.train.backbone import BackboneRun, Joint
from videodit.train.latents import Latents
from videodit.train.looks import Looks
from videodit.upscale import upscaled

pytestmark = pytest.mark.usefixtures("unchecked")
PROMPT = "a red circle moves right"


def run(world: tiny.World, folder: Path, **changes: object) -> BackboneRun:
    made = tiny.runs(world, folder, steps=3)["video"]
    assert isinstance(made, BackboneRun)
    return replace(made, **{"start": world.video_model, "upscale": Upscale(), "output": folder / "out" / "run", **changes})


@pytest.mark.parametrize("most", [0.0, 0.5])
def test_clips_and_pictures_are_told_of_at_a_lower_resolution(world: tiny.World, tmp_path: Path, most: float) -> None:
    """Under a share of noise that is said, of each its own; without noise they are what was encoded."""
    settings = run(world, tmp_path, upscale=Upscale(most=most, softened=0.0))
    coder = models.load_autoencoder(settings.autoencoder)
    data, seen, shares = Latents(settings, coder, None, "nothing"), set(), []
    for step in range(12):
        batch = data.batch(step)
        moves = batch.clean.shape[2] > 1
        seen.add(moves)
        assert batch.given is not None and batch.given.hint is not None and not batch.given.holds
        mask, latents = batch.given.hint[:, :1], batch.given.hint[:, 1:]
        for i in range(len(mask)):
            which = next(n for n, one in enumerate(tiny.latents(data.pools[moves])) if torch.equal(batch.clean[i], one.float()))
            draw, size = (toybox.clip, settings.size) if moves else (toybox.picture, tiny.PICTURE)
            pixels = torch.from_numpy(draw(settings.seed, which, size).video).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
            with torch.no_grad():
                low = given.encode_low(coder, pixels, 2)[0].half()
            share = 1 - float(mask[i].mean())
            shares.append(share)
            assert mask[i].unique().numel() == 1 and 0 <= share <= most
            if most == 0:
                torch.testing.assert_close(latents[i], low.float(), rtol=0, atol=2e-3)
            elif share > 0.1:
                over = (mask[i] * latents[i] - (1 - share) * low.float()) / share
                assert abs(over.mean()) < 0.5 and 0.7 < over.std() < 1.3
    assert seen == {False, True} and len(set(shares)) == (1 if most == 0 else len(shares))


def test_a_run_starts_as_the_model_it_starts_from_bit_for_bit(world: tiny.World, tmp_path: Path) -> None:
    job = backbone.job(run(world, tmp_path))
    batch, words = job.batch(0), tiny.text([3] * 4)
    before = models.load_backbone(world.video_model)
    with torch.no_grad():
        after = job.network["backbone"].eval()(batch.noise, batch.times, words, hint=batch.given.hint)
        assert torch.equal(after, before(batch.noise, batch.times, words))


def test_it_leaves_a_model_that_makes_larger_and_another_run_goes_on_from_it(world: tiny.World, tmp_path: Path) -> None:
    settings = run(world, tmp_path, upscale=Upscale(factor=4, most=0.2))
    figures = recipes.train(settings)
    assert all(np.isfinite(value) for step in figures for value in step.values())
    assert any(name.startswith("loss [t ") for step in figures for name in step)
    folder = settings.output / "model"
    model = videodit.load(folder)
    assert model.model.settings.upscale == Upscale(factor=4, most=0.2) and model.model.backbone.hints.proj.weight.any()  # type: ignore[union-attr]
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    assert upscaled(model, small, PROMPT).shape == (8, 32, 32, 3)
    again = replace(settings, output=tmp_path / "again", start=folder)
    assert torch.equal(backbone.job(again).network["backbone"].hints.proj.weight.half(), model.model.backbone.hints.proj.weight.half())  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"makes clips larger: go on with upscale\.factor=4"):
        backbone.job(replace(again, upscale=None))


def test_older_folders_make_clips_of_their_own(world: tiny.World) -> None:
    path = world.video_model / "model.toml"
    words = path.read_text()
    assert "upscale" in words
    older = "\n".join(line for line in words.splitlines() if "upscale" not in line)
    assert config.parse(models.ModelFolder, older).upscale is None


@pytest.mark.usefixtures("few_sentences")
def test_a_run_from_nothing_and_with_pictures_along(world: tiny.World, tmp_path: Path) -> None:
    """Pictures that train along are told of too, under noise of their own."""
    settings = run(world, tmp_path, start=None, preset="toybox-tiny", text=tiny.TEXT, joint=Joint(video_probability=1.0, appended=2))
    job = backbone.job(settings)
    batch = job.batch(0)
    assert batch.appended is not None and batch.appended.given is not None and len(batch.appended.given.hint) == 8  # type: ignore[arg-type]
    assert torch.isfinite(job.loss(0, batch)[0]) and job.network["backbone"].hints is not None
    one, other = (x.given.hint[:4, 0].flatten(1)[:, 0] for x in (batch, batch.appended))  # type: ignore[union-attr, index]
    assert not torch.equal(one, other)


def test_what_is_told_decides_the_answer(world: tiny.World, tmp_path: Path) -> None:
    settings = run(world, tmp_path)
    job = backbone.job(settings)
    batch = job.batch(0)
    tiny.randomised(job.network["backbone"].hints)
    other = batch._replace(given=batch.given._replace(hint=batch.given.hint.flip(0)))
    assert (job.loss(0, batch)[0] - job.loss(0, other)[0]).abs() > 1e-4


@pytest.mark.parametrize("drawn", [True, False])
def test_a_prepared_run_encodes_nothing(world: tiny.World, tmp_path: Path, drawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = run(world, tmp_path)
    if not drawn:
        (tmp_path / "mine").mkdir()
        for i in range(2):
            video.write(tmp_path / "mine" / f"{i}.webp", films.numbered(20)[5 * i : 5 * i + 9], 8)
            (tmp_path / "mine" / f"{i}.txt").write_text(f"a film {i}\n")
        settings = replace(settings, data=Folder(path=tmp_path / "mine"))
    plain = replace(settings, upscale=None, output=settings.output.with_name("plain"))
    assert prepare.prepare(plain).new > 0
    prepared = prepare.prepare(settings)
    assert prepared.new == (2 if drawn else 4)  # of drawn scenes, whose latents are there: what is told of clips, and of pictures
    assert prepare.prepare(settings).new == prepare.prepare(plain).new == 0
    other = prepare.prepare(replace(settings, upscale=Upscale(factor=4)))
    assert other.new == prepared.new
    monkeypatch.setattr(pools, "encoded", lambda *rest: pytest.fail("something was encoded"))
    recipes.train(settings)


def test_a_plan_counts_what_is_told(world: tiny.World, tmp_path: Path) -> None:
    settings = run(world, tmp_path)
    told, plain = planning.plan(settings), planning.plan(replace(settings, upscale=None))
    network = backbone.job(settings).network
    learnt = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert told["trained"] == learnt == plain["trained"] + sum(p.numel() for p in network["backbone"].hints.parameters())
    latents = 2 * 8 * 4 * 4 * (12 * 2 + 12)  # half precision, of twelve clips of two latent frames and twelve pictures
    assert told["cache_bytes"] - plain["cache_bytes"] == latents


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": Tasks(first=1.0)}, "upscale tells of whole clips of one size"),
        ({"sizes": Bucketed(), "data": Folder(path=Path("x"))}, "upscale tells of whole clips of one size"),
        ({"lora": LoRA()}, "upscale and sight add layers"),
        ({"upscale": Upscale(factor=3)}, "32 rows are not 3 times as many"),
        ({"looks": Looks(every=5)}, "looks make clips from words alone"),
    ],
)
def test_what_does_not_go_together_is_refused(world: tiny.World, tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(world, tmp_path, **changes)


def test_models_that_are_told_otherwise_are_refused(world: tiny.World, tmp_path: Path) -> None:
    lone = run(world, tmp_path, upscale=None, tasks=Tasks(first=1.0, clips=8), lone="channels", steps=1)
    recipes.train(lone)
    with pytest.raises(UserError, match="is told of lone pictures as upscale tells of clips"):
        backbone.job(run(world, tmp_path, start=lone.output / "model", output=tmp_path / "other"))
    larger = run(world, tmp_path, steps=0, output=tmp_path / "larger")
    recipes.train(larger)
    decoder = tiny.runs(world, tmp_path, steps=1)["decoder"]
    with pytest.raises(UserError, match="makes clips larger and samples none by itself"):
        recipes.JOBS["decoder"](replace(decoder, model=larger.output / "model"))  # type: ignore[call-arg]
