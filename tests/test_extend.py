"""Which words each part of a longer video is made under: they share what is made, and none is left out unsaid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tiny
from videodit.extend import at_once, extended
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
