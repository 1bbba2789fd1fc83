"""What captions become where the text encoder is frozen: features, read once and kept by content."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videodit.data.cache import keep, known, remembered
from videodit.data.sources import Drawn
from videodit.data.text import TextEncoder
from videodit.data.text_sd3 import SD3Text
from videodit.train.pools import cache, digest

if TYPE_CHECKING:
    from videodit.train.backbone import BackboneRun


def read(settings: BackboneRun, frozen: TextEncoder | SD3Text, captions: list[str]) -> dict[str, Tensor]:
    """Features of all captions and of the blank: of drawn scenes together, of files caption by caption."""
    key: dict[str, Any] = {"text": digest(frozen), "tokenizer": frozen.spelling()}
    if isinstance(settings.data, Drawn):
        words = hashlib.sha256("\n".join(captions).encode()).hexdigest()
        return remembered(cache(settings), key | {"captions": words}, partial(_read, frozen, captions))
    apart = list(dict.fromkeys([*captions, ""]))
    found = {words: known(cache(settings), key | {"caption": words}) for words in apart}
    new = [words for words in apart if found[words] is None]
    for start in range(0, len(new), 256):
        some = new[start : start + 256]
        for words, features in zip(some, _apart(_features(frozen, some)), strict=True):
            found[words] = keep(cache(settings), key | {"caption": words}, features)
    return _joined([found[words] or {} for words in [*captions, ""]])


def _read(encoder: TextEncoder | SD3Text, captions: list[str]) -> dict[str, Tensor]:
    """Features of all captions and of the blank, padded to the longest."""
    words = [*captions, ""]
    return _joined([_features(encoder, words[start : start + 256]) for start in range(0, len(words), 256)])


@torch.no_grad()
def _features(encoder: TextEncoder | SD3Text, words: list[str]) -> dict[str, Tensor]:
    """In half precision."""
    found = {name: value for name, value in encoder(words)._asdict().items() if value is not None}
    return {name: value.half() if value.is_floating_point() else value for name, value in found.items()}


def _apart(features: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Of each text alone, without what it was padded by."""
    longest = features["mask"].sum(1).tolist() if "mask" in features else [features["sequence"].shape[1]] * len(features["sequence"])
    alone = range(len(features["sequence"]))
    return [{name: x[i : i + 1] if name == "pooled" else x[i : i + 1, : longest[i]] for name, x in features.items()} for i in alone]


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    longest = max(part["sequence"].shape[1] for part in parts)

    def padded(x: Tensor) -> Tensor:
        return torch.cat([x, x.new_zeros(len(x), longest - x.shape[1], *x.shape[2:])], dim=1)

    return {name: torch.cat([part[name] if name == "pooled" else padded(part[name]) for part in parts]) for name in parts[0]}
