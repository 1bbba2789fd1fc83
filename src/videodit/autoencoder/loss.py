"""The loss of DP-VAE (equation 4), and the constraints that others put on a video autoencoder's latents, each a setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from videodit.autoencoder.model import DPVAE, Latents, Video
from videodit.config import setting

Critic = Callable[[Tensor], Tensor]  # a video -> one number
Distance = Callable[[Tensor, Tensor], Tensor]  # two videos -> one number


@dataclass(frozen=True, kw_only=True)
class Weights:
    reconstruction: float = setting(1.0, doc="weight of |x - D(z)|^2")
    regulariser: float = setting(1.0, doc="weight of the three regularising terms together")
    adversarial: float = setting(0.0, doc="weight of what the discriminator says of D(z); 0.01 in the paper")
    perceptual: float = setting(0.0, doc="weight of the perceptual distance of x and D(z); 0.1 in the paper")
    identity: float = setting(0.0, doc="weight of |E(still clip) - E_k(picture)|^2, as in Open-Sora 1.2")
    like: Literal["key", "random", "mean"] = setting(
        "key", doc="what D_k(z) is compared with: the key frame, a random one of the group (CV-VAE), or the group's mean"
    )
    statistics: Literal["channels", "posterior"] = setting(
        "channels", doc="what the regulariser compares: mean and deviation of each channel, or the posterior's, element by element"
    )
    deviation: float = setting(
        1.0, doc="share of the posterior's deviation that is drawn in training; under 1 where the image autoencoder's own is large"
    )
    noise: float = setting(
        0.0, doc="deviation of noise added to what D decodes in training, since a sampler's latents are never exact; 0 is the paper"
    )


class Draw(NamedTuple):
    """What chance decides in one pass."""

    noise: Latents
    frame: int = 0  # of a group, for `like = "random"`


class Loss(NamedTuple):
    total: Tensor
    figures: dict[str, Tensor]
    rebuilt: Video


def moments(z: Float[Tensor, "b c f h w"]) -> tuple[Float[Tensor, "c"], Float[Tensor, "c"]]:
    """Per-channel mean and deviation over batch, time and space."""
    return z.mean((0, 2, 3, 4)), z.std((0, 2, 3, 4))


def dpvae_loss(
    autoencoder: DPVAE,
    video: Video,
    draw: Draw,
    weights: Weights,
    *,
    perceptual: Distance | None = None,
    critic: Critic | None = None,
) -> Loss:
    """|x - D(z)|^2 + |x_k - D_k(z)|^2 + |mu_z - mu_zk|^2 + |sigma_z - sigma_zk|^2 + what critics say of D(z), for whole groups."""
    still = autoencoder.encode_image(video[:, :, :: autoencoder.time])
    posterior = autoencoder.encode_step(video, still=still)
    z = posterior.mean + posterior.std * weights.deviation * draw.noise
    rebuilt = autoencoder.decode_step(z + weights.noise * draw.noise).float()
    error = (rebuilt - video).square().mean()
    terms = {"key_frames": (autoencoder.decode_image(z).float() - _target(video, autoencoder.time, weights, draw)).square().mean()}
    if weights.statistics == "channels":
        drawn = still.mean + still.std * weights.deviation * draw.noise
        pairs = zip(moments(z.float()), moments(drawn.float()), strict=True)
    else:
        pairs = ((posterior.mean.float(), still.mean.float()), (posterior.std.float(), still.std.float()))
    terms |= {name: (one - other).square().mean() for name, (one, other) in zip(("means", "deviations"), pairs, strict=True)}
    total = weights.reconstruction * error + weights.regulariser * sum(terms.values())
    extra: dict[str, tuple[float, Tensor]] = {}
    if weights.identity:
        extra["identity"] = weights.identity, _identity(autoencoder, video)
    if perceptual is not None and weights.perceptual:
        extra["perceptual"] = weights.perceptual, perceptual(rebuilt, video)
    if critic is not None and weights.adversarial:
        extra["adversarial"] = weights.adversarial, critic(rebuilt)
    total = total + sum(weight * term for weight, term in extra.values())
    terms |= {name: term for name, (_, term) in extra.items()}
    return Loss(total, {"psnr": 10 * (4 / error.detach()).log10(), **{name: term.detach() for name, term in terms.items()}}, rebuilt)


def _target(video: Video, time: int, weights: Weights, draw: Draw) -> Float[Tensor, "b c g h w"]:
    """What D_k(z) has to look like."""
    if weights.like == "mean":
        return video.unflatten(2, (-1, time)).mean(3)
    return video[:, :, draw.frame if weights.like == "random" else 0 :: time]


def _identity(autoencoder: DPVAE, video: Video) -> Tensor:
    """How far the latents of a picture, held still for a group, are from the image autoencoder's."""
    picture = video[:, :, :1]
    held = autoencoder.encode_step(picture.repeat(1, 1, autoencoder.time, 1, 1))
    return (held.mean - autoencoder.encode_image(picture).mean).square().mean()
