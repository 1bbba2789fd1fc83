"""Every figure of the loss against a plain computation with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from videodit.autoencoder.loss import Weights, dpvae_loss, moments
from videodit.shapes import Size

VIDEO = tiny.grid(2, 3, 8, 16, 16).clamp(-1, 1)


def noise(autoencoder) -> torch.Tensor:
    return tiny.grid(2, autoencoder.channels, *autoencoder.latents(Size(*VIDEO.shape[2:])), seed=6)


@torch.no_grad()
def test_at_the_start_the_distribution_is_the_image_autoencoder_s() -> None:
    autoencoder = tiny.dpvae()
    _, figures = dpvae_loss(autoencoder, VIDEO, noise(autoencoder), Weights())
    assert figures["means"] == 0 and figures["deviations"] == 0
    assert figures["key_frames"] > 0


@torch.no_grad()
def test_the_figures() -> None:
    autoencoder = tiny.dpvae(trained=True)
    eps = noise(autoencoder).numpy()
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
    loss, figures = dpvae_loss(autoencoder, VIDEO, noise(autoencoder), weights)
    assert {name: value.item() for name, value in figures.items()} == pytest.approx(wanted, rel=1e-3)
    assert loss.item() == pytest.approx(2 * error + 3 * (wanted["key_frames"] + wanted["means"] + wanted["deviations"]), rel=1e-4)


@torch.no_grad()
def test_without_a_share_of_the_deviation_the_mean_is_decoded() -> None:
    autoencoder = tiny.dpvae(trained=True)
    one, other = (dpvae_loss(autoencoder, VIDEO, k * noise(autoencoder), Weights(deviation=0.0))[0] for k in (1, 2))
    error = (autoencoder.decode(autoencoder.encode(VIDEO).mean) - VIDEO).square().mean()
    only = dpvae_loss(autoencoder, VIDEO, noise(autoencoder), Weights(deviation=0.0, regulariser=0.0))[0]
    assert one == other and only.item() == pytest.approx(error.item(), rel=1e-6)


def test_moments_are_per_channel() -> None:
    scale, shift = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, -3.0, 5.0])
    z = tiny.grid(4, 3, 4, 20, 20) * scale[:, None, None, None] + shift[:, None, None, None]
    mean, std = moments(z)
    torch.testing.assert_close(mean, shift, rtol=0, atol=0.1)
    torch.testing.assert_close(std, scale, rtol=0.05, atol=0)


def test_the_encoder_learns_from_the_regulariser_and_the_decoder_does_not() -> None:
    autoencoder = tiny.dpvae(trained=True)
    dpvae_loss(autoencoder, VIDEO, noise(autoencoder), Weights(reconstruction=0.0))[0].backward()
    assert all(p.grad is None or not p.grad.any() for p in autoencoder.decoder.parameters())
    assert any(p.grad is not None and p.grad.any() for p in autoencoder.encoder.parameters())
