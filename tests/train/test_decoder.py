"""A decoder that learns from what the sampler leaves: nothing else of the model changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tiny
from videodit import models
from videodit.autoencoder import DPVAE
from videodit.data import toybox, video
from videodit.data.clips import Clips
from videodit.data.sources import Folder
from videodit.diffusion.times import Times
from videodit.shapes import UserError
from videodit.train import decoder, recipes
from videodit.train.decoder import DecoderRun, Noised


@pytest.fixture
def run(world: tiny.World, tmp_path: Path) -> DecoderRun:
    run = tiny.runs(world, tmp_path, steps=30)["decoder"]
    assert isinstance(run, DecoderRun)
    return run


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def latents(run: DecoderRun) -> dict[str, Tensor]:
    model = models.load(run.model)
    rows = decoder.sampled(run, model, decoder.reader(run, model))
    return {name: rows.together(name, range(len(rows))) for name in rows.tensors}


def test_only_the_decoder_changes_and_it_learns(run: DecoderRun) -> None:
    history = recipes.train(run)
    assert sum(step["loss"] for step in history[-10:]) < 0.9 * sum(step["loss"] for step in history[:10])
    before, after = models.load(run.model), models.load(run.output / "model")
    assert isinstance(before.autoencoder, DPVAE) and isinstance(after.autoencoder, DPVAE)
    pairs = [(getattr(before.autoencoder, part), getattr(after.autoencoder, part)) for part in ("image", "encoder", "decoder")]
    same = [
        all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(other).values(), strict=True))
        for one, other in [*pairs, (before.backbone, after.backbone), (before.text, after.text)]
    ]
    assert same == [True, True, False, True, True]
    assert after.settings.provenance is not None and after.settings.provenance.run == "decoder"


def test_what_is_not_noised_comes_back_as_it_was(run: DecoderRun) -> None:
    still = latents(replace(run, noised=Noised(least=0.0, most=0.0)))
    assert torch.equal(still["clean"], still["sampled"])
    far = latents(run)
    assert torch.equal(far["clean"], still["clean"]) and (far["sampled"] - far["clean"]).abs().mean() > 0.01


def test_clips_are_sampled_once_and_kept(run: DecoderRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "AT_ONCE", 4)
    before = latents(run)
    monkeypatch.setattr(decoder, "sampler_of", None)  # nothing is sampled again
    after = latents(run)
    assert before["sampled"].shape[0] == 6 and all(torch.equal(before[name], after[name]) for name in before)


def test_an_error_that_stays_is_none_of_what_changes(run: DecoderRun, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [decoder.job(replace(run, temporal=weight)) for weight in (0.0, 2.0)]
    batch = jobs[0].batch(0)

    def losses(wrong: Tensor) -> list[float]:
        monkeypatch.setattr(DPVAE, "decode_step", lambda self, latents: torch.zeros(1, 3, len(wrong), 2, 2) + wrong[:, None, None])
        monkeypatch.setattr(DPVAE, "whole_groups", lambda self, video: torch.zeros(1, 3, len(wrong), 2, 2))
        return [float(job.loss(0, batch)[0]) for job in jobs]

    assert losses(torch.full((4,), 0.5)) == pytest.approx([0.25, 0.25])
    assert losses(torch.tensor([0.5, -0.5, 0.5, -0.5])) == pytest.approx([0.25, 2.25])


def test_models_without_such_a_decoder_are_refused(world: tiny.World, run: DecoderRun) -> None:
    with pytest.raises(UserError, match="frame by frame, by the image model's own decoder: there is nothing to train"):
        decoder.job(replace(run, model=world.image_model))
    with pytest.raises(UserError, match=r"noised takes 0 <= least <= most < 1, not 0\.5 and 0\.3"):
        Noised(least=0.5, most=0.3)
    with pytest.raises(UserError, match="clean 0 to 1"):
        replace(run, clean=1.5)
    with pytest.raises(UserError, match=r"temporal takes a weight of 0 or more, not -1\.0"):
        replace(run, temporal=-1.0)


def test_clips_of_files_have_no_words(run: DecoderRun) -> None:
    model = models.load(run.model)
    pixels = decoder.reader(replace(run, files=Clips(share=0.5)), model)
    assert decoder._words(run, model, pixels, 1) == toybox.sentence(0, 1)
    pixels.shots = object()  # pyright: ignore[reportAttributeAccessIssue]
    said = [decoder._words(run, model, pixels, index) for index in range(20)]
    assert {bool(words) for words in said} == {True, False}
    assert all(bool(words) != pixels.filmed(index) for index, words in enumerate(said))


def test_another_film_of_the_same_name_is_sampled_back_anew(run: DecoderRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[range] = []
    monkeypatch.setattr(decoder, "_back", lambda settings, model, pixels, some: (made.append(some), {"clean": torch.zeros(6)})[1])
    run, model = replace(run, data=Folder(path=tmp_path / "mine")), models.load(run.model)
    (tmp_path / "mine").mkdir()
    for seed in (1, None, 2):
        if seed is not None:
            video.write(tmp_path / "mine" / "a.mp4", toybox.clip(seed, 0, tiny.CLIP).video, 8)
        decoder.sampled(run, model, decoder.reader(run, model))
    assert made == [range(6), range(6)]


def test_what_decides_how_it_is_sampled_back_decides_what_is_kept(run: DecoderRun, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float] = []
    monkeypatch.setattr(
        decoder, "_back", lambda settings, model, *other: (made.append(model.settings.times.shift), {"clean": torch.zeros(6)})[1]
    )
    model = models.load(run.model)
    pixels = decoder.reader(run, model)
    for shift in (1.0, 3.0, 1.0):
        other = replace(model, settings=replace(model.settings, times=Times(shift=shift)))
        decoder.sampled(run, other, pixels)
    assert made == [1.0, 3.0]


def test_a_sampler_that_begins_at_noise_alone_is_refused(run: DecoderRun, tmp_path: Path) -> None:
    model = models.load(run.model)
    settings = replace(model.settings, sampling=replace(model.settings.sampling, sampler="DDIM"))
    models.save(tmp_path / "other", replace(model, settings=settings))
    with pytest.raises(UserError, match="samples by DDIM, from noise alone"):
        decoder.job(replace(run, model=tmp_path / "other"))
