"""What a model is told by a name out of a list, or nothing at all: it stands where others have a text encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import torch
from torch import nn

from videodit.config import setting
from videodit.shapes import Text, UserError

MANY = 16  # labels that a sentence still lists


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Labels by name, or nothing."""

    kind: Literal["labels"] = "labels"
    names: tuple[str, ...] = setting((), doc="labels in the order of the network's table; none where it is told nothing")


class Labels(nn.Module):
    """Names to labels; the empty name is the blank, the last. Without names a model is told nothing.

    A name may say several things, with commas between, as ImageNet's do: each of them is known if no other name says it.
    """

    def __init__(self, settings: LabelSettings) -> None:
        super().__init__()
        self.settings = settings
        parts = [(part.strip(), i) for i, name in enumerate(settings.names) for part in name.split(",")]
        often = Counter(part for part, _ in parts)
        whole = {name: i for i, name in enumerate((*settings.names, ""))}
        self.known = {part: i for part, i in parts if often[part] == 1} | whole

    @property
    def takes(self) -> Literal["label", "nothing"]:
        return "label" if self.settings.names else "nothing"

    def forward(self, names: Sequence[str]) -> Text:
        self.check(names)
        return Text(label=torch.tensor([self.known[name] for name in names])) if self.settings.names else Text()

    def check(self, names: Sequence[str]) -> None:
        """Refuse what is no label, and say which there are."""
        if unknown := [name for name in names if name not in self.known]:
            raise UserError(f"There is no label {unknown[0]!r}: {self._instead(unknown[0])}.")

    def _instead(self, name: str) -> str:
        names = self.settings.names
        if not names:
            return "this model is told nothing, so leave it out"
        near = get_close_matches(name, self.known, MANY) if len(names) > MANY else names
        between = "; " if any("," in name for name in names) else ", "
        return f"use one of {between.join(near or names[:MANY])}" + (f" (of {len(names)})" if len(names) > MANY else "")

    def unknown_words(self, prompt: str) -> list[str]:
        return []
