"""What a model is told by a name out of a list, or nothing at all: it stands where others have a text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from videodit.config import setting
from videodit.shapes import Text, UserError


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Labels by name, or nothing."""

    kind: Literal["labels"] = "labels"
    names: tuple[str, ...] = setting((), doc="labels in the order of the network's table; none where it is told nothing")


class Labels(nn.Module):
    """Names to labels; the empty name is the blank, the last. Without names a model is told nothing."""

    def __init__(self, settings: LabelSettings) -> None:
        super().__init__()
        self.settings = settings

    @property
    def takes(self) -> Literal["label", "nothing"]:
        return "label" if self.settings.names else "nothing"

    def forward(self, names: Sequence[str]) -> Text:
        known = (*self.settings.names, "")
        if unknown := [name for name in names if name not in known]:
            there = f"use one of {', '.join(self.settings.names)}" if self.settings.names else "this model is told nothing, so leave it out"
            raise UserError(f"There is no label {unknown[0]!r}: {there}.")
        return Text(label=torch.tensor([known.index(name) for name in names])) if self.settings.names else Text()

    def unknown_words(self, prompt: str) -> list[str]:
        return []
