"""What the decoder makes of the clip that a transformer expects: a loss beside that of the velocity, in the decoder's own features.

The velocity's loss weighs all numbers of the latents alike; the decoder does not. Of clips that are not too noisy the expected latents and
the true ones go through the first stages of D, and every stage says how far they are apart (a latent perceptual loss).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.autoencoder import DPVAE, PerFrame
from videodit.config import setting
from videodit.shapes import UserError

Latents = Float[Tensor, "b c f h w"]
Time = Float[Tensor, "b *f"]
Seen = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class Decoded:
    weight: float = setting(0.0, doc="weight of what D's features of the expected clip miss, beside the velocity's loss; 0: none look")
    clips: int = setting(4, doc="clips of a batch that are looked at, at most")
    most: float = setting(0.75, doc="largest t at which a clip is looked at: of more noise too much is guessed")
    stages: int = setting(8, doc="first stages of D that look")

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf") or self.clips < 1 or self.stages < 1 or not 0 < self.most <= 1:
            raise UserError("decoded takes a weight of 0 or more, 1 or more clips and stages, and most above 0 and up to 1.")

    def of(self, autoencoder: PerFrame) -> Seen | None:
        """The loss (expected, clean, t) by an autoencoder's D, and its figure; nothing where it weighs nothing."""
        if not self.weight:
            return None
        if not isinstance(autoencoder, DPVAE):
            raise UserError(
                "decoded is for clips that a DP-VAE decodes, and this autoencoder has no decoder of clips: set decoded.weight=0."
            )
        return partial(self.missed, autoencoder.requires_grad_(False))

    def missed(self, autoencoder: DPVAE, expected: Latents, clean: Latents, t: Time) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted error of those clips of a batch that are looked at, and the error itself."""
        near = (t.view(len(t), -1).amax(1) <= self.most).nonzero()[: self.clips, 0]
        if not len(near):
            return expected.new_zeros(()), {}
        error = self.apart(autoencoder, expected[near], clean[near])
        return self.weight * error, {"decoded": error.detach()}

    def apart(self, autoencoder: DPVAE, expected: Latents, clean: Latents) -> Float[Tensor, ""]:
        """How far features of the expected clips are from the true ones, as a part of the variance of these."""
        with torch.no_grad():
            truth = list(autoencoder.decode_features(clean, self.stages))
        seen = autoencoder.decode_features(expected, self.stages)
        return torch.stack(
            [(mine - true).float().square().mean() / true.float().var() for mine, true in zip(seen, truth, strict=True)]
        ).mean()
