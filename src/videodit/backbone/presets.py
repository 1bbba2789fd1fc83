"""Transformers by name; a preset states only its difference."""

from __future__ import annotations

from dataclasses import replace
from typing import overload

from videodit.backbone.model import DualTransformer, Transformer
from videodit.backbone.positions import Cropped
from videodit.backbone.single import DiT, SingleTransformer

_SD3 = Transformer(normed=False, places=Cropped(side=192, base=64))
_SD3_TINY = replace(_SD3, channels=8, width=48, depth=3, heads=2, text=32, pooled=24, places=Cropped(side=12, base=4))
_TOYBOX = Transformer(channels=4, width=128, depth=6, heads=4, text=128, pooled=128, rotary="space-time")
_LATTE = DiT(variance=True)
_LATTE_TINY = replace(_LATTE, width=48, depth=4, heads=4, places=Cropped(side=8, base=8))
_LATTES: dict[str, DiT] = {
    "v1": replace(_LATTE, layout="late"),
    "v2": _LATTE,
    "v3": replace(_LATTE, layout="factorised", depth=23),
    "v4": replace(_LATTE, layout="split"),
}
PRESETS: dict[str, Transformer | DiT] = {
    "sd3-medium": _SD3,
    "sd3-medium-2d3d": replace(_SD3, layout="beside", video=True),
    "sd3-medium-tiny": _SD3_TINY,
    "sd3-medium-2d3d-tiny": replace(_SD3_TINY, layout="beside", video=True),
    **{f"latte-xl-{name}": settings for name, settings in _LATTES.items()},
    **{f"latte-xl-{name}-tiny": replace(_LATTE_TINY, layout=settings.layout) for name, settings in _LATTES.items()},
    "dit-xl-2": replace(_LATTE, layout="spatial", labels=1000),
    "dit-xl-2-tiny": replace(_LATTE_TINY, layout="spatial", labels=10),
    "toybox": _TOYBOX,
    "toybox-tiny": replace(_TOYBOX, width=48, depth=2, heads=2, text=32, pooled=32, channels=8),
    "sprites": replace(_TOYBOX, channels=8, width=192, depth=8, heads=6, text=192, pooled=192),
    "sprites-tiny": replace(_TOYBOX, channels=8, width=48, depth=2, heads=2, text=32, pooled=32),
}


@overload
def build(settings: Transformer) -> DualTransformer: ...
@overload
def build(settings: DiT) -> SingleTransformer: ...
def build(settings: Transformer | DiT) -> DualTransformer | SingleTransformer:
    return DualTransformer(settings) if isinstance(settings, Transformer) else SingleTransformer(settings)
