"""Who attends to whom. A layout is handed to every block's attention, the one submodule that others may replace."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

PLAIN_TOKENS = 1024  # beyond, the memory of all scores counts; benchmarks/attention.py compares


class Layout(NamedTuple):
    """`visible` (b 1 1 n): the text and video tokens that may be seen; None where all are. `angles`: how video tokens turn, if they do."""

    visible: Bool[Tensor, "b 1 1 n"] | None
    angles: Float[Tensor, "m half"] | None = None


class GlobalAttention(nn.Module):
    """Every token sees every visible one, over space and time alike: for one frame, the image model's own attention."""

    def forward(
        self, query: Float[Tensor, "b k n d"], key: Float[Tensor, "b k n d"], value: Float[Tensor, "b k n d"], layout: Layout
    ) -> Float[Tensor, "b k n d"]:
        return attend(query, key, value, layout.visible)


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
    """Softmax attention. On a CPU in half precision few tokens learn by plain products: the kernel is twice as slow backward."""
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad and key.shape[2] <= PLAIN_TOKENS
    if not slow:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    with torch.autocast("cpu", enabled=False):  # which would take the scores to single precision and back
        scores = (query * query.shape[-1] ** -0.5) @ key.mT
        if visible is not None:
            scores = scores + torch.zeros_like(visible, dtype=scores.dtype).masked_fill(~visible, float("-inf"))
        return scores.softmax(dim=-1) @ value
