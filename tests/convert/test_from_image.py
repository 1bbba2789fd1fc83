"""A converted transformer is the image transformer on one frame, with not one block changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import tiny
from videodit import backbone, convert, models
from videodit.backbone import DualTransformer, SingleTransformer
from videodit.convert.from_image import LAVITA, Layout, image_half, stilled
from videodit.shapes import UserError

Image = DualTransformer | SingleTransformer
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


# --- Copies over the clip beside frozen blocks over frames ---


def two_streams() -> Image:
    return tiny.transformer(video=False)


def one_stream() -> Image:
    return dit(channels=8, text=tiny.TEXT.width, layout="spatial", time="none")


STREAMS = pytest.mark.parametrize("image_model", [two_streams, one_stream])


@STREAMS
@torch.no_grad()
def test_beside_starts_as_the_image_model_frame_by_frame(image_model: Callable[[], Image]) -> None:
    image = image_model()
    video = convert.inflate(image, "beside").eval()
    noisy = tiny.grid(2, image.settings.channels, 3, 4, 4)
    out = video(noisy, TIMES, WORDS)
    for frame in range(3):
        alone = image(noisy[:, :, frame : frame + 1], TIMES, WORDS)
        torch.testing.assert_close(out[:, :, frame : frame + 1], alone, rtol=1e-5, atol=1e-5)
    still = backbone.build(replace(image.settings, layout="spatial")).eval()
    still.load_state_dict(image.state_dict())
    torch.testing.assert_close(still(noisy, TIMES, WORDS), out, rtol=1e-5, atol=1e-5)
    half = image_half(video)
    assert half.keys() == image.state_dict().keys() and all(torch.equal(half[name], value) for name, value in image.state_dict().items())


@STREAMS
def test_beside_only_what_is_new_learns(image_model: Callable[[], Image]) -> None:
    image = image_model()
    video = convert.inflate(image, "beside")
    video(tiny.grid(2, image.settings.channels, 3, 4, 4), TIMES, WORDS).square().sum().backward()
    learns = {name for name, p in video.named_parameters() if p.requires_grad}
    assert learns and all(name.startswith("video.") or {"joint", "to_words", "to_video"} & set(name.split(".")) for name in learns)
    kept = models.parameters(video) - sum(p.numel() for p in video.parameters() if p.requires_grad)
    assert kept == models.parameters(image)
    moved = {name for name, p in video.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved and all(".to_video." in name or ".to_words." in name for name in moved if name.startswith("blocks."))  # the zeros first


@STREAMS
@torch.no_grad()
def test_beside_frames_see_each_other_once_it_has_learnt(image_model: Callable[[], Image]) -> None:
    video = convert.inflate(image_model(), "beside").eval()
    tiny.randomised(video)
    noisy = tiny.grid(2, video.settings.channels, 3, 4, 4)
    other = torch.cat([noisy[:, :, :2], -noisy[:, :, 2:]], dim=2)
    assert (video(noisy, TIMES, WORDS) - video(other, TIMES, WORDS))[:, :, 0].abs().max() > 1e-3


# --- LAVITA's four, from an image DiT ---


def dit(**changes: object) -> SingleTransformer:
    network = backbone.build(replace(backbone.PRESETS["dit-xl-2-tiny"], **changes))
    assert isinstance(network, SingleTransformer)
    tiny.randomised(network)
    return network.eval()


@pytest.mark.parametrize("layout", LAVITA)
@torch.no_grad()
def test_lavitas_keep_every_weight_but_the_labels(layout: Layout) -> None:
    image = dit()
    video = convert.inflate(image, layout).eval()
    before, after = image.state_dict(), video.state_dict()
    assert before.keys() - after.keys() == {"signal.label.weight"}
    assert all(torch.equal(value, before[name]) for name, value in after.items() if name in before)
    new = after.keys() - before.keys()
    assert all(".own.1." in name for name in new) and bool(new) == (layout == "factorised")
    assert video.settings.layout == layout and not video.settings.labels and not video.settings.video
    image.signal.label.weight.zero_()  # pyright: ignore
    noisy = tiny.grid(2, 4, 1, 16, 16)
    torch.testing.assert_close(stilled(video, image.settings)(noisy, TIMES), image(noisy, TIMES), rtol=1e-5, atol=1e-6)
    clip = tiny.grid(2, 4, 4, 16, 16)
    moved = torch.cat([clip[:, :, :3], -clip[:, :, 3:]], dim=2)
    seen = (video(clip, TIMES) - video(moved, TIMES))[:, :, 0].abs().max()
    assert seen > 1e-3 if layout != "factorised" else seen == 0  # which frames hear nothing of each other yet


@torch.no_grad()
def test_factorised_is_the_image_model_frame_by_frame_but_for_the_places_of_frames() -> None:
    image = dit()
    video = convert.inflate(image, "factorised").eval()
    image.signal.label.weight.zero_()  # pyright: ignore
    clip = tiny.grid(2, 4, 3, 16, 16)
    untold = backbone.build(replace(video.settings, time="none")).eval()
    untold.load_state_dict(video.state_dict())
    for frame in range(3):
        alone = clip[:, :, frame : frame + 1]
        torch.testing.assert_close(untold(clip, TIMES)[:, :, frame : frame + 1], image(alone, TIMES), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(video(alone, TIMES), image(alone, TIMES), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_places_are_repeated_or_interpolated() -> None:
    """Every frame has the same table; for twice the side it has a place between each two of the image model's."""
    image = dit()
    side = image.settings.places.side
    for video, many in ((convert.inflate(image, "interleaved"), side), (convert.inflate(image, "interleaved", side=2 * side), 2 * side)):
        latents = torch.zeros(1, 4, 3, 2 * many, 2 * many)
        tables = video.patches(latents).unflatten(1, (3, many, many))
        assert torch.equal(tables[:, 0], tables[:, 1]) and torch.equal(tables[:, 0], tables[:, 2])
    known = image.patches(torch.zeros(1, 4, 1, 2 * side, 2 * side)).unflatten(1, (side, side))
    torch.testing.assert_close(tables[:, 0, ::2, ::2], known, rtol=1e-4, atol=1e-4)


def test_lavitas_are_for_one_stream() -> None:
    with pytest.raises(UserError, match="interleaved leaves an image model of two streams no block as it is: use global or beside"):
        convert.inflate(tiny.transformer(video=False), "interleaved")
    for layout, side in (("global", 8), ("late", -1)):
        with pytest.raises(UserError, match="leave the side out"):
            convert.inflate(dit(), layout, side=side)
