"""What is kept of a set of clips while it goes by: moments, a classifier's answers, and the features of a bounded sample of clips.

Memory does not grow with the number of clips. Two parts of a set, of one process or of several, are put together by `+`, and a state on
disk is taken up again where it stopped. The sample holds the `KEPT` clips with the least of random numbers that are functions of (seed,
clip), so which they are does not depend on order or processes; subsets and intervals are drawn from it, and up to `KEPT` clips it is the
whole set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videodit.evaluate.frechet import Moments
from videodit.evaluate.inception import Answers
from videodit.shapes import UserError

KEPT = 8192


@dataclass(frozen=True, kw_only=True)
class Features:
    """A set of clips, each seen as the same number of rows: one a clip, or one a frame."""

    done: int  # clips that went by
    halves: tuple[Moments, Moments]  # of clips with even and odd numbers
    sample: Float[Tensor, "k r d"]
    numbers: Int[Tensor, "k"]  # which clips the sample holds, in order
    answers: Answers | None = None
    seed: int = 0
    limit: int = KEPT

    @classmethod
    def of(
        cls,
        numbers: Int[Tensor, "b"],
        rows: Float[Tensor, "b r d"],
        logits: Float[Tensor, "b r c"] | None = None,
        *,
        seed: int = 0,
        splits: int = 10,
        limit: int = KEPT,
    ) -> Features:
        """The features of some clips, by their numbers in the set."""
        if not rows.isfinite().all():
            raise UserError("The extractor gives features that are no numbers: its weights do not belong to it.")
        rows = rows.float().cpu()
        halves = [rows[numbers % 2 == half].flatten(0, 1) for half in (0, 1)]
        even, odd = (Moments.of(part) if len(part) else Moments.none(rows.shape[-1]) for part in halves)
        answers = None
        if logits is not None:
            answers = Answers.of(numbers.repeat_interleave(logits.shape[1]), logits.cpu().flatten(0, 1), splits)
        found = cls(done=len(rows), halves=(even, odd), sample=rows, numbers=numbers, answers=answers, seed=seed, limit=limit)
        return found._thinned()

    def __add__(self, other: Features) -> Features:
        return replace(
            self,
            done=self.done + other.done,
            halves=(self.halves[0] + other.halves[0], self.halves[1] + other.halves[1]),
            sample=torch.cat([self.sample, other.sample]),
            numbers=torch.cat([self.numbers, other.numbers]),
            answers=self.answers + other.answers if self.answers and other.answers else None,
        )._thinned()

    def _thinned(self) -> Features:
        """The sample within its bound, in the order of the set."""
        chosen = torch.argsort(self.numbers)
        if len(chosen) > self.limit:
            chances = [np.random.default_rng([self.seed, number]).random() for number in self.numbers.tolist()]
            chosen = torch.argsort(torch.tensor(chances, dtype=torch.float64))[: self.limit]
            chosen = chosen[torch.argsort(self.numbers[chosen])]
        return replace(self, sample=self.sample[chosen], numbers=self.numbers[chosen])

    @property
    def moments(self) -> Moments:
        return self.halves[0] + self.halves[1]

    # --- On disk ---

    def save(self, path: Path, what: Mapping[str, Any]) -> None:
        """Write the state beside `what` it is the state of; a file is there whole or not at all."""
        tensors = {"sample": self.sample, "numbers": self.numbers, "done": torch.tensor(self.done)}
        for name, part in zip(("even", "odd"), self.halves, strict=True):
            tensors |= {f"{name}.count": torch.tensor(part.count), f"{name}.mean": part.mean, f"{name}.scatter": part.scatter}
        if self.answers:
            tensors |= {f"answers.{name}": value for name, value in vars(self.answers).items()}
        aside = path.with_suffix(".writing")
        held = {"what": json.dumps(dict(what), sort_keys=True), "seed": str(self.seed), "limit": str(self.limit)}
        save_file({name: value.contiguous() for name, value in tensors.items()}, aside, metadata=held)
        aside.replace(path)

    @classmethod
    def load(cls, path: Path, what: Mapping[str, Any]) -> Features | None:
        """The state in a file, if it is there; that of something else is refused."""
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                held = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            there = json.loads(held["what"])
            if there == dict(what):
                return cls._built(tensors, held)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise UserError(f"{path} is no state of a set of clips: remove it, or name another folder by --state.") from error
        name = next((name for name in [*what, *there] if what.get(name) != there.get(name)), "what it is of")
        raise UserError(f"{path} is the state of another set ({name} differs): remove it, or name another folder by --state.")

    @classmethod
    def _built(cls, tensors: Mapping[str, Tensor], held: Mapping[str, str]) -> Features:
        even, odd = (
            Moments(count=int(tensors[f"{name}.count"]), mean=tensors[f"{name}.mean"], scatter=tensors[f"{name}.scatter"])
            for name in ("even", "odd")
        )
        answers = {name.removeprefix("answers."): value for name, value in tensors.items() if name.startswith("answers.")}
        return cls(
            done=int(tensors["done"]),
            halves=(even, odd),
            sample=tensors["sample"],
            numbers=tensors["numbers"],
            answers=Answers(**answers) if answers else None,
            seed=int(held["seed"]),
            limit=int(held["limit"]),
        )
