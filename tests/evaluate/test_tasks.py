"""What a task is given, and what is measured of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from videodit import backbone
from videodit.autoencoder import DPVAESettings
from videodit.data import toybox
from videodit.evaluate import suite, tasks
from videodit.evaluate.asked import TASKS, Task
from videodit.evaluate.judges import TOYBOX
from videodit.generate import Generator, to_frames
from videodit.given import mask_of
from videodit.models import Model
from videodit.shapes import Size, UserError

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def model() -> Generator:
    made = tiny.model(tiny.dpvae(trained=True), tiny.CLIP)
    network = backbone.build(replace(made.backbone.settings, given="time")).eval()
    network.load_state_dict(made.backbone.state_dict())
    return Generator(Model(replace(made.settings, backbone=network.settings), made.autoencoder, made.text, network))


class Oracle(Generator):
    """Stands for a model that knows every scene, and draws it `late` grey levels too bright."""

    size, late = Size(8, 64, 64), 0

    def __init__(self, model: Generator, wanted: list[toybox.Scene]) -> None:
        object.__setattr__(self, "model", model.model)
        object.__setattr__(self, "wanted", wanted)

    def generate(self, prompt: list[str], *, size: Size | None = None, first: int = 0, **rest: object) -> np.ndarray:
        part = self.wanted[first : first + len(prompt)]
        assert [toybox.prompt(what) for what in part] == prompt
        return np.clip(np.stack([toybox.render(what, size or self.size) for what in part]).astype(int) + self.late, 0, 255).astype(np.uint8)


def test_a_model_that_knows_the_scene_is_right_and_beats_all_copies(model: Generator) -> None:
    for task in ("t2v", "t2i", "i2v", "interpolate", "predict", "suffix", "complete"):
        found = suite.measure(Oracle(model, TOYBOX.scenes("held-out", 6)), TOYBOX, task=task, count=6)
        assert found["model"] == found["truth"] and found["task"] == task
        assert found["shuffled"]["all"] < found["truth"]["all"]
        assert found["sharpness"]["ratio"] == 1 and found["flicker"]["ratio"] == (None if task == "t2i" else 1)
        if task in ("t2v", "t2i"):
            assert "psnr" not in found and (found["model"]["motion"] is None) == (task == "t2i")
        else:
            assert found["psnr"] > 80 > found["reference_psnr"] == max(found["references"].values())


def test_a_model_of_pictures_is_judged_without_motion(model: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Oracle, "size", Size(1, 64, 64))
    found = suite.measure(Oracle(model, TOYBOX.scenes("held-out", 6)), TOYBOX, task="t2v", count=6)
    assert found["truth"]["motion"] is None and found["truth"]["all"] == 1


def test_one_scene_has_no_others_words(model: Generator) -> None:
    found = suite.measure(Oracle(model, TOYBOX.scenes("held-out", 1)), TOYBOX, count=1)
    assert found["shuffled"]["all"] is None and found["truth"]["all"] == 1


@pytest.mark.parametrize(
    ("time", "first", "frames", "known"), [(4, "alone", 9, 1), (4, "group", 12, 4), (2, "group", 6, 2), (1, "group", 5, 2)]
)
def test_whole_groups_are_extended(time: int, first: Any, frames: int, known: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    def extended(model: Any, prompt: str, long: int, *, video: np.ndarray, known: int, **rest: Any) -> Iterator[np.ndarray]:
        told.update(video=len(video), known=known)
        yield np.zeros((long, 8, 8, 3), np.uint8)

    monkeypatch.setattr(tasks, "extended", extended)
    monkeypatch.setattr(tasks, "seams", lambda video, starts: told.update(starts=starts) or np.ones(3))
    monkeypatch.setattr(tasks, "_as_image", lambda model, picture: picture)
    model = object.__new__(type("Sized", (Generator,), {"size": Size(frames, 8, 8)}))
    autoencoder = tiny.dpvae(settings=DPVAESettings(time=time, first=first))
    object.__setattr__(model, "model", SimpleNamespace(autoencoder=autoencoder))
    tasks._extended(model, ["x"], np.zeros((1, frames, 8, 8, 3), np.uint8), 0, {})
    assert told["video"] == told["known"] == known
    assert told["starts"] == list(range(known, 4 * frames, frames - known))


def test_references_are_copies_of_what_is_given(model: Generator) -> None:
    truth = np.stack([np.full((4, 4, 3), level, np.uint8) for level in (0, 10, 20, 30, 40)])
    video = truth + 5
    found = tasks._measured(model, video.repeat(8, 1).repeat(8, 2), truth.repeat(8, 1).repeat(8, 2), [0, 4])
    assert found["model"] == 25 and found["blend"] == 0 and found["repeat"] == pytest.approx(np.mean([100, 400, 100]))
    summed = tasks.summary([found, {**found, "model": 75.0}])
    assert summed["psnr"] == pytest.approx(10 * np.log10(255**2 / 50), abs=1e-3) and summed["reference_psnr"] > 80
    for known, copy in (([0], 750), ([3, 4], np.mean([900, 400, 100]))):
        one = tasks._measured(model, video.repeat(8, 1).repeat(8, 2), truth.repeat(8, 1).repeat(8, 2), known)
        assert one["blend"] == one["repeat"] == pytest.approx(copy)
    some = tasks._measured(model, video.repeat(8, 1).repeat(8, 2), truth.repeat(8, 1).repeat(8, 2), [1, 3])
    assert some["repeat"] == 100 and some["blend"] == pytest.approx(np.mean([100, 0, 100]))


def test_groups_are_given_whole_at_the_end_or_at_random(model: Generator) -> None:
    """What is drawn is the scene's own, whatever stands beside it, and never nothing or all."""
    long = Generator(replace(model.model, settings=replace(model.model.settings, size=Size(16, 32, 32))))
    assert tasks.given_frames("suffix", long, 0) == list(range(8, 16))
    drawn = [tasks.given_frames("complete", long, scene) for scene in range(40)]
    for frames in drawn:
        mask = mask_of(long.model.autoencoder, frames)
        assert not mask.images and 4 * len(mask.frames) == len(frames) and 1 <= len(mask.frames) <= 3
    assert len(set(map(tuple, drawn))) > 10 and drawn == [tasks.given_frames("complete", long, scene) for scene in range(40)]
    alone = DPVAESettings(time=4, reach="causal", keys=False, first="alone")
    causal = Generator(tiny.model(tiny.dpvae(settings=alone), Size(17, 32, 32)))
    assert tasks.given_frames("suffix", causal, 0) == list(range(9, 17))
    short = Generator(replace(model.model, settings=replace(model.model.settings, size=Size(4, 32, 32))))
    with pytest.raises(UserError, match="one group of frames, and suffix gives some of several"):
        tasks.given_frames("suffix", short, 0)


def test_a_scene_is_completed_alike_in_any_batch(model: Generator) -> None:
    wanted = TOYBOX.scenes("seen", 3)
    whole = tasks.make("complete", model, TOYBOX.world, wanted, 0, steps=1)
    last = tasks.make("complete", model, TOYBOX.world, wanted[2:], 2, steps=1)
    assert np.array_equal(whole.judged[2], last.judged[0]) and whole.figures[2] == last.figures[0]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_runs_on_a_model_that_is_told_of_what_is_given(task: Task, model: Generator) -> None:
    found = suite.measure(model, TOYBOX, task=task, count=2, steps=1)
    assert all(value is None or 0 <= value <= 1 for name in ("model", "rebuilt", "truth", "shuffled") for value in found[name].values())
    beside = {"psnr", "reference_psnr", "references", "given_psnr"}
    wanted = {"t2v": set(), "t2i": set(), "extend": beside | {"seam"}}.get(task, beside)
    rows = {"model", "rebuilt", "truth", "shuffled", "flicker", "sharpness", "figures"}
    assert set(found) == {"count", "prompts", "task", "seed"} | rows | wanted
    for name, figure in found["figures"].items():
        at, _, part = name.partition(".")
        value = found[at][part] if part else found[at]
        assert figure["value"] == pytest.approx(value, abs=1e-3) and figure["interval"][0] <= figure["value"] <= figure["interval"][1], name
    assert ("psnr" in found["figures"]) == ("psnr" in wanted) and ("seam" in found["figures"]) == ("seam" in wanted)
    assert suite.measure(model, TOYBOX, task=task, count=2, steps=1) == found


def test_a_model_of_pictures_is_asked_for_no_rest_of_a_video(model: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Oracle, "size", Size(1, 64, 64))
    with pytest.raises(UserError, match="makes pictures, of which predict gives nothing"):
        suite.measure(Oracle(model, TOYBOX.scenes("seen", 1)), TOYBOX, task="predict", count=1)


def test_a_video_is_extended_from_half_a_clip_and_its_end_is_judged(model: Generator) -> None:
    made = tasks.make("extend", model, TOYBOX.world, TOYBOX.scenes("seen", 2), 0, steps=1)
    assert made.judged.shape == (2, *tiny.CLIP, 3) and all(one["seam"] > 0 for one in made.figures)
    summed = tasks.summary(made.figures)
    assert summed["seam"] == pytest.approx(np.mean([one["seam"] for one in made.figures]), abs=1e-3)
    assert summed["psnr"] == round(tasks.psnr(float(np.mean([one["model"] for one in made.figures]))), 3)


def test_the_truth_rebuilt_is_what_the_autoencoder_leaves(model: Generator) -> None:
    wanted = TOYBOX.scenes("held-out", 2)
    for frames in (1, 6, 8):
        drawn = np.stack([toybox.render(what, model.size._replace(frames=frames)) for what in wanted])
        through = model.rebuilt(drawn)
        video = torch.from_numpy(drawn).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        autoencoder = model.model.autoencoder
        with torch.inference_mode():
            by_hand = autoencoder.decode_image(autoencoder.encode_image(video).mode())  # frame by frame
        assert through.shape == drawn.shape
        assert (np.abs(through[:, :1].astype(int) - to_frames(by_hand)[:, :1]).max() <= 1) == (frames == 1)
