"""Attention on a CPU in half precision: plain products beside PyTorch's kernel, forward and backward; or forward alone, in parts.

    python benchmarks/attention.py [--tokens 32 144 512] [--batch 64] [--heads 5] [--width 32] [--using] [--repeats 7] [--json]

Outputs and gradients are compared first. `--using`: nothing learns. `videodit.backbone.attention.attend` is what chooses between them.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

import torch
from side_by_side import Noisy, least_times
from torch import Tensor

from videodit.backbone import attention


def step(leaves: list[Tensor], tokens: int) -> list[Tensor]:
    """Output and gradients where up to `tokens` tokens go by plain products."""
    attention.PLAIN_TOKENS = tokens
    for leaf in leaves:
        leaf.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        out = attention.attend(*leaves, None)
    out.backward(torch.ones_like(out))
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@torch.no_grad()
def use(tokens: int, batch: int, heads: int, width: int, repeats: int) -> dict[str, float]:
    query, key, value = (torch.randn(batch, heads, tokens, width, dtype=torch.bfloat16) for _ in range(3))
    runs = {name: partial(kernel, query, key, value, None) for name, kernel in attention.KERNELS.items()}
    for run in runs.values():
        torch.testing.assert_close(run(), runs["fused"](), rtol=0.05, atol=0.05)
    times = least_times({**runs, "chosen": partial(attention.attend, query, key, value, None)}, repeats=repeats)
    return {"plain": times["chosen"], "kernel": times["fused"], **times}


def measure(tokens: int, batch: int, heads: int, width: int, repeats: int) -> dict[str, float]:
    leaves = [torch.randn(batch, heads, tokens, width, dtype=torch.bfloat16).requires_grad_() for _ in range(3)]
    for one, other in zip(step(leaves, tokens), step(leaves, 0), strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)
    return least_times({"plain": lambda: step(leaves, tokens), "kernel": lambda: step(leaves, 0)}, repeats=repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 144, 512])
    for name, default in (("batch", 64), ("heads", 5), ("width", 32), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--using", action="store_true", help="forward alone, as a finished model is used")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        found = {n: (use if given.using else measure)(n, given.batch, given.heads, given.width, given.repeats) for n in given.tokens}
    except Noisy as error:
        sys.exit(str(error))
    if given.json:
        print(json.dumps(found))
        return
    for tokens, times in found.items():
        print(f"{tokens:5} tokens: ours {times['plain']:.4f} s, kernel {times['kernel']:.4f} s ({times['kernel'] / times['plain']:.2f})")


if __name__ == "__main__":
    main()
