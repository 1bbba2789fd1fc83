"""Transformers by name; a preset states only its difference."""

from __future__ import annotations

from dataclasses import replace

from videodit.backbone.model import DualTransformer, Transformer
from videodit.backbone.positions import Cropped

_SD3 = Transformer(normed=False, places=Cropped(side=192, base=64))
_TOYBOX = Transformer(channels=4, width=128, depth=6, heads=4, text=128, pooled=128, rotary="space-time")
PRESETS: dict[str, Transformer] = {
    "sd3-medium": _SD3,
    "sd3-medium-tiny": replace(_SD3, channels=8, width=48, depth=3, heads=2, text=32, pooled=24, places=Cropped(side=12, base=4)),
    "toybox": _TOYBOX,
    "toybox-tiny": replace(_TOYBOX, width=48, depth=2, heads=2, text=32, pooled=32, channels=8),
}


def build(settings: Transformer) -> DualTransformer:
    return DualTransformer(settings)
