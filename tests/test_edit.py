"""What of a clip an edit changes, and that what cannot be is said before a long video is encoded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tiny
from videodit import backbone
from videodit.diffusion.objectives import Diffusion
from videodit.edit import _latent_mask, edit, led_back, reworded
from videodit.generate import Generator
from videodit.shapes import Size, UserError

PROMPT = "a red circle moves right"
VIDEO = np.random.default_rng(0).integers(0, 256, (*tiny.CLIP, 3), np.uint8)


@pytest.mark.parametrize(("frames", "lead", "time"), [(17, 3, 4), (15, 3, 4), (16, 0, 4), (5, 0, 1), (1, 3, 4)])
def test_the_group_of_a_frame_that_changes_is_made_anew_and_no_other(frames: int, lead: int, time: int) -> None:
    grid = Size(-(-(frames + lead) // time), 2, 2)
    for frame in range(frames):
        change = np.zeros((frames, 16, 16), bool)
        change[frame, 3, 12] = True
        marks = _latent_mask(change, grid, lead, time)[0, 0]
        assert marks.nonzero().tolist() == [[(frame + lead) // time, 0, 1]]


@pytest.fixture(scope="module")
def model() -> Generator:
    return Generator(tiny.model(tiny.dpvae(), tiny.CLIP))


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"sampler": "nothing"}, "There is no sampler 'nothing'"),
        ({"shift": 0.0}, "A shift of 0 is out of range"),
        ({"sampler": "DDIM", "strength": 0.4}, "DDIM begins at noise alone"),
        ({"negative": "red " * 100}, "tokens: use at most"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_an_edit_cannot_be_is_said_before_the_video_is_encoded(
    how: dict[str, Any], match: str, model: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "encode", lambda *given: pytest.fail("the video is encoded first"))
    with pytest.raises(UserError, match=match):
        edit(model, VIDEO, PROMPT, **how)


@pytest.mark.usefixtures("unchecked")
def test_so_is_what_leading_back_cannot(model: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Generator, "encode", lambda *given: pytest.fail("the video is encoded first"))
    flow, made = model.model.settings, model.model
    diffusion = Generator(replace(made, settings=replace(flow, objective=Diffusion())))
    single = backbone.build(replace(backbone.PRESETS["latte-xl-v2-tiny"], channels=8, variance=False))
    streams = Generator(replace(made, settings=replace(flow, backbone=single.settings), backbone=single))
    for act, match in (
        (lambda: edit(diffusion, VIDEO, PROMPT, shift=3.0), "levels of its diffusion, which no shift changes"),
        (lambda: reworded(model, VIDEO, PROMPT, PROMPT, shift=0.0), "A shift of 0 is out of range"),
        (lambda: reworded(streams, VIDEO, PROMPT, PROMPT), "Sharing features is for transformers of two streams"),
        (lambda: led_back(model, VIDEO, PROMPT, steps=1, sampler="nothing"), "There is no sampler 'nothing'"),
    ):
        with pytest.raises(UserError, match=match):
            act()
