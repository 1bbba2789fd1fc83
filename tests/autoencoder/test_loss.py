"""Every figure of the loss against a plain computation with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from videodit.autoencoder import DPVAESettings
from videodit.autoencoder.loss import Draw, Weights, dpvae_loss, moments
from videodit.shapes import Size

VIDEO = tiny.grid(2, 3, 8, 16, 16).clamp(-1, 1)


def draw(autoencoder, size: float = 1.0, frame: int = 0) -> Draw:
    return Draw(size * tiny.grid(2, autoencoder.channels, *autoencoder.latents(Size(*VIDEO.shape[2:])), seed=6), frame)


@torch.no_grad()
def test_at_the_start_the_distribution_is_the_image_autoencoder_s() -> None:
    autoencoder = tiny.dpvae()
    figures = dpvae_loss(autoencoder, VIDEO, draw(autoencoder), Weights()).figures
    assert figures["means"] == 0 and figures["deviations"] == 0
    assert figures["key_frames"] > 0


@torch.no_grad()
def test_the_figures() -> None:
    autoencoder = tiny.dpvae(trained=True)
    eps = draw(autoencoder).noise.numpy()
    keys = VIDEO[:, :, ::4]
    posterior, still = autoencoder.encode(VIDEO), autoencoder.encode_image(keys)
    z, z_k = (p.mean.numpy() + p.std.numpy() * 0.6 * eps for p in (posterior, still))
    axes = (0, 2, 3, 4)
    rebuilt = autoencoder.decode(torch.from_numpy(z + 0.3 * eps)).numpy()
    pictures = autoencoder.decode_image(torch.from_numpy(z)).numpy()
    error = np.mean((rebuilt - VIDEO.numpy()) ** 2)
    wanted = {
        "psnr": 10 * np.log10(2**2 / error),
        "key_frames": np.mean((pictures - keys.numpy()) ** 2),
        "means": np.mean((z.mean(axes) - z_k.mean(axes)) ** 2),
        "deviations": np.mean((z.std(axes, ddof=1) - z_k.std(axes, ddof=1)) ** 2),
    }
    assert min(wanted["means"], wanted["deviations"]) > 1e-6
    weights = Weights(reconstruction=2.0, regulariser=3.0, deviation=0.6, noise=0.3)
    loss, figures, _ = dpvae_loss(autoencoder, VIDEO, draw(autoencoder), weights)
    assert {name: value.item() for name, value in figures.items()} == pytest.approx(wanted, rel=1e-3)
    assert loss.item() == pytest.approx(2 * error + 3 * (wanted["key_frames"] + wanted["means"] + wanted["deviations"]), rel=1e-4)


@torch.no_grad()
def test_without_a_share_of_the_deviation_the_mean_is_decoded() -> None:
    autoencoder = tiny.dpvae(trained=True)
    one, other = (dpvae_loss(autoencoder, VIDEO, draw(autoencoder, k), Weights(deviation=0.0))[0] for k in (1, 2))
    error = (autoencoder.decode(autoencoder.encode(VIDEO).mean) - VIDEO).square().mean()
    only = dpvae_loss(autoencoder, VIDEO, draw(autoencoder), Weights(deviation=0.0, regulariser=0.0))[0]
    assert one == other and only.item() == pytest.approx(error.item(), rel=1e-6)


def test_moments_are_per_channel() -> None:
    scale, shift = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, -3.0, 5.0])
    z = tiny.grid(4, 3, 4, 20, 20) * scale[:, None, None, None] + shift[:, None, None, None]
    mean, std = moments(z)
    torch.testing.assert_close(mean, shift, rtol=0, atol=0.1)
    torch.testing.assert_close(std, scale, rtol=0.05, atol=0)


def test_the_encoder_learns_from_the_regulariser_and_the_decoder_does_not() -> None:
    autoencoder = tiny.dpvae(trained=True)
    dpvae_loss(autoencoder, VIDEO, draw(autoencoder), Weights(reconstruction=0.0))[0].backward()
    assert all(p.grad is None or not p.grad.any() for p in autoencoder.decoder.parameters())
    assert any(p.grad is not None and p.grad.any() for p in autoencoder.encoder.parameters())


VARIANTS = {
    "random frame": (Weights(like="random"), 2),
    "group's mean": (Weights(like="mean"), 0),
    "posterior": (Weights(statistics="posterior"), 0),
    "identity": (Weights(identity=2.0), 0),
    "causal": (Weights(), 0),
    "without key frames": (Weights(), 0),
}


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_what_others_ask_of_the_latents(name: str) -> None:
    """Each figure that a setting changes, from public parts alone."""
    weights, frame = VARIANTS[name]
    settings = {"causal": DPVAESettings(reach="causal"), "without key frames": DPVAESettings(keys=False)}.get(name)
    autoencoder = tiny.dpvae(trained=True, settings=settings)
    out = dpvae_loss(autoencoder, VIDEO, draw(autoencoder, frame=frame), weights)
    posterior, still = autoencoder.encode(VIDEO), autoencoder.encode_image(VIDEO[:, :, ::4])
    noise = draw(autoencoder).noise
    z = posterior.mean + posterior.std * noise
    target = VIDEO.unflatten(2, (2, 4)).mean(3) if weights.like == "mean" else VIDEO[:, :, frame::4]
    wanted = {"key_frames": (autoencoder.decode_image(z) - target).square().mean()}
    if weights.statistics == "posterior":
        wanted |= {"means": (posterior.mean - still.mean).square().mean(), "deviations": (posterior.std - still.std).square().mean()}
    else:
        pairs = zip(moments(z), moments(still.mean + still.std * noise), strict=True)
        wanted |= {key: (one - other).square().mean() for key, (one, other) in zip(("means", "deviations"), pairs, strict=True)}
    if weights.identity:
        held = autoencoder.encode(VIDEO[:, :, :1].repeat(1, 1, 4, 1, 1)).mean
        wanted["identity"] = (held - autoencoder.encode_image(VIDEO[:, :, :1]).mean).square().mean()
    got = {key: value.item() for key, value in out.figures.items() if key != "psnr"}
    assert got == pytest.approx({key: value.item() for key, value in wanted.items()}, rel=1e-3, abs=1e-9)
    error = (autoencoder.decode(z) - VIDEO).square().mean().item()
    assert out.total.item() == pytest.approx(error + sum(got.values()) + got.get("identity", 0.0), rel=1e-4)


@torch.no_grad()
def test_critics_are_asked_of_what_is_rebuilt() -> None:
    autoencoder = tiny.dpvae(trained=True)
    weights = Weights(adversarial=0.5, perceptual=0.25)
    out = dpvae_loss(
        autoencoder, VIDEO, draw(autoencoder), weights, perceptual=lambda one, other: (one - other).abs().mean(), critic=lambda x: x.mean()
    )
    plain = dpvae_loss(autoencoder, VIDEO, draw(autoencoder), Weights())
    away, said = (out.rebuilt - VIDEO).abs().mean().item(), out.rebuilt.mean().item()
    assert (out.figures["perceptual"].item(), out.figures["adversarial"].item()) == pytest.approx((away, said), rel=1e-5)
    assert out.total.item() == pytest.approx(plain.total.item() + 0.25 * away + 0.5 * said, rel=1e-5)
    assert torch.equal(out.rebuilt, plain.rebuilt)
