"""Given frames become given latents from their own pixels alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

import tiny
from videodit import given
from videodit.autoencoder import DPVAE, DPVAESettings, PerFrame
from videodit.diffusion.tasks import Mask, Tasks

VIDEO = tiny.grid(1, 3, 16, 16, 16)
AUTOENCODERS = {
    "symmetric": DPVAESettings(time=4),
    "causal": DPVAESettings(time=4, reach="causal"),
    "first alone": DPVAESettings(time=4, reach="causal", keys=False, first="alone"),
}


def autoencoder(kind: str) -> PerFrame:
    return PerFrame(tiny.image_autoencoder()) if kind == "per frame" else tiny.dpvae(trained=True, settings=AUTOENCODERS[kind])


@torch.no_grad()
def test_frames_are_whole_groups_where_they_fill_them_else_pictures() -> None:
    dp, still, alone = autoencoder("symmetric"), autoencoder("per frame"), autoencoder("first alone")
    assert given.mask_of(dp, [*range(8), 15]) == Mask((0, 1), (15,))
    assert given.mask_of(dp, [0, 1, 2]) == Mask((), (0, 1, 2))
    assert given.mask_of(still, [0, 15]) == Mask((0, 15))
    assert given.mask_of(alone, range(5)) == Mask((0, 1)) and given.mask_of(alone, [0, 16]) == Mask((0,), (16,))
    assert given.mask_of(dp, []) == Mask()


@pytest.mark.parametrize("kind", [*AUTOENCODERS, "per frame"])
@torch.no_grad()
def test_a_run_does_not_know_what_stands_around_it(kind: str) -> None:
    coder = autoencoder(kind)
    for start, stop in ((0, 2), (1, 3)):
        first, last = max(start * coder.time - coder.lead, 0), stop * coder.time - coder.lead
        other = torch.randn_like(VIDEO)
        other[:, :, first:last] = VIDEO[:, :, first:last]
        one, two = (given.encode_run(coder, video, start, stop) for video in (VIDEO, other))
        assert torch.equal(one, two) and one.shape[2] == stop - start


@torch.no_grad()
def test_a_run_from_the_start_of_a_causal_clip_is_the_clips_own() -> None:
    """A symmetric one's is not: its groups see the future."""
    for kind, same in (("causal", True), ("symmetric", False)):
        coder = autoencoder(kind)
        assert torch.allclose(given.encode_run(coder, VIDEO, 0, 2), coder.encode(VIDEO).mode()[:, :, :2], atol=1e-6) == same


@torch.no_grad()
def test_a_picture_is_the_image_encoders_and_stands_among_the_groups() -> None:
    coder = autoencoder("symmetric")
    assert isinstance(coder, DPVAE)
    torch.testing.assert_close(given.encode_picture(coder, VIDEO, -1), coder.encode_image(VIDEO[:, :, 15:]).mode())
    assert [given.place(coder, 16, frame) for frame in (0, 4, 15, -1)] == [0, 1, 3.75, 3.75]
    assert given.place(autoencoder("first alone"), 17, 1) == 1 and given.place(autoencoder("per frame"), 16, -1) == 15


@torch.no_grad()
def test_what_is_assembled_holds_each_part_in_its_place() -> None:
    coder = autoencoder("symmetric")
    run, picture = partial(given.encode_run, coder, VIDEO), partial(given.encode_picture, coder, VIDEO)
    made = given.assembled(Mask((0, 2, 3), (7,)), 4, partial(given.place, coder, 16), run, picture)
    assert made is not None and made.mask[0, 0, :, 0, 0].tolist() == [1, 0, 1, 1] and made.places == (1.75,)
    assert torch.equal(made.latents[:, :, 2:], run(2, 4)) and torch.equal(made.latents[:, :, :1], run(0, 1))
    assert torch.equal(made.images, picture(7)) and not made.latents[:, :, 1].any()
    assert given.assembled(Mask(), 4, partial(given.place, coder, 16), run, picture) is None


@torch.no_grad()
def test_a_picture_is_a_hint_beside_exactly_the_group_that_it_heads() -> None:
    coder = autoencoder("symmetric")
    run, picture = partial(given.encode_run, coder, VIDEO), partial(given.encode_picture, coder, VIDEO)
    place = partial(given.place, coder, 16)
    made = given.assembled(Mask((3,), (0, 8, -1)), 4, place, run, picture, hints=True)
    assert made is not None and made.hint is not None and made.places == (3.75,)  # the last frame heads no group: it stands behind
    assert made.hint[0, 0, :, 0, 0].tolist() == [1, 0, 1, 0] and made.mask[0, 0, :, 0, 0].tolist() == [0, 0, 0, 1]
    assert torch.equal(made.hint[:, 1:, :1], picture(0)) and torch.equal(made.hint[:, 1:, 2:3], picture(8))
    assert not made.hint[:, :, 1::2].any() and torch.equal(made.images, picture(-1)) and torch.equal(made.latents[:, :, 3:], run(3, 4))
    whole = given.assembled(Mask((0,)), 4, place, run, picture, hints=True)
    assert whole is not None and whole.hint is None


def test_heads_are_the_first_frames_of_groups() -> None:
    assert given.placed(autoencoder("symmetric"), Mask((1,), (-1,), (0, 3)), 4) == Mask((1,), (-1, 0, 12))
    assert given.placed(autoencoder("first alone"), Mask(heads=(0, 1, 2)), 3) == Mask((0,), (1, 5))
    assert given.placed(autoencoder("per frame"), Mask(heads=(0, 2)), 3) == Mask((0, 2))
    assert given.placed(autoencoder("per frame"), Mask(heads=(0, 1, 2)), 3) == Mask((0, 1)), "something is left to be learnt"


@pytest.mark.parametrize("kind", [*AUTOENCODERS, "per frame"])
def test_what_is_trained_is_what_is_sampled(kind: str) -> None:
    """Pictures of a task are groups or pictures as the same frames are where somebody gives them."""
    coder = autoencoder(kind)
    frames = 4
    length = frames * coder.time - coder.lead
    for images in ((0,), (-1,), (0, -1)):
        trained, sampled = given.placed(coder, Mask(images=images), frames), given.mask_of(coder, [image % length for image in images])
        assert trained.frames == sampled.frames and [image % length for image in trained.images] == list(sampled.images)


@pytest.mark.parametrize("name", ["both", "keys", "random"])
@pytest.mark.parametrize("kind", [*AUTOENCODERS, "per frame"])
def test_every_part_that_a_draw_gives_is_encoded_before(kind: str, name: str) -> None:
    coder, tasks = autoencoder(kind), Tasks(**{"none": 0.0, name: 1.0})
    known = [given.placed(coder, mask, 6) for mask in tasks.all(6)]
    runs, images = {run for mask in known for run in mask.runs}, {image for mask in known for image in mask.images}
    for i in range(1000):
        mask = given.placed(coder, tasks.draw(np.random.default_rng(10_000 + i), 6), 6)
        assert set(mask.runs) <= runs and set(mask.images) <= images
