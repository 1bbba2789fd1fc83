"""DP-VAE: z = z_k + z_r, the frozen image encoder's latents of the key frames plus a residual over the whole clip.

A clip is cut into groups of `time` frames (4); the first of each is its key frame. An image is E_k and D_k alone. What
goes in and out is normalised: (latent - shift) * scaling, as the image transformer knows it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn

from videodit.autoencoder.presets import ImageAutoencoder
from videodit.autoencoder.pseudo3d import TEMPORAL, Decoder3D, Encoder3D, Past, Reach, each_frame
from videodit.config import setting
from videodit.shapes import Size, UserError, latent_size

PRECISIONS = (torch.float32, torch.bfloat16)  # in half precision the activations of a decoder can overflow, which gives black frames
AT_ONCE = 8  # frames of each clip that go through the image autoencoder together
Video = Float[Tensor, "b c f h w"]
Latents = Float[Tensor, "b d t y x"]


@dataclass(frozen=True, kw_only=True)
class DPVAESettings:
    """What is chosen when an image autoencoder is inflated."""

    time: int = setting(4, doc="frames of a group of pictures, the first being its key frame; a power of two")
    keys: bool = setting(True, doc="whether z = z_k + z_r; else z is E_r's own, which then keeps its copied output")
    first: Literal["group", "alone"] = setting("group", doc="whether the first frame opens a group, or is one alone (4f + 1 frames)")
    reach: Literal["symmetric", "causal"] = setting("symmetric", doc="what a group sees through time: all groups, or itself and the past")
    window: int = setting(8, doc="groups that causal temporal attention sees, the present one included")
    step: int = setting(1, doc="groups a causal autoencoder takes at once, which bounds its memory")

    def __post_init__(self) -> None:
        for name in ("window", "step"):  # which times there are the networks say
            if (value := getattr(self, name)) < 1:
                raise UserError(f"{name} takes 1 or more, not {value}.")


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
        ImageAutoencoder.of(image)  # refuses what could not be built again
        self.image = image.requires_grad_(False).eval()
        for module in image.modules():
            if isinstance(module, Attention) and not module._forward_hooks:  # it may have come out of another of ours
                module.register_forward_hook(_as_it_came)

    @property
    def space(self) -> int:
        return 2 ** (len(self.image.config["block_out_channels"]) - 1)

    @property
    def time(self) -> int:
        return 1

    @property
    def lead(self) -> int:
        """Frames that stand before the first of a clip to make a group of it."""
        return 0

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
        return self._posterior(each_frame(self.image.encoder, _laid_out(video)))

    def _posterior(self, features: Tensor) -> Posterior:
        mean, logvar = self._through(self.image.quant_conv, features).chunk(2, dim=1)
        return Posterior((mean - self.shift) * self.scaling, (0.5 * logvar.clamp(-30, 20)).exp() * self.scaling)

    def decode_image(self, latents: Latents) -> Video:
        """Every latent frame by D_k alone."""
        return each_frame(self.image.decoder, self._through(self.image.post_quant_conv, self._raw(_laid_out(latents))))

    def encode(self, video: Video) -> Posterior:
        """A few frames at once, which bounds the memory of long clips."""
        pieces = (self.encode_image(piece) for piece in video.split(AT_ONCE, dim=2))
        return Posterior(*_joined(((piece.mean, piece.std) for piece in pieces), video.shape[2]))

    def decode(self, latents: Latents, frames: int | None = None) -> Video:
        latents = latents[:, :, :frames]
        return _joined(((self.decode_image(piece),) for piece in latents.split(AT_ONCE, dim=2)), latents.shape[2])[0]

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
        reach = Reach(kind=self.settings.reach, window=self.settings.window)
        encoder = _residual(image) if self.settings.keys else copy.deepcopy(image.encoder)
        self.encoder = Encoder3D(encoder, time=self.time, reach=reach).requires_grad_(True)
        self.decoder = Decoder3D(copy.deepcopy(image.decoder), time=self.time, reach=reach).requires_grad_(True)

    @property
    def time(self) -> int:
        return self.settings.time

    def encode(self, video: Video) -> Posterior:
        """The latents of a clip of any length: one frame is an image, a last group that is not whole repeats the last frame."""
        self.latents(Size(*video.shape[2:]))
        if video.shape[2] == 1:
            return self.encode_image(video)
        video, past = self.whole_groups(video), Past()
        pieces = (self.encode_step(piece, past) for piece in self._pieces(video, self.time))
        return Posterior(*_joined(((piece.mean, piece.std) for piece in pieces), video.shape[2] // self.time))

    def decode(self, latents: Latents, frames: int | None = None) -> Video:
        """The clip of some latents: `time` frames for each, or the first `frames`; one frame is an image."""
        if frames == 1:
            return self.decode_image(latents[:, :, :1])
        self.holds(latents, frames)
        past = Past()
        pieces = ((self.decode_step(piece, past),) for piece in self._pieces(latents, 1))
        return _joined(pieces, latents.shape[2] * self.time)[0][:, :, self.lead :][:, :, :frames]

    def holds(self, latents: Latents, frames: int | None) -> None:
        """Refuse to make more frames than some latents hold."""
        most = latents.shape[2] * self.time - self.lead
        if not 0 < (most if frames is None else frames) <= most:
            raise UserError(f"{latents.shape[2]} latent frames hold at most {most} frames, not {frames}: ask for fewer.")

    def encode_step(self, video: Video, past: Past | None = None, *, still: Posterior | None = None) -> Posterior:
        """z = z_k + z_r of whole groups; z_r adds to the mean, the deviation is E_k's. `still`: z_k, where it is known."""
        video = _laid_out(video)
        if not self.settings.keys:
            return self._posterior(self.encoder(video, past))
        still = still or self.encode_image(video[:, :, :: self.time])
        return Posterior(still.mean + self.encoder(video, past) * self.scaling, still.std)

    def decode_step(self, latents: Latents, past: Past | None = None) -> Video:
        """The frames of whole groups by D."""
        return self.decoder(self._decodable(latents), past)

    def decode_features(self, latents: Latents, stages: int) -> Iterator[Tensor]:
        """What each of D's first stages makes of whole groups."""
        return islice(self.decoder.stages.each(self._decodable(latents), None), stages)

    def _decodable(self, latents: Latents) -> Tensor:
        return self._through(self.image.post_quant_conv, self._raw(_laid_out(latents)))

    @property
    def lead(self) -> int:
        return self.time - 1 if self.settings.first == "alone" else 0

    def latents(self, video: Size) -> Size:
        groups = -(-(video.frames + self.lead) // self.time)
        return super().latents(video if video.frames == 1 else video._replace(frames=groups * self.time))

    def whole_groups(self, video: Video) -> Float[Tensor, "b c g h w"]:
        """The clip with its last frame repeated until the last group is whole, and its first where that stands alone."""
        missing = -(video.shape[2] + self.lead) % self.time
        ends = (video[:, :, :1].expand(-1, -1, self.lead, -1, -1), video[:, :, -1:].expand(-1, -1, missing, -1, -1))
        return torch.cat([ends[0], video, ends[1]], dim=2) if self.lead + missing else video

    def fresh(self) -> list[nn.Parameter]:
        """The parameters that do not start as copies: all that sees time and, where E_r puts out a residual, its last layer."""
        modules = [module for module in self.modules() if isinstance(module, TEMPORAL)]
        modules += [self.encoder.conv_out] if self.settings.keys else []
        return [parameter for module in modules for parameter in module.parameters()]

    def _pieces(self, x: Tensor, frames: int) -> tuple[Tensor, ...]:
        """What is run at once: everything where time is symmetric, else `step` groups, each of so many `frames`."""
        return (x,) if self.settings.reach == "symmetric" else x.split(self.settings.step * frames, dim=2)


def inflate(image: AutoencoderKL, settings: DPVAESettings | None = None) -> DPVAE:
    """Any diffusers `AutoencoderKL` -> a video autoencoder that starts as it: z = z_k, and D repeats D_k's pictures."""
    return DPVAE(image, settings)


def _joined(pieces: Iterable[tuple[Tensor, ...]], frames: int) -> list[Tensor]:
    """Consecutive pieces as whole tensors of so many frames; no piece is kept beside them."""
    whole: list[Tensor] = []
    at = 0
    for piece in pieces:
        if not whole and piece[0].shape[2] == frames:
            return list(piece)
        whole = whole or [part.new_empty(*part.shape[:2], frames, *part.shape[3:]) for part in piece]
        for into, part in zip(whole, piece, strict=True):
            into[:, :, at : at + part.shape[2]] = part
        at += piece[0].shape[2]
    return whole


def _laid_out(x: Tensor) -> Tensor:
    """What goes in. Channels innermost make convolutions in half precision fast, and normalisation slow where something learns."""
    device = x.device.type
    mixed = torch.get_autocast_dtype(device) if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device) else x.dtype
    for precision in (x.dtype, mixed):
        if precision not in PRECISIONS:
            raise UserError(f"Autoencoders are safe in float32 and bfloat16, not in {str(precision)[6:]}: convert the input.")
    innermost = x.dtype == torch.bfloat16 and not torch.is_grad_enabled()
    return x.contiguous(memory_format=torch.channels_last_3d if innermost else torch.contiguous_format)


def _as_it_came(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
    """Diffusers' attention puts the channels innermost, whatever came in, and all that follows would be laid out so."""
    return out.contiguous() if given[0].is_contiguous() else out


def _residual(image: AutoencoderKL):
    """A copy of the 2D encoder that puts out a residual instead of moments, zero at the start."""
    encoder, channels = copy.deepcopy(image.encoder), image.config["latent_channels"]
    encoder.conv_out = nn.Conv2d(encoder.conv_out.in_channels, channels, 3, padding=1)
    nn.init.zeros_(encoder.conv_out.weight)
    nn.init.zeros_(encoder.conv_out.bias)  # pyright: ignore[reportArgumentType]
    return encoder
