"""Pixels, latents and tokens: one arithmetic, there and back, and errors that say what to type."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videodit.shapes import Size, Text, UserError, latent_size, parse_extent, token_size, video_size

small = st.integers(1, 24)
few = settings(max_examples=50)


@few
@given(small, small, small, st.sampled_from([4, 8, 16]), st.sampled_from([1, 2, 4]))
def test_latents_of_a_video_and_back(f, h, w, space, time):
    latents = Size(f, h, w)
    video = video_size(latents, space=space, time=time)
    if video.frames > 1:
        assert latent_size(video, space=space, time=time) == latents
    assert video.count == latents.count * space * space * time


@few
@given(small, small, st.sampled_from([1, 2, 4]))
def test_an_image_has_one_latent_frame_whatever_time_is(h, w, time):
    image = Size(1, 8 * h, 8 * w)
    latents = latent_size(image, space=8, time=time)
    assert latents == (1, h, w)
    assert video_size(latents, space=8, time=time, image=True) == image


@few
@given(small, small, small, st.tuples(*[st.integers(1, 4)] * 3))
def test_patches_share_out_the_grid(f, h, w, patch):
    latents = Size(f * patch[0], h * patch[1], w * patch[2])
    assert token_size(latents, patch) == (f, h, w)
    assert token_size(latents, (1, 1, 1)) == latents


def test_the_counts_of_the_papers():
    assert token_size(latent_size(Size(32, 256, 256), space=8, time=4), (1, 2, 2)).count == 2048
    assert token_size(latent_size(Size(96, 512, 512), space=8, time=4), (1, 2, 2)).count == 24576
    assert token_size(latent_size(Size(16, 256, 256), space=8, time=1), (1, 2, 2)) == (16, 16, 16)


@few
@given(st.integers(2, 200), st.integers(1, 200))
def test_what_does_not_fit_is_told_what_does(frames, rows):
    """Each number that an error offers is taken, and only what does not fit is refused."""
    size = Size(frames, rows, 64)
    if frames % 4 == 0 and rows % 8 == 0:
        assert latent_size(size, space=8, time=4) == (frames // 4, rows // 8, 8)
        return
    with pytest.raises(UserError) as told:
        latent_size(size, space=8, time=4)
    offered = [int(word) for word in str(told.value).split("use ")[1].split(" (")[0].split(" or ")]
    step, number = (4, frames) if frames % 4 else (8, rows)
    assert all(value % step == 0 and value > 0 and abs(value - number) < step for value in offered)


@pytest.mark.parametrize("size", [Size(0, 64, 64), Size(16, 0, 64), Size(16, 64, -8)])
def test_an_empty_clip_is_refused(size):
    with pytest.raises(UserError, match="empty"):
        latent_size(size, space=8, time=4)


def test_tokens_that_do_not_fit_name_the_axis():
    with pytest.raises(UserError, match=r"9 latent columns do not fit patches of 2: use 8 or 10 latent columns\."):
        token_size(Size(4, 8, 9), (1, 2, 2))


@few
@given(st.integers(0, 999999), st.integers(0, 999999))
def test_extents_are_rows_then_columns(rows, columns):
    assert parse_extent(f"{rows}x{columns}") == (rows, columns)
    assert parse_extent(f" {rows} X {columns} ") == (rows, columns)


@pytest.mark.parametrize("text", ["", "64", "64x", "x64", "64*64", "-8x64", "6.4x64", "64x64x3", "1234567x8", "64x64\n8"])
def test_other_texts_are_no_extent(text):
    with pytest.raises(UserError, match="64x64"):
        parse_extent(text)


def test_text_maps_what_is_there():
    text = Text(pooled=np.ones(3), label=np.zeros(3))
    doubled = text.map(lambda field: field + 1)
    assert doubled.sequence is None and doubled.mask is None
    assert (doubled.pooled == 2).all() and (doubled.label == 1).all()
