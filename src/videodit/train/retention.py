"""What is left of the image model while a video model learns: its answers to fixed questions, compared with those it began with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from videodit.shapes import Text
from videodit.train.progress import note

TIMES = (0.2, 0.5, 0.8)
COUNT = 8  # pictures
KEPT = "retention.safetensors"  # in a run's output


class Questions(NamedTuple):
    """Pictures with their words, and what was answered before anything was learnt, once that is known."""

    pictures: Tensor
    words: Text
    answers: Tensor | None = None


class Retention:
    """Noisy pictures with their words, and what the network says of them before it learns."""

    def __init__(self, network: nn.Module, ask: Callable[[nn.Module, Tensor, Tensor, Text], Tensor], asked: Questions) -> None:
        pictures, words = asked.pictures, asked.words
        noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0)).to(pictures.device)
        times = torch.tensor(TIMES, device=pictures.device).repeat_interleave(len(pictures))
        t = times.view(-1, 1, 1, 1, 1)
        self.ask, self.times = ask, times
        self.noisy = (1 - t) * pictures.repeat(len(TIMES), 1, 1, 1, 1) + t * noise.repeat(len(TIMES), 1, 1, 1, 1)
        self.words = words.map(lambda x: x.repeat(len(TIMES), *(1,) * (x.ndim - 1)))
        self.before = self._said(network) if asked.answers is None else asked.answers
        self.asked = asked._replace(answers=self.before)

    def drift(self, network: nn.Module) -> Tensor:
        """How far the answers have moved, as a part of their own size: 0 is the image model."""
        return (self._said(network) - self.before).square().mean().sqrt() / self.before.square().mean().sqrt()

    @torch.no_grad()
    def _said(self, network: nn.Module) -> Tensor:
        """Without dropout."""
        learning = network.training
        try:
            return self.ask(network.eval(), self.noisy, self.times, self.words).float()
        finally:
            network.train(learning)


def keep(asked: Questions, output: Path) -> None:
    """Leave them, with their answers, where a run that is taken up finds them: its data may have grown, and its start may be gone."""
    tensors = {"pictures": asked.pictures, "answers": asked.answers, **asked.words._asdict()}
    whole = {name: value.cpu().contiguous() for name, value in tensors.items() if value is not None}
    save_file(whole, aside := output / f".{KEPT}")
    aside.replace(output / KEPT)


def kept(output: Path) -> Questions | None:
    """What a run left, if it did."""
    path = output / KEPT
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
        return Questions(tensors.pop("pictures"), answers=tensors.pop("answers"), words=Text(**tensors))
    except (OSError, SafetensorError, KeyError, TypeError):
        note(f"{path} is damaged: image_drift is measured anew, against the model that the run starts from and the pictures of now.")
        return None
