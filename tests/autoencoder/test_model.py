"""An inflated autoencoder is the image autoencoder: for key frames exactly, for all frames of a group as far as rounding goes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tiny
from videodit.autoencoder import DPVAE, DPVAESettings, PerFrame, Posterior, inflate
from videodit.autoencoder.loss import Draw, Weights, dpvae_loss
from videodit.autoencoder.presets import PRESETS
from videodit.autoencoder.pseudo3d import TemporalDownsample, TemporalUpsample
from videodit.shapes import Size, UserError

VARIANTS = {
    "tiny": {},
    "quant convs": {"quant_convs": True},
    "a convolution at D alone": {"quant_convs": False, "post_quant_convs": True},
    "no attention": {"middle_attention": False},
    "both": {"quant_convs": True, "middle_attention": False},
    "attention at two resolutions": {"attentive": (1, 3)},
    "other widths": {"widths": (8, 12, 16), "layers": 2, "latent_channels": 4},
    "groups of 2": {"time": 2},
    "groups of 8": {"time": 8},
    "groups of 1": {"time": 1},
}
variants = pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)


def clips(autoencoder: PerFrame, groups: int = 2) -> Tensor:
    return tiny.grid(2, 3, groups * autoencoder.time, 16, 24).clamp(-1, 1)


@variants
@torch.no_grad()
def test_the_latents_of_a_clip_are_those_of_its_key_frames(changes: dict) -> None:
    autoencoder = tiny.dpvae(**changes)
    video = clips(autoencoder)
    whole, keys = autoencoder.encode(video), autoencoder.encode_image(video[:, :, :: autoencoder.time])
    assert torch.equal(whole.mean, keys.mean) and torch.equal(whole.std, keys.std)
    assert whole.mean.shape[2:] == autoencoder.latents(Size(*video.shape[2:]))


@torch.no_grad()
def test_frames_by_themselves_are_the_same_in_pieces() -> None:
    autoencoder = PerFrame(tiny.image_autoencoder())
    video = tiny.grid(2, 3, 19, 16, 24).clamp(-1, 1)
    pieces, whole = autoencoder.encode(video), autoencoder.encode_image(video)
    torch.testing.assert_close((pieces.mean, pieces.std), (whole.mean, whole.std), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(autoencoder.decode(whole.mean, 17), autoencoder.decode_image(whole.mean)[:, :, :17], rtol=1e-5, atol=1e-6)


@variants
@torch.no_grad()
def test_an_image_is_encoded_as_diffusers_does(changes: dict) -> None:
    autoencoder = tiny.dpvae(**changes)
    picture = clips(autoencoder)[:, :, 0]
    ours, theirs = autoencoder.encode_image(picture[:, :, None]), autoencoder.image.encode(picture).latent_dist
    config = autoencoder.image.config
    torch.testing.assert_close(ours.mean[:, :, 0], (theirs.mean - config["shift_factor"]) * config["scaling_factor"], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.std[:, :, 0], theirs.std * config["scaling_factor"], rtol=1e-5, atol=1e-5)
    theirs = autoencoder.image.decode(ours.mean[:, :, 0] / config["scaling_factor"] + config["shift_factor"]).sample
    torch.testing.assert_close(autoencoder.decode_image(ours.mean)[:, :, 0], theirs, rtol=0, atol=1e-5)


@variants
@torch.no_grad()
def test_every_frame_of_a_group_starts_as_its_key_frame(changes: dict) -> None:
    autoencoder = tiny.dpvae(**changes)
    z = autoencoder.encode(clips(autoencoder)).mode()
    pictures = autoencoder.decode_image(z).repeat_interleave(autoencoder.time, dim=2)
    torch.testing.assert_close(autoencoder.decode(z), pictures, rtol=0, atol=1e-4)


@variants
@torch.no_grad()
def test_one_frame_is_an_image_even_after_training(changes: dict) -> None:
    autoencoder = tiny.dpvae(trained=True, **changes)
    alone = PerFrame(autoencoder.image)
    frame = clips(autoencoder)[:, :, :1]
    posterior = autoencoder.encode(frame)
    assert torch.equal(posterior.mean, alone.encode(frame).mean) and torch.equal(posterior.std, alone.encode(frame).std)
    assert torch.equal(autoencoder.decode_image(posterior.mean), alone.decode(posterior.mean))


@torch.no_grad()
def test_frames_reach_each_other_after_training() -> None:
    """Were everything per frame, all of the above would hold as well."""
    autoencoder = tiny.dpvae(trained=True)
    video = clips(autoencoder, groups=4)
    z = autoencoder.encode(video).mean
    changed = video.clone()
    changed[:, :, 1] = 0  # no key frame
    assert not torch.allclose(autoencoder.encode(changed).mean, z, atol=1e-3)
    moved = z.clone()
    moved[:, :, 0] += 1
    difference = (autoencoder.decode(moved) - autoencoder.decode(z)).abs().amax((0, 1, 3, 4))
    assert (difference > 1e-4).all()  # temporal attention joins all groups


@torch.no_grad()
def test_clips_of_a_batch_are_apart() -> None:
    autoencoder = tiny.dpvae(trained=True)
    video = clips(autoencoder)
    z = autoencoder.encode(video).mean
    torch.testing.assert_close(autoencoder.encode(video[1:]).mean, z[1:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(autoencoder.decode(z[1:]), autoencoder.decode(z)[1:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_scaling_and_shift_are_only_a_way_to_write_latents() -> None:
    one, other = tiny.dpvae(trained=True), tiny.dpvae(trained=True, scaling=2.0, shift=-0.3)
    video = clips(one)
    z, y = one.encode(video), other.encode(video)
    torch.testing.assert_close(z.mean / 0.8 + 0.1, y.mean / 2.0 - 0.3, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(z.std / 0.8, y.std / 2.0, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.decode(z.mean), other.decode(y.mean), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_frames_are_halved_as_means_and_doubled_as_repeats() -> None:
    x = tiny.grid(2, 8, 6, 3, 5)
    torch.testing.assert_close(TemporalDownsample(8)(x), (x[:, :, ::2] + x[:, :, 1::2]) / 2)
    torch.testing.assert_close(TemporalUpsample(8)(x), x.repeat_interleave(2, dim=2))


def test_only_the_trained_pair_has_gradients() -> None:
    autoencoder = tiny.dpvae()
    video = clips(autoencoder)
    noise = torch.zeros(2, autoencoder.channels, *autoencoder.latents(Size(*video.shape[2:])))
    dpvae_loss(autoencoder, video, Draw(noise), Weights())[0].backward()
    assert all(p.grad is None for p in autoencoder.image.parameters())
    trained = {name: p for name, p in autoencoder.named_parameters() if not name.startswith("image.")}
    assert all(p.requires_grad and p.grad is not None for p in trained.values())
    assert trained["encoder.conv_out.module.weight"].grad.abs().max() > 0  # the zeros learn


def test_a_posterior_is_sampled_from_a_generator() -> None:
    posterior = Posterior(torch.full((1, 2, 1, 50, 50), 3.0), torch.full((1, 2, 1, 50, 50), 0.5))
    one, same, other = (posterior.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.mean().item() == pytest.approx(3, abs=0.04) and one.std().item() == pytest.approx(0.5, abs=0.03)
    assert posterior.mode() is posterior.mean


@pytest.mark.parametrize("size", [(0, 16, 16), (4, 12, 16), (4, 16, 9)])
def test_an_extent_that_does_not_fit_is_said(size: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match=r"do not fit: use|is empty"):
        tiny.dpvae().encode(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("time", [0, 3, 16])
def test_groups_that_the_network_cannot_halve_are_refused(time: int) -> None:
    with pytest.raises(UserError, match="use 1, 2, 4 or 8"):
        tiny.dpvae(time=time)


def test_sd3_becomes_195_million_parameters() -> None:
    with torch.device("meta"):
        autoencoder = inflate(PRESETS["sd3"].build())
    assert isinstance(autoencoder, DPVAE) and autoencoder.settings == DPVAESettings()
    assert sum(p.numel() for p in autoencoder.parameters()) == pytest.approx(195e6, rel=0.01)


def test_what_was_not_inherited_is_what_no_image_autoencoder_has() -> None:
    for keys in (True, False):
        autoencoder = tiny.dpvae(settings=DPVAESettings(keys=keys))
        fresh = {id(p) for p in autoencoder.fresh()}
        names = {name for name, p in autoencoder.named_parameters() if id(p) in fresh}
        assert any(".time." in name for name in names) and all(".space." not in name for name in names)
        assert any("conv_out" in name for name in names) == keys
