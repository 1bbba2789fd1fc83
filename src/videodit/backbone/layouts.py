"""Who attends to whom. A layout is handed to every block's attention, the one submodule that others may replace."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class Layout(NamedTuple):
    """`visible` (b 1 1 n): the text and video tokens that may be seen; None where all are. `angles`: how video tokens turn, if they do."""

    visible: Bool[Tensor, "b 1 1 n"] | None
    angles: Float[Tensor, "m half"] | None = None


class GlobalAttention(nn.Module):
    """Every token sees every visible one, over space and time alike: for one frame, the image model's own attention."""

    def forward(
        self, query: Float[Tensor, "b k n d"], key: Float[Tensor, "b k n d"], value: Float[Tensor, "b k n d"], layout: Layout
    ) -> Float[Tensor, "b k n d"]:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=layout.visible)
