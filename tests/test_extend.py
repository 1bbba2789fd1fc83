"""Which words each part of a longer video is made under: they share what is made, and none is left out unsaid."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tiny
import videodit
from videodit.autoencoder import DPVAESettings
from videodit.diffusion.times import Times
from videodit.extend import at_once, extended, factor_of, lengths, rolled
from videodit.generate import Generator
from videodit.shapes import Size, UserError

pytestmark = pytest.mark.usefixtures("unchecked")
CLIP = Size(16, 32, 32)


@pytest.fixture(scope="module")
def model() -> Generator:
    made = tiny.model(tiny.dpvae(), CLIP)
    return Generator(replace(made, settings=replace(made.settings, backbone=replace(made.settings.backbone, given="time"))))


@pytest.mark.parametrize(
    ("there", "frames", "prompts", "heard"),
    [(16, 32, "AB", "AB"), (16, 24, "A", "A"), (20, 52, "AB", "AABB"), (0, 16, "A", "A"), (0, 32, "ABC", "ABC"), (0, 40, "AB", "AABB")],
)
def test_prompts_share_what_is_made(
    there: int, frames: int, prompts: str, heard: str, model: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    clip = np.zeros((*CLIP, 3), np.uint8)
    monkeypatch.setattr(Generator, "generate", lambda self, prompt, **how: (said.append(prompt), clip)[1])
    video = np.zeros((there, *CLIP[1:], 3), np.uint8) if there else None
    assert sum(map(len, extended(model, list(prompts), frames, video=video))) == frames and said == list(heard)


@pytest.mark.parametrize(
    ("there", "frames", "prompts", "unheard"), [(16, 24, "AB", "B"), (16, 24, "ABCD", "B"), (0, 32, "ABCD", "B"), (0, 24, "ABC", "B")]
)
def test_a_prompt_that_no_chunk_would_hear_is_refused_before_any_is_made(
    there: int, frames: int, prompts: str, unheard: str, model: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "generate", lambda *given, **named: pytest.fail("a clip is made first"))
    video = np.zeros((there, *CLIP[1:], 3), np.uint8) if there else None
    with pytest.raises(UserError, match=f"{frames} frames have no part that is made under '{unheard}': ask for more frames"):
        next(extended(model, list(prompts), frames, video=video))


def test_a_prompt_that_no_window_would_hear_is_refused(model: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Generator, "field", lambda *given, **named: pytest.fail("words are read first"))
    with pytest.raises(UserError, match="32 frames have no part that is made under 'A': ask for more frames"):
        at_once(model, list("ABCDE"), 32)


@pytest.mark.parametrize(
    "how", [{}, {"first": 1}, {"sampler": "ancestral", "first": 1}, {"shift": 3.0, "steps": 2}, {"negative": "a star"}]
)
def test_one_window_is_the_clip_however_it_is_asked_for(how: dict[str, Any], model: Generator) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the shift
        one, other = at_once(model, "a star", 16, **how), model.generate("a star", **how)
    assert abs(one.astype(int) - other.astype(int)).max() <= 1


def test_a_queue_begins_with_the_clip_that_is_asked_for(model: Generator) -> None:
    queue = Generator(replace(model.model, settings=replace(model.model.settings, times=Times(each="frame"))))
    plain = rolled(queue, "a star", 20)
    assert plain.shape == (20, 32, 32, 3) and rolled(queue, "a star", 4, size=Size(16, 16, 32)).shape == (4, 16, 32, 3)
    for how in ({"first": 1}, {"sampler": "heun"}, {"steps": 1}):
        assert not np.array_equal(rolled(queue, "a star", 20, **how), plain)


@pytest.mark.parametrize("frames", [1, 5, 6, 8, 12])
def test_a_queue_is_as_long_as_asked_where_the_first_frame_stands_alone(frames: int) -> None:
    made = tiny.model(tiny.dpvae(settings=DPVAESettings(time=4, reach="causal", keys=False, first="alone")), Size(9, 32, 32))
    model = Generator(replace(made, settings=replace(made.settings, times=Times(each="frame"))))
    assert rolled(model, "a star", frames, steps=1).shape == (frames, 32, 32, 3)


def test_models_without_room_between_frames_or_of_pictures_are_refused(world: tiny.World, model: Generator) -> None:
    pictures = videodit.load(world.image_model)
    for act in (lambda: at_once(pictures, "a star", 4), lambda: factor_of(pictures, 4, None)):
        with pytest.raises(UserError, match=r"use one that makes (longer )?videos"):
            act()
    assert factor_of(model, 16, None) == 3 and factor_of(model, 16, 76) == 5 and lengths(model, 2) == {4: 3, 6: 5, 16: 15}
