"""The drawn worlds, each with its judge: asked the same, measured the same; and how much clips flicker and how sharp they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import tiny
from videodit.data import sprites, toybox
from videodit.data.sources import Sprites, Toybox
from videodit.data.things import THINGS
from videodit.evaluate import judges, suite, surface
from videodit.evaluate import sprites_things as things
from videodit.evaluate.judges import Judge
from videodit.generate import Generator
from videodit.models import Model
from videodit.shapes import Size

SIZE = Size(8, 64, 64)
PARTS = {"toybox": ("shape", "colour", "motion", "all"), "sprites": ("object", "colour", "motion", "background", "count", "place", "all")}


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every thing is a disc of one colour, with a corner of another."""
    folder = tmp_path_factory.mktemp("things")
    y, x = np.mgrid[:33, :33] - 16
    rgba = np.zeros((33, 33, 4), np.uint8)
    rgba[..., 3] = 255 * (np.hypot(x, y) < 16)
    rgba[..., :3] = (250, 90, 200)
    rgba[:16, 16:, :3] = (30, 240, 60)
    for noun in THINGS:
        Image.fromarray(rgba).save(folder / f"{noun}.png")
    return folder


@pytest.fixture
def judge(font: Path) -> Judge:
    return judges.judge(Sprites(font=font))


class Oracle(Generator):
    """Stands for a model that knows every scene, and sees it as `through` makes it."""

    size = SIZE

    def __init__(self, judge: Judge, wanted: list, through=lambda video: video) -> None:
        for name, value in {"model": None, "judge": judge, "wanted": wanted, "through": through}.items():
            object.__setattr__(self, name, value)

    def generate(self, prompt: list[str], *, size: Size | None = None, first: int = 0, **rest: object) -> np.ndarray:
        part = self.wanted[first : first + len(prompt)]
        assert [self.judge.world.prompt(what) for what in part] == prompt
        return np.stack([self.through(self.judge.world.render(what, size or self.size)) for what in part])

    def rebuilt(self, videos: np.ndarray) -> np.ndarray:
        return 255 - videos


def test_scenes_are_what_their_names_say(judge: Judge) -> None:
    held, seen, two = (judge.scenes(name, 40) for name in ("held-out", "seen", "two"))
    assert all((t.noun, t.motion) in sprites.HELD_OUT for what in held for t in what.things)
    assert not any((t.noun, t.motion) in sprites.HELD_OUT for what in (*seen, *two) for t in what.things)
    assert {what.group for what in two} == {"beside"} and {what.group for what in held} == {"one", "alike", "beside"}
    assert all(t.combination in toybox.HELD_OUT for what in judges.TOYBOX.scenes("held-out", 40) for t in what.things)
    assert {len(what.things) for what in judges.TOYBOX.scenes("two", 20)} == {2}
    assert judges.judge(Toybox()) is judges.TOYBOX and judges.TOYBOX.scenes("two", 1) == [toybox.scene(judges.SEED, 0, objects=2)]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("task", ["t2v", "t2i"])
def test_a_model_that_knows_the_scene_is_as_right_as_the_truth(task, judge: Judge) -> None:
    found = suite.measure(Oracle(judge, judge.scenes("held-out", 12)), judge, task=task, count=12)
    assert tuple(found["model"]) == PARTS["sprites"] and found["model"] == found["truth"]
    assert found["truth"]["background"] == 1 and found["truth"]["count"] > 0.8
    assert found["shuffled"]["background"] < 0.6 and (found["model"]["motion"] is None) == (task == "t2i")
    assert found["sharpness"]["ratio"] == 1
    assert found["rebuilt"]["background"] < found["truth"]["background"]  # the negative, which is what this one leaves


def test_no_video_is_held_against_its_own_words_for_chance() -> None:
    for count in range(2, 65):
        order = suite.others(count)
        assert sorted(order) == list(range(count)) and (order != np.arange(count)).all()
    assert suite.others(1) == [0]
    assert (suite.others(200) == np.random.default_rng(judges.SEED).permutation(200)).all()  # as it was


def test_all_of_a_picture_is_everything_but_its_motion() -> None:
    score = {"shape": True, "colour": True, "motion": False, "count": True, "all": False, "background": True}
    assert judges.TOYBOX.rates([score]) == {"shape": 1, "colour": 1, "motion": 0, "all": 0}
    assert judges.TOYBOX.rates([score, {**score, "shape": False}], still=True) == {"shape": 0.5, "colour": 1, "motion": None, "all": 0.5}
    assert judges.TOYBOX.rates([score, {**score, "count": False}], still=True) == {"shape": 1, "colour": 1, "motion": None, "all": 0.5}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.skipif(not things.WEIGHTS.is_file(), reason="the judge's weights are not in this checkout")
@pytest.mark.parametrize("task", ["t2v", "i2v", "extend"])
def test_a_model_is_asked_for_sprites(task, judge: Judge) -> None:
    made = tiny.model(tiny.dpvae(trained=True), tiny.CLIP)
    network = tiny.transformer(given="time")
    model = Generator(Model(replace(made.settings, backbone=network.settings), made.autoencoder, made.text, network))
    found = suite.measure(model, judge, prompts="two", task=task, count=2, steps=1)
    assert found["truth"]["background"] == 1 and set(found["model"]) == set(PARTS["sprites"])
    assert found["flicker"]["model"] > 0 and found["flicker"]["truth"] > 0
    assert {"t2v": "sharpness", "i2v": "psnr", "extend": "seam"}[task] in found


# --- Flicker and sharpness ---


def test_flicker_is_what_is_not_even_motion() -> None:
    ramp = np.arange(0, 80, 10, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    assert surface.flicker(ramp) == 0
    signs = np.array([1, -1] * 4)[:, None, None, None]
    assert surface.flicker((100 + 7 * signs + 0 * ramp).astype(np.uint8)) == 14
    assert surface.flicker(ramp[:2]) is None


def test_sharpness_of_an_edge_is_its_height_over_the_root_of_its_width() -> None:
    def edge(width: int) -> np.ndarray:
        column = np.clip((np.arange(64) - 31) / width, 0, 1) * 160
        return np.broadcast_to(column[None, None, :, None], (2, 64, 64, 3)).astype(np.uint8)

    assert surface.sharpness(edge(1)) == pytest.approx(160 / np.sqrt(2 * 63), rel=1e-5)
    assert surface.sharpness(edge(4)) == pytest.approx(surface.sharpness(edge(1)) / 2, rel=1e-5)
    assert surface.sharpness(edge(1)[:, :, ::-1].transpose(0, 2, 1, 3)) == pytest.approx(surface.sharpness(edge(1)))


def test_what_flickers_or_is_blurred_is_seen_beside_the_truth() -> None:
    wanted = judges.TOYBOX.scenes("seen", 8)
    rng = np.random.default_rng(0)

    def flickering(video: np.ndarray) -> np.ndarray:
        return np.clip(video + rng.normal(0, 5, (len(video), 1, 1, 1)), 0, 255).astype(np.uint8)

    def blurred(video: np.ndarray) -> np.ndarray:
        return np.rint(ndimage.gaussian_filter(video.astype(float), (0, 1, 1, 0))).astype(np.uint8)

    def measured(through) -> dict:
        return suite.measure(Oracle(judges.TOYBOX, wanted, through), judges.TOYBOX, prompts="seen", count=8)

    found = measured(flickering)
    assert found["flicker"]["ratio"] > 1.5 and 0.9 < found["sharpness"]["ratio"] < 1.1
    found = measured(blurred)
    assert found["sharpness"]["ratio"] < 0.7 and found["flicker"]["ratio"] < 1.1


def test_where_there_is_no_truth_to_compare_with_there_is_no_ratio() -> None:
    still = np.full((4, 8, 8, 3), 9, np.uint8)
    rising = np.arange(4, dtype=np.uint8)[:, None, None, None] ** 2
    found = surface.beside(*(surface.figures([video]) for video in (still + rising, still + 2 * rising, still)))
    assert found["flicker"] == {"model": 1.0, "rebuilt": 2.0, "truth": 0.0, "ratio": None}
