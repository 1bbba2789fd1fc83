"""A converted transformer is the image transformer on one frame, with not one block changed."""

from __future__ import annotations

import pytest
import torch

import tiny
from videodit import convert

TIMES, WORDS = torch.tensor([0.3, 0.8]), tiny.text([4, 2])


@pytest.mark.parametrize("extent", [(4, 4), (2, 8)])
@torch.no_grad()
def test_on_one_frame_it_is_the_image_model(extent: tuple[int, int]) -> None:
    image = tiny.transformer(video=False)
    noisy = tiny.grid(2, 8, 1, *extent)
    assert torch.equal(convert.inflate(image)(noisy, TIMES, WORDS), image(noisy, TIMES, WORDS))


@torch.no_grad()
def test_on_a_clip_it_starts_without_an_order_of_frames() -> None:
    video = convert.inflate(tiny.transformer(video=False, rotary="none"))
    noisy = tiny.grid(2, 8, 3, 4, 4)
    torch.testing.assert_close(video(noisy.flip(2), TIMES, WORDS).flip(2), video(noisy, TIMES, WORDS), rtol=1e-5, atol=1e-5)


def test_only_the_3d_branch_is_new() -> None:
    image = tiny.transformer(video=False)
    video = convert.inflate(image)
    before, after = image.state_dict(), video.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    new = after.keys() - before.keys()
    assert new and all(name.startswith("video.") for name in new)
    assert video.settings.video and not image.settings.video


def test_it_learns_on_its_own() -> None:
    image = tiny.transformer(video=False)
    before = {name: value.clone() for name, value in image.state_dict().items()}
    video = convert.inflate(image)
    video(tiny.grid(2, 8, 2, 4, 4), TIMES, WORDS).square().sum().backward()
    assert video.video is not None and video.video.out.weight.grad is not None
    assert video.video.out.weight.grad.abs().max() > 0  # the zeros learn
    tiny.randomised(video)
    assert all(torch.equal(value, before[name]) for name, value in image.state_dict().items())
