"""Causal time: the past decides, and pieces are the whole. Windows of a symmetric one, and their seams."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tiny
from videodit.autoencoder import DPVAE, DPVAESettings
from videodit.autoencoder.streaming import Windows, decode_in_windows, decode_stream, encode_in_windows, encode_stream
from videodit.shapes import UserError

STEP = 2  # groups
VIDEO = tiny.grid(1, 3, 48, 16, 16).clamp(-1, 1)
ALONE = DPVAESettings(reach="causal", keys=False, first="alone", step=STEP)


def causal(**changes: object) -> DPVAE:
    return tiny.dpvae(trained=True, settings=DPVAESettings(**{"reach": "causal", "step": STEP, "window": 3, **changes}))  # pyright: ignore


def joined(parts) -> Tensor:
    return torch.cat(list(parts), dim=2)


@pytest.mark.parametrize("changes", [{}, {"keys": False}, {"window": 1}, {"time": 2}])
@torch.no_grad()
def test_pieces_are_the_whole(changes: dict) -> None:
    autoencoder = causal(**changes)
    z = autoencoder.encode(VIDEO).mean
    video = autoencoder.decode(z)
    for groups, exact in ((STEP, True), (1, False), (5, False), (12, False)):
        encoded = joined(p.mean for p in encode_stream(autoencoder, VIDEO.split(groups * autoencoder.time, dim=2)))
        decoded = joined(decode_stream(autoencoder, z.split(groups, dim=2)))
        assert not exact or (torch.equal(encoded, z) and torch.equal(decoded, video))
        torch.testing.assert_close(encoded, z, rtol=0, atol=1e-4)
        torch.testing.assert_close(decoded, video, rtol=0, atol=1e-4)


@torch.no_grad()
def test_what_comes_later_changes_nothing_before_and_all_that_is_seen_matters() -> None:
    autoencoder = causal()
    z = autoencoder.encode(VIDEO).mean
    video = autoencoder.decode(z)
    for groups in (2, 4, 8):
        assert torch.equal(autoencoder.encode(VIDEO[:, :, : 4 * groups]).mean, z[:, :, :groups])
        assert torch.equal(autoencoder.decode(z[:, :, :groups]), video[:, :, : 4 * groups])
    moved = z.clone()
    moved[:, :, 3] += 1
    change = (autoencoder.decode(moved) - video).abs().amax((0, 1, 3, 4))
    assert not change[:12].any() and (change[12:16] > 1e-4).all() and (change[16:24] > 1e-5).any()


@torch.no_grad()
def test_attention_sees_its_window_alone() -> None:
    for window in (1, 3):
        attention = causal(window=window).decoder.stages[1].stages[2]
        x = tiny.grid(1, 16, 10, 2, 2)
        before = attention(x, None)
        x[:, :, 4] = tiny.grid(1, 16, 2, 2, seed=9)
        change = (attention(x, None) - before).abs().amax((0, 1, 3, 4)) > 1e-6
        assert change.nonzero().flatten().tolist() == list(range(4, 4 + window))


@torch.no_grad()
def test_a_stream_whose_first_frame_stands_alone_is_the_whole() -> None:
    autoencoder = tiny.dpvae(trained=True, settings=ALONE)
    video = VIDEO[:, :, :13]
    whole = autoencoder.encode(video).mean
    parts = [piece.mean for piece in encode_stream(autoencoder, video.split([5, 8], dim=2))]
    torch.testing.assert_close(joined(parts), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(joined(decode_stream(autoencoder, parts)), autoencoder.decode(whole), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="use a multiple of 4 and 1 more"):
        next(encode_stream(autoencoder, [video[:, :, :4]]))


@torch.no_grad()
def test_any_length_comes_back_as_it_went_in() -> None:
    for settings in (DPVAESettings(), DPVAESettings(reach="causal"), ALONE):
        autoencoder = tiny.dpvae(trained=True, settings=settings)
        for frames in (2, 4, 5, 11):
            z = autoencoder.encode(VIDEO[:, :, :frames]).mean
            assert z.shape[2:] == autoencoder.latents(tiny.Size(frames, 16, 16))
            whole = autoencoder.decode(z)
            video = autoencoder.decode(z, frames=frames)
            assert video.shape[2] == frames and torch.equal(video, whole[:, :, :frames])
        with pytest.raises(UserError, match="hold at most"):
            autoencoder.decode(z, frames=99)
        picture = autoencoder.encode(VIDEO[:, :, :1]).mean
        assert torch.equal(autoencoder.decode(picture, frames=1), autoencoder.decode_image(picture))


@torch.no_grad()
def test_a_group_that_is_not_whole_repeats_its_last_frame() -> None:
    autoencoder = tiny.dpvae(trained=True)
    filled = torch.cat([VIDEO[:, :, :6], VIDEO[:, :, 5:6], VIDEO[:, :, 5:6]], dim=2)
    assert torch.equal(autoencoder.encode(VIDEO[:, :, :6]).mean, autoencoder.encode(filled).mean)
    alone = tiny.dpvae(trained=True, settings=ALONE)
    assert alone.latents(tiny.Size(17, 16, 16)).frames == 5


@torch.no_grad()
def test_without_key_frames_the_latents_start_as_the_copied_encoder_s() -> None:
    """A still clip: every temporal part passes it on, so its latents are those of the picture."""
    autoencoder = tiny.dpvae(settings=DPVAESettings(keys=False))
    still = VIDEO[:, :, :1].repeat(1, 1, 8, 1, 1)
    whole, picture = autoencoder.encode(still), autoencoder.encode_image(VIDEO[:, :, :1])
    for one, other in ((whole.mean, picture.mean), (whole.std, picture.std)):
        torch.testing.assert_close(one, other.expand_as(one), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [DPVAESettings(), DPVAESettings(keys=False, first="alone")])
@torch.no_grad()
def test_windows_that_hold_everything_are_the_whole(settings: DPVAESettings) -> None:
    autoencoder = tiny.dpvae(trained=True, settings=settings)
    windows = Windows(groups=12, overlap=1)
    for frames in (1, 5, 45):
        z = autoencoder.encode(VIDEO[:, :, :frames])
        assert torch.equal(encode_in_windows(autoencoder, VIDEO[:, :, :frames], windows).mean, z.mean)
        assert torch.equal(decode_in_windows(autoencoder, z.mean, windows, frames), autoencoder.decode(z.mean, frames))


@pytest.mark.parametrize("settings", [DPVAESettings(), DPVAESettings(keys=False, first="alone")])
@torch.no_grad()
def test_the_farther_windows_overlap_the_nearer_they_are_to_the_whole(settings: DPVAESettings) -> None:
    autoencoder = tiny.dpvae(trained=True, settings=settings)
    posterior = autoencoder.encode(VIDEO)
    whole = autoencoder.decode(posterior.mean)
    parts = [encode_in_windows(autoencoder, VIDEO, Windows(groups=8, overlap=o)) for o in (0, 2, 6)]
    away = [(part.mean - posterior.mean).square().mean() for part in parts]
    assert away[0] > away[1] > away[2] > 0
    away = [(decode_in_windows(autoencoder, posterior.mean, Windows(groups=8, overlap=o)) - whole).square().mean() for o in (0, 2, 6)]
    assert away[0] > away[1] > away[2] > 0


@torch.no_grad()
def test_windows_of_what_sees_nothing_beyond_them_leave_no_seam() -> None:
    """One 1x1 layer instead of the networks: every window is exact, whatever the overlap."""
    autoencoder = tiny.dpvae()
    autoencoder.encode_step = lambda video, past=None: autoencoder._posterior(mixed(video[:, :, ::4, ::8, ::8]))  # type: ignore[method-assign]
    mixed = torch.nn.Conv3d(3, 16, 1)
    video = tiny.grid(1, 3, 30, 56, 72)
    whole = autoencoder.encode(video)
    for overlap in (0, 1, 2):
        windows = encode_in_windows(autoencoder, video, Windows(groups=3, overlap=overlap))
        torch.testing.assert_close(windows.mean, whole.mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(windows.std, whole.std, rtol=0, atol=1e-6)


def test_mistakes_are_said() -> None:
    with pytest.raises(UserError, match="sees the future"):
        next(encode_stream(tiny.dpvae(), [VIDEO]))
    with pytest.raises(UserError, match="whole groups: use a multiple of 4"):
        next(encode_stream(causal(), [VIDEO[:, :, :6]]))
    with pytest.raises(UserError, match="never end"):
        decode_in_windows(tiny.dpvae(), torch.zeros(1, 8, 8, 2, 2), Windows(groups=4, overlap=4))
    with pytest.raises(UserError, match="8 latent frames hold at most 32 frames, not 33"):
        decode_in_windows(tiny.dpvae(), torch.zeros(1, 8, 8, 2, 2), Windows(), frames=33)
    with pytest.raises(UserError, match="safe in float32 and bfloat16, not in float16"):
        tiny.dpvae().encode(VIDEO.half())
    with pytest.raises(UserError, match="not in float16"), torch.autocast("cpu", torch.float16):
        tiny.dpvae().encode(VIDEO)
