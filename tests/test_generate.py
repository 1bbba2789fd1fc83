"""A prompt becomes a video that depends on the prompt, the seed and its number, and on nothing beside it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import tiny
import videodit
from videodit.autoencoder import DPVAE, PerFrame
from videodit.autoencoder.streaming import Windows, decode_in_windows, encode_in_windows
from videodit.generate import Generator, to_frames
from videodit.shapes import Size, UserError

PROMPTS = ["a red circle moves right", "a star", "a small blue square orbits and a green heart spins"]


@pytest.fixture(scope="module")
def generator(world: tiny.World) -> Generator:
    return videodit.load(world.video_model)


def apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(abs(one.astype(int) - other.astype(int)).max())


def test_the_same_call_gives_the_same_bytes(generator: Generator) -> None:
    one, two = (generator.generate(PROMPTS[0], seed=3) for _ in range(2))
    assert one.shape == (*tiny.CLIP, 3) and one.dtype == np.uint8 and one.std() > 1
    assert np.array_equal(one, two)


def test_seed_prompt_steps_and_guidance_matter(generator: Generator) -> None:
    before = generator.generate(PROMPTS[0], seed=3)
    others = {
        "seed": generator.generate(PROMPTS[0], seed=4),
        "prompt": generator.generate(PROMPTS[1], seed=3),
        "number": generator.generate(PROMPTS[0], seed=3, first=1),
        "steps": generator.generate(PROMPTS[0], seed=3, steps=1),
        "guidance": generator.generate(PROMPTS[0], seed=3, guidance=8.0),
    }
    assert {name: apart(before, video) > 2 for name, video in others.items()} == dict.fromkeys(others, True)


@pytest.mark.parametrize("sampler", ["euler", "ancestral", "SASolver"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_video_does_not_depend_on_what_stands_beside_it(
    generator: Generator, guidance: float, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The noise that a clip begins with and the noise that is added to it to the bit, its latents to 1e-4, its frames to rounding."""
    latents, starts, added, fresh = tiny.caught(monkeypatch), [], [], Generator.fresh
    monkeypatch.setattr(Generator, "begun", lambda self, noise, t: (starts.append(noise), noise)[1])
    monkeypatch.setattr(Generator, "fresh", lambda *told, **more: (added.append(fresh(*told, **more)), added[-1])[1])
    how = {"seed": 3, "guidance": guidance, "sampler": sampler}
    whole, four = generator.generate([*PROMPTS, PROMPTS[0]], **how), len(added)
    assert whole.shape == (4, *tiny.CLIP, 3) and apart(whole[0], whole[1]) > 2 and apart(whole[0], whole[3]) > 2
    for number, prompt in enumerate([*PROMPTS, PROMPTS[0]]):
        assert apart(generator.generate(prompt, **how, first=number), whole[number]) <= 1
    assert torch.equal(starts[0], torch.cat(starts[1:])) and len(starts) == 5
    for step, drawn in enumerate(added[:four]):
        assert torch.equal(drawn, torch.cat(added[four + step :: four]))
    assert bool(four) == (sampler != "euler")
    torch.testing.assert_close(latents[0], torch.cat(latents[1:]), rtol=0, atol=1e-4)


def test_a_batch_goes_on_where_the_last_ended(generator: Generator) -> None:
    whole = generator.generate([PROMPTS[0]] * 3, seed=3)
    rest = generator.generate([PROMPTS[0]] * 2, seed=3, first=1)
    assert apart(rest, whole[1:]) <= 1 and apart(whole[0], whole[1]) > 2


@pytest.mark.parametrize("size", [Size(1, 64, 64), Size(1, 16, 48), Size(4, 16, 16), Size(16, 32, 16)])
def test_other_extents(generator: Generator, size: Size) -> None:
    assert generator.generate(PROMPTS[0], size=size, steps=1).shape == (*size, 3)


@torch.inference_mode()
def test_longer_clips_pass_the_autoencoder_in_windows_of_the_models_length(generator: Generator) -> None:
    autoencoder, own = generator.model.autoencoder, generator.size.frames
    for frames in (1, 5, own, 4 * own + 1):
        pixels = tiny.grid(2, 3, frames, 32, 32).tanh()
        held: list[int] = []
        hooks = [part.register_forward_pre_hook(partial(heard, held)) for part in parts(autoencoder)]
        latents = generator.encode(pixels)
        made = generator.decode(latents, frames)
        for hook in hooks:
            hook.remove()
        whole = autoencoder.encode(pixels).mode()
        assert made.shape == (2, frames, 32, 32, 3) and latents.shape == whole.shape
        if frames <= own:
            assert torch.equal(latents, whole) and np.array_equal(made, to_frames(autoencoder.decode(whole, frames)))
            continue
        groups = own // autoencoder.time
        windows = Windows(groups=groups, overlap=groups // 2)
        assert torch.equal(latents, encode_in_windows(autoencoder, pixels, windows).mode())
        assert np.array_equal(made, to_frames(decode_in_windows(autoencoder, latents, windows, frames)))
        assert set(held) == {own, groups} and (latents != whole).any()


def heard(held: list[int], module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
    held.append(given[0].shape[2])


def parts(autoencoder: PerFrame) -> list[nn.Module]:
    """E_r and D."""
    assert isinstance(autoencoder, DPVAE)
    return [autoencoder.encoder, autoencoder.decoder]


def test_an_image_model_makes_images(world: tiny.World) -> None:
    assert videodit.load(world.image_model).generate(PROMPTS[0]).shape == (*tiny.PICTURE, 3)


def test_steps_are_told(generator: Generator) -> None:
    told: list[tuple[int, int]] = []
    generator.generate("a star", steps=3, progress=lambda step, steps: told.append((step, steps)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prompt": ""}, "The prompt is empty: say what moves"),
        ({"prompt": " \n"}, "The prompt is empty"),
        ({"prompt": []}, "The prompt is empty"),
        ({"prompt": ["a star", ""]}, "The prompt is empty"),
        ({"prompt": "red " * 40}, "has 40 tokens: use at most 31"),
        ({"steps": 0}, "0 steps make no video: use 1 or more"),
        ({"guidance": -1.0}, "guidance of -1.0 is out of range: use 0 to 100"),
        ({"guidance": float("nan")}, "out of range"),
        ({"size": Size(7, 32, 32)}, r"7 frames do not fit: use 4 or 8 \(multiples of 4\), or 1 for an image"),
        ({"size": Size(8, 30, 32)}, "30 rows do not fit: use 16 or 32"),
        ({"size": Size(8, 8, 8)}, "8 rows do not fit: use 16"),
        ({"size": Size(0, 32, 32)}, "is empty"),
        ({"seed": -1}, "A seed of -1 is out of range: use 0 to"),
    ],
)
def test_what_cannot_be_made_is_said(generator: Generator, changes: dict, match: str) -> None:
    with pytest.raises(UserError, match=match):
        generator.generate(**{"prompt": "a star", **changes})


def test_the_largest_seed(generator: Generator) -> None:
    with pytest.raises(UserError, match="out of range"):
        generator.generate("a star", steps=1, seed=2**64)
    assert generator.generate("a star", steps=1, seed=2**63 - 1).shape == (*tiny.CLIP, 3)


def test_unknown_words(generator: Generator) -> None:
    assert generator.unknown_words("a red dinosaur") == ["dinosaur"]


def test_frames_are_rounded_and_clipped() -> None:
    video = torch.tensor([-2.0, -1.0, -0.003, 0.0, 0.5, 1.0, 2.0]).view(1, 1, 7, 1, 1).expand(1, 3, 7, 1, 1)
    frames = to_frames(video)
    assert frames.shape == (1, 7, 1, 1, 3) and frames[0, :, 0, 0, 0].tolist() == [0, 0, 127, 128, 191, 255, 255]
