"""The shapes of image autoencoders that can be built here from nothing; a preset states only its difference."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from videodit.config import setting
from videodit.shapes import UserError


@dataclass(frozen=True, kw_only=True)
class ImageAutoencoder:
    """A diffusers `AutoencoderKL`; each width after the first halves rows and columns."""

    widths: tuple[int, ...] = setting((128, 256, 512, 512), doc="channels at each resolution, finest first")
    layers: int = setting(2, doc="residual blocks at each resolution (the decoder has one more)")
    latent_channels: int = setting(16, doc="channels of the latents")
    groups: int = setting(32, doc="groups of every normalisation")

    scaling: float = setting(1.0, doc="what normalised latents were multiplied by")
    shift: float = setting(0.0, doc="what was taken from latents before")
    quant_convs: bool = setting(False, doc="whether 1x1 convolutions stand between the networks and the latents")
    post_quant_convs: bool | None = setting(None, doc="whether one stands before the decoder; unset: as quant_convs says")
    middle_attention: bool = setting(True, doc="whether the middles attend over the whole frame")
    attentive: tuple[int, ...] = setting((), doc="resolutions, 0 the finest, whose blocks have attention over the whole frame behind them")

    @property
    def space(self) -> int:
        return 2 ** (len(self.widths) - 1)

    def build(self) -> AutoencoderKL:
        return AutoencoderKL(**self.described())

    def described(self) -> dict[str, Any]:
        """The configuration of diffusers' class."""
        down = tuple(f"{'Attn' * (level in self.attentive)}DownEncoderBlock2D" for level in range(len(self.widths)))
        return {
            "act_fn": "silu",
            "in_channels": 3,
            "out_channels": 3,
            "down_block_types": down,
            "up_block_types": tuple(name.replace("DownEncoder", "UpDecoder") for name in reversed(down)),
            "block_out_channels": self.widths,
            "layers_per_block": self.layers,
            "latent_channels": self.latent_channels,
            "norm_num_groups": self.groups,
            "scaling_factor": self.scaling,
            "shift_factor": self.shift,
            "use_quant_conv": self.quant_convs,
            "use_post_quant_conv": self.quant_convs if self.post_quant_convs is None else self.post_quant_convs,
            "mid_block_add_attention": self.middle_attention,
        }

    @classmethod
    def of(cls, image: AutoencoderKL) -> ImageAutoencoder:
        """The settings that a given autoencoder was built with; one that they would not build is refused."""
        config = dict(image.config)
        scaling = config["scaling_factor"]
        if not isinstance(scaling, int | float) or not 0 < scaling < math.inf:
            raise UserError(f"An AutoencoderKL with scaling_factor = {scaling} is not read: give one with a number over 0.")
        if one := next((name for name in ("latents_mean", "latents_std") if config.get(name) is not None), None):
            raise UserError(f"An AutoencoderKL with {one}, a number for each channel, is not read: give one with scaling_factor alone.")
        made = cls(
            widths=tuple(config["block_out_channels"]),
            layers=config["layers_per_block"],
            latent_channels=config["latent_channels"],
            groups=config["norm_num_groups"],
            scaling=float(scaling),
            shift=float(config["shift_factor"] or 0.0),
            quant_convs=config["use_quant_conv"],
            post_quant_convs=None if config["use_post_quant_conv"] == config["use_quant_conv"] else config["use_post_quant_conv"],
            middle_attention=config["mid_block_add_attention"],
            attentive=tuple(level for level, name in enumerate(config["down_block_types"]) if name.startswith("Attn")),
        )
        for name, fitting in made.described().items():
            found = config[name]
            if name != "shift_factor" and (tuple(found) if isinstance(fitting, tuple) else found) != fitting:
                raise UserError(f"An AutoencoderKL with {name} = {found} is not read: only {fitting} is.")
        return made


_SD3 = ImageAutoencoder()
PRESETS: dict[str, ImageAutoencoder] = {
    "sd3": _SD3,
    "toybox": replace(_SD3, widths=(24, 48, 96), layers=1, latent_channels=4, groups=8),
    "sprites": replace(_SD3, widths=(24, 48, 96), layers=1, latent_channels=8, groups=8),
    "tiny": replace(_SD3, widths=(8, 8, 8, 16), layers=1, groups=4, latent_channels=8),
}
