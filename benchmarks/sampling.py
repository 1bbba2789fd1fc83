"""What sampling costs beside the network: guidance, given frames and the sampler's own arithmetic, as a part of a step.

    OMP_NUM_THREADS=1 python benchmarks/sampling.py [--rows 128] [--steps 8] [--repeats 7]

The bundled model's shape with random weights at 1,024 tokens a clip. The network's own time is measured inside the very loop that is timed,
so what is left is all else; the least of the repeats counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from videodit import backbone, models
from videodit.diffusion.guidance import Guidance, guided
from videodit.diffusion.samplers import SAMPLERS
from videodit.diffusion.tasks import Given, around
from videodit.diffusion.times import Times
from videodit.shapes import Size, Text

GUIDANCES = {
    "plain": Guidance(scale=1.0),
    "guided": Guidance(),
    "guided, rescaled and projected": Guidance(rescale=0.7, along=0.0, longest=1.0),
    "guided in turn": Guidance(batched=False),
}


class Clocked:
    """A network that adds up its own time."""

    def __init__(self, network: Callable[..., Tensor]) -> None:
        self.network, self.seconds = network, 0.0

    def __call__(self, *args: object, **more: object) -> Tensor:
        start = time.perf_counter()
        out = self.network(*args, **more)
        self.seconds += time.perf_counter() - start
        return out


def measured(sampler: str, guidance: Guidance, given: Given | None, network: Clocked, noise: Tensor, steps: int) -> tuple[float, float]:
    """Seconds of a step, and the part of them that is not the network's."""
    words = Text(sequence=torch.randn(1, 12, 128), pooled=torch.randn(1, 128), mask=torch.ones(1, 12, dtype=torch.bool))
    field = guided(network if given is None else around(network, given), words, words, guidance)
    network.seconds, start = 0.0, time.perf_counter()
    SAMPLERS[sampler](field, noise, Times().schedule(steps), lambda step: torch.randn_like(noise), lambda step, x: None)
    whole = time.perf_counter() - start
    return whole / steps, 1 - network.seconds / whole


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    torch.manual_seed(0)
    settings = models.read("toybox", models.ModelFolder)[1]
    network = Clocked(backbone.build(replace(settings.backbone, given="time")).eval())
    grid = settings.autoencoder.build().latents(Size(16, asked.rows, asked.rows))
    noise = torch.randn(1, settings.backbone.channels, *grid)
    mask = torch.zeros(1, 1, *grid).index_fill(2, torch.tensor([0]), 1.0)
    some = Given(mask, noise, noise[:, :, :1], (3.75,))
    print(f"{grid.count // settings.backbone.patch**2} tokens, {torch.get_num_threads()} threads")
    print("| sampler | guidance | given | a step | beside the network |\n| --- | --- | --- | --- | --- |")
    for sampler in ("euler", "rf-solver", "ancestral"):
        for name, guidance in GUIDANCES.items():
            for given in (None, some):
                found = [measured(sampler, guidance, given, network, noise, asked.steps) for _ in range(asked.repeats)]
                step, beside = min(found)[0], min(part for _, part in found)
                print(f"| {sampler} | {name} | {'-' if given is None else 'a group and a picture'} | {step:.3f} s | {100 * beside:.2f} % |")


if __name__ == "__main__":
    main()
