"""DP-VAE: z = z_k + z_r, the frozen image encoder's latents of the key frames plus a residual over the whole clip.

A clip is cut into groups of `time` frames (4); the first of each is its key frame. An image is E_k and D_k alone. What
goes in and out is normalised: (latent - shift) * scaling, as the image transformer knows it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn

from videodit.autoencoder.pseudo3d import TEMPORAL, Decoder3D, Encoder3D, each_frame
from videodit.config import setting
from videodit.shapes import Size, UserError, latent_size

Video = Float[Tensor, "b c f h w"]
Latents = Float[Tensor, "b d t y x"]


@dataclass(frozen=True, kw_only=True)
class DPVAESettings:
    """What is chosen when an image autoencoder is inflated."""

    time: int = setting(4, doc="frames of a group of pictures, the first being its key frame; a power of two")


@dataclass(frozen=True)
class Posterior:
    """The latents' distribution, normalised."""

    mean: Tensor
    std: Tensor

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.std * noise


class PerFrame(nn.Module):
    """The image autoencoder alone (E_k and D_k, frozen), every frame by itself: what an image model uses."""

    def __init__(self, image: AutoencoderKL) -> None:
        super().__init__()
        self.image = image.requires_grad_(False).eval()

    @property
    def space(self) -> int:
        return 2 ** (len(self.image.config["block_out_channels"]) - 1)

    @property
    def time(self) -> int:
        return 1

    @property
    def channels(self) -> int:
        return self.image.config["latent_channels"]

    @property
    def scaling(self) -> float:
        return self.image.config["scaling_factor"]

    @property
    def shift(self) -> float:
        return self.image.config["shift_factor"] or 0.0

    def latents(self, video: Size) -> Size:
        """The extent of the latents of a clip of this extent."""
        return latent_size(video, space=self.space, time=self.time)

    def encode_image(self, video: Video) -> Posterior:
        """Every frame by E_k alone."""
        moments = self._through(self.image.quant_conv, each_frame(self.image.encoder, video))
        mean, logvar = moments.chunk(2, dim=1)
        return Posterior((mean - self.shift) * self.scaling, (0.5 * logvar.clamp(-30, 20)).exp() * self.scaling)

    def decode_image(self, latents: Latents) -> Video:
        """Every latent frame by D_k alone."""
        return each_frame(self.image.decoder, self._through(self.image.post_quant_conv, self._raw(latents)))

    def encode(self, video: Video) -> Posterior:
        return self.encode_image(video)

    def decode(self, latents: Latents) -> Video:
        return self.decode_image(latents)

    def _raw(self, latents: Tensor) -> Tensor:
        return latents / self.scaling + self.shift

    @staticmethod
    def _through(convolution: nn.Module | None, x: Tensor) -> Tensor:
        return x if convolution is None else each_frame(convolution, x)


class DPVAE(PerFrame):
    """E_k and D_k, and the trained pair beside them: E_r (`encoder`) and D (`decoder`)."""

    def __init__(self, image: AutoencoderKL, settings: DPVAESettings | None = None) -> None:
        super().__init__(image)
        self.settings = settings or DPVAESettings()
        if self.time not in (fitting := [2**halvings for halvings in range(len(image.config["block_out_channels"]))]):
            raise UserError(f"Groups of {self.time} frames do not fit: use {', '.join(map(str, fitting[:-1]))} or {fitting[-1]}.")
        self.encoder = Encoder3D(_residual(image), time=self.time).requires_grad_(True)
        self.decoder = Decoder3D(copy.deepcopy(image.decoder), time=self.time).requires_grad_(True)

    @property
    def time(self) -> int:
        return self.settings.time

    def encode(self, video: Video) -> Posterior:
        """The latents of a clip: z_r adds to the mean, the deviation is E_k's."""
        self.latents(Size(*video.shape[2:]))
        if video.shape[2] == 1:
            return self.encode_image(video)
        keys = self.encode_image(video[:, :, :: self.time])
        return Posterior(keys.mean + self.residual(video), keys.std)

    def residual(self, video: Video) -> Latents:
        """z_r: what E_r adds to the latents of the key frames."""
        return self.encoder(video) * self.scaling

    def decode(self, latents: Latents) -> Video:
        """The clip of some latents: `time` frames for each."""
        return self.decoder(self._through(self.image.post_quant_conv, self._raw(latents)))

    def fresh(self) -> list[nn.Parameter]:
        """The parameters that do not start as copies: E_r's last layer and all that sees time."""
        modules = [self.encoder.conv_out, *(module for module in self.modules() if isinstance(module, TEMPORAL))]
        return [parameter for module in modules for parameter in module.parameters()]


def inflate(image: AutoencoderKL, settings: DPVAESettings | None = None) -> DPVAE:
    """Any diffusers `AutoencoderKL` -> a video autoencoder that starts as it: z = z_k, and D repeats D_k's pictures."""
    return DPVAE(image, settings)


def _residual(image: AutoencoderKL):
    """A copy of the 2D encoder that puts out a residual instead of moments, zero at the start."""
    encoder, channels = copy.deepcopy(image.encoder), image.config["latent_channels"]
    encoder.conv_out = nn.Conv2d(encoder.conv_out.in_channels, channels, 3, padding=1)
    nn.init.zeros_(encoder.conv_out.weight)
    nn.init.zeros_(encoder.conv_out.bias)  # pyright: ignore[reportArgumentType]
    return encoder
