"""What captions become where the text encoder is frozen: features, read once and kept by content."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from videodit.data.cache import remembered
from videodit.data.rows import Rows
from videodit.data.sources import Drawn
from videodit.data.text import TextEncoder
from videodit.data.text_sd3 import SD3Text
from videodit.shapes import Text
from videodit.train.pools import cache, digest

if TYPE_CHECKING:
    from videodit.train.backbone import BackboneRun


class Features:
    """Features of captions, and of the blank behind them, which stay on disk; `places`: the row of each."""

    def __init__(self, rows: Rows, places: np.ndarray) -> None:
        self.rows, self.places = rows, places
        self.longest = max(shape[0] for shape in rows.shapes("sequence")[0])

    def of(self, which: np.ndarray, length: int | None = None) -> Text:
        """Of some captions, padded to a length, or to the longest of them."""
        wanted = self.places[which]
        found = dict(zip(self.rows.tensors, self.rows.beside(self.rows.tensors, wanted), strict=True))
        if "mask" not in found:
            return Text(sequence=torch.stack(found["sequence"]).float(), pooled=torch.stack(found["pooled"]).float())
        length = length or max(int(mask.sum()) for mask in found["mask"])
        sequence, mask = (torch.stack([_fitted(x, length) for x in found[name]]) for name in ("sequence", "mask"))
        return Text(sequence=sequence.float(), pooled=torch.stack(found["pooled"]).float(), mask=mask)


def read(settings: BackboneRun, frozen: TextEncoder | SD3Text, captions: list[str]) -> Features:
    """Features of all captions and of the blank: of drawn scenes together, of files caption by caption."""
    key: dict[str, Any] = {"text": digest(frozen), "tokenizer": frozen.spelling()}
    if isinstance(settings.data, Drawn):
        words = hashlib.sha256("\n".join(captions).encode()).hexdigest()
        rows = Rows.one(cache(settings), key | {"captions": words}, partial(_read, frozen, captions))
        return Features(rows, np.arange(len(captions) + 1))
    said: list[str] = []  # of each entry
    new: list[str] = []
    rows = Rows(cache(settings), lambda entry: remembered(cache(settings), key | {"caption": said[entry]}, lambda: alone(said[entry])))

    def alone(words: str) -> dict[str, Tensor]:
        return _apart(_features(frozen, [words]))[0]

    for words in dict.fromkeys([*captions, ""]):
        (said if rows.add(key | {"caption": words}, None) else new).append(words)
    for start in range(0, len(new), 256):
        some = new[start : start + 256]
        for words, features in zip(some, _apart(_features(frozen, some)), strict=True):
            rows.add(key | {"caption": words}, lambda features=features: features)
            said.append(words)
    place = {words: number for number, words in enumerate(said)}
    return Features(rows, np.array([place[words] for words in [*captions, ""]]))


def _fitted(x: Tensor, length: int) -> Tensor:
    """Cut, or padded with zeros."""
    return torch.cat([x[:length], x.new_zeros(max(0, length - len(x)), *x.shape[1:])])


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
