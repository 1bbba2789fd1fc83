"""The transformer. Tokens never leave this room: what goes in and out is a latent grid b c f h w."""

from videodit.backbone.model import DualTransformer, Transformer
from videodit.backbone.positions import Centred, Cropped
from videodit.backbone.presets import PRESETS, build
from videodit.backbone.single import DiT, SingleTransformer

__all__ = ["PRESETS", "Centred", "Cropped", "DiT", "DualTransformer", "SingleTransformer", "Transformer", "build"]
