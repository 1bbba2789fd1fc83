"""Attention on a CPU: what `attend` chooses beside PyTorch's fused kernel and plain products, forward and backward; or forward alone.

    python benchmarks/attention.py [--tokens 32 144 512] [--precision bf16 fp32] [--batch 64] [--heads 5] [--width 32] [--using] [--json]

Outputs and gradients are compared first. `--using`: nothing learns, and plain products in parts are timed too. The last ratio is what
counts: over 1, the choice is faster than both the fused kernel and plain products of everything.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial

import torch
from side_by_side import Noisy, least_times
from torch import Tensor

from videodit.backbone import attention

TYPES, BOUND = {"bf16": torch.bfloat16, "fp32": torch.float32}, {"bf16": 0.05, "fp32": 1e-4}
Kernel = Callable[[Tensor, Tensor, Tensor, None], Tensor]


def using(kernel: Kernel, leaves: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return [kernel(*leaves, None)]


def learning(kernel: Kernel, leaves: list[Tensor]) -> list[Tensor]:
    """Output and gradients."""
    for leaf in leaves:
        leaf.grad = None
    with torch.autocast("cpu", leaves[0].dtype, enabled=leaves[0].dtype == torch.bfloat16):
        out = kernel(*leaves, None)
    out.backward(torch.ones_like(out))
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def measure(tokens: int, precision: str, given: argparse.Namespace) -> dict[str, float]:
    shape = (given.batch, given.heads, tokens, given.width)
    leaves = [torch.randn(shape, dtype=TYPES[precision]).requires_grad_(not given.using) for _ in range(3)]
    names = attention.KERNELS if given.using else ("fused", "plain")  # parts learn nothing
    kernels = {"chosen": attention.attend, **{name: attention.KERNELS[name] for name in names}}
    runs = {name: partial(using if given.using else learning, kernel, leaves) for name, kernel in kernels.items()}
    expected = [x.clone() for x in runs["fused"]()]
    for run in runs.values():
        for one, other in zip(run(), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=BOUND[precision], atol=BOUND[precision])
    return least_times(runs, repeats=given.repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 144, 512])
    parser.add_argument("--precision", nargs="+", choices=TYPES, default=["bf16"])
    for name, default in (("batch", 64), ("heads", 5), ("width", 32), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--using", action="store_true", help="forward alone, as a finished model is used")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = {}
    for precision in given.precision:
        for tokens in given.tokens:
            try:
                times = measure(tokens, precision, given)
            except Noisy as error:
                sys.exit(str(error))
            times["ratio"] = min(times["fused"], times["plain"]) / times["chosen"]
            found[f"{tokens} {precision}"] = times
            if not given.json:
                others = ", ".join(f"{name} {times[name] / times['chosen']:.2f} x" for name in attention.KERNELS if name in times)
                best = f"the better of fused and plain {times['ratio']:.2f} x"
                print(f"{tokens:5} tokens {precision}: chosen {times['chosen']:.4f} s; {others}; {best}")
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
