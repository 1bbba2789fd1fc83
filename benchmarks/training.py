"""A training step beside a plain loop on diffusers' class, and how long steps wait for what they read.

    OMP_NUM_THREADS=1 python benchmarks/training.py [--tokens 256] [--width 384] [--depth 4] [--steps 8]

SD3's shape with the same weights, the same clips of one frame, times and noise, the same loss, clipping and AdamW, in fp32; ours is the
loop that all recipes share, with its average, its log and its thread that reads ahead; after each step of ours comes one of theirs. The
losses of all steps are compared before times are; the least of each counts, of the processor's time. Then a run on the toybox's cached
latents: which part of its steps the training waited for the thread that makes batches.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbone import pair
from videodit.train import recipes
from videodit.train import step as loop
from videodit.train.optimizer import Optimizer
from videodit.train.step import Checkpoint, Job, Run, train

RATE, DECAY, BETAS, CLIP = 1e-4, 0.01, (0.9, 0.98), 1.0


class Turns:
    """Takes a step of theirs after each of ours; the first of each builds what all use."""

    def __init__(self, theirs: Callable[[int], float]) -> None:
        self.theirs, self.seconds, self.losses = theirs, {"ours": [], "theirs": []}, {"ours": [], "theirs": []}
        self.start = time.process_time()

    def step(self, step: int, total: int, figures: dict[str, float]) -> None:
        self._told("ours", figures["loss"])
        self._told("theirs", self.theirs(step - 1))

    def _told(self, who: str, loss: float) -> None:
        self.seconds[who].append(time.process_time() - self.start)
        self.losses[who].append(loss)
        self.start = time.process_time()


def theirs_of(network: nn.Module, loss: Callable[[int], Tensor]) -> Callable[[int], float]:
    groups = [{"params": [p for p in network.parameters() if (p.ndim > 1) == some], "weight_decay": DECAY * some} for some in (True, False)]
    adam = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)

    def step(index: int) -> float:
        adam.zero_grad()
        error = loss(index)
        error.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        adam.step()
        return error.item()

    return step


def side_by_side(tokens: int, width: int, depth: int, steps: int, folder: Path) -> None:
    ours, forward, _ = pair("sd3", tokens, width, depth, torch.float32)
    network, (noisy, t, text) = ours.train(), forward["ours"].args  # type: ignore[attr-defined]
    call, other = forward["theirs"].func, forward["theirs"].args[0].train()  # type: ignore[attr-defined]

    def batch(index: int) -> tuple[Tensor, Tensor]:
        clean, noise = torch.randn(2, *noisy.shape, generator=torch.Generator().manual_seed(index))
        return clean, noise

    def missed(answer: Callable[..., Tensor], clean: Tensor, noise: Tensor) -> Tensor:
        at = t.view(-1, 1, 1, 1, 1)
        return F.mse_loss(answer((1 - at) * clean + at * noise, t, text), noise - clean)

    def loss(index: int, read: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return missed(network, *read), {}

    turns = Turns(theirs_of(other, lambda index: missed(lambda *given: call(other, *given), *batch(index))))
    optimizer = Optimizer(learning_rate=RATE, warmup=0, schedule="constant", weight_decay=DECAY, beta1=BETAS[0], beta2=BETAS[1], clip=CLIP)
    run = Run(output=folder, steps=steps, precision="fp32", optimizer=optimizer, checkpoint=Checkpoint(every=10 * steps))
    train(run, Job(network=network, batch=batch, loss=loss, save=lambda path: None), turns)
    for one, another in zip(*turns.losses.values(), strict=True):
        assert abs(one - another) < 1e-4 * abs(another), (one, another)
    mine, plain = (min(turns.seconds[who][1:-1]) for who in ("ours", "theirs"))  # the last of ours saves
    print(f"{tokens} tokens, width {width}, {depth} blocks: losses equal over {steps} steps")
    print(f"ours {mine:.3f} s a step, diffusers {plain:.3f} s, theirs over ours {plain / mine:.2f}")


class Waited:
    """How long the training waited for batches, the first left out."""

    def __init__(self) -> None:
        self.seconds, ahead = 0.0, loop._ahead

        def clocked(*given: Any) -> Iterator[Any]:
            passes, first = ahead(*given), True
            while True:
                start = time.perf_counter()
                one = next(passes, None)
                self.seconds += 0.0 if first else time.perf_counter() - start
                first = False
                if one is None:
                    return
                yield one

        loop._ahead = clocked


def waiting(steps: int, folder: Path) -> None:
    class Clock:
        def __init__(self) -> None:
            self.times: list[float] = []

        def step(self, step: int, total: int, figures: dict[str, float]) -> None:
            self.times.append(time.perf_counter())

    few = [f"output={folder / 'run'}", f"steps={steps + 1}", "clips=64", "pictures=64", "checkpoint.every=100000"]
    waited, clock = Waited(), Clock()
    recipes.train(recipes.read(Path(__file__).parents[1] / "runs" / "toybox_tiny.toml", few), clock)
    spent = clock.times[-1] - clock.times[0]
    print(f"toybox_tiny: {1000 * spent / steps:.0f} ms a step, of which {100 * waited.seconds / spent:.2f} % waiting for its batch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tokens", 256), ("width", 384), ("depth", 4), ("steps", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        side_by_side(given.tokens, given.width, given.depth, given.steps, Path(folder) / "both")
        waiting(3 * given.steps, Path(folder))


if __name__ == "__main__":
    main()
