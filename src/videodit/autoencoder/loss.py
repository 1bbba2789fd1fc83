"""The loss of DP-VAE (equation 4) as far as it needs no other network: reconstruction and the distribution's regulariser."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from videodit.autoencoder.model import DPVAE
from videodit.config import setting


@dataclass(frozen=True, kw_only=True)
class Weights:
    reconstruction: float = setting(1.0, doc="weight of |x - D(z)|^2")
    regulariser: float = setting(1.0, doc="weight of the three regularising terms together")
    deviation: float = setting(
        1.0, doc="share of the posterior's deviation that is drawn in training; under 1 where the image autoencoder's own is large"
    )
    noise: float = setting(
        0.0, doc="deviation of noise added to what D decodes in training, since a sampler's latents are never exact; 0 is the paper"
    )


def moments(z: Float[Tensor, "b c f h w"]) -> tuple[Float[Tensor, "c"], Float[Tensor, "c"]]:
    """Per-channel mean and deviation over batch, time and space."""
    return z.mean((0, 2, 3, 4)), z.std((0, 2, 3, 4))


def dpvae_loss(
    autoencoder: DPVAE, video: Float[Tensor, "b c f h w"], noise: Float[Tensor, "b d t y x"], weights: Weights
) -> tuple[Tensor, dict[str, Tensor]]:
    """|x - D(z)|^2, and |x_k - D_k(z)|^2 + |mu_z - mu_zk|^2 + |sigma_z - sigma_zk|^2, each a figure of its own."""
    keys = video[:, :, :: autoencoder.time]
    still = autoencoder.encode_image(keys)
    z_k = still.mean + still.std * weights.deviation * noise
    z = z_k + autoencoder.residual(video)
    error = (autoencoder.decode(z + weights.noise * noise).float() - video).square().mean()
    (mean, std), (mean_k, std_k) = moments(z.float()), moments(z_k.float())
    terms = {
        "key_frames": (autoencoder.decode_image(z).float() - keys).square().mean(),
        "means": (mean - mean_k).square().mean(),
        "deviations": (std - std_k).square().mean(),
    }
    total = weights.reconstruction * error + weights.regulariser * sum(terms.values())
    return total, {"psnr": 10 * (4 / error.detach()).log10(), **{name: term.detach() for name, term in terms.items()}}
