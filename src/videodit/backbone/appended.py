"""Pictures behind a clip, LAVITA's way to learn both at once: every one stands alone, as a clip of one frame with words of its own.

In any layout a picture sees itself and its words, and a clip sees itself and its own; what they share is the weights of all that stays
within a frame. So a network parts them where they come in, and the same blocks pass the clips, then all pictures as a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from videodit.backbone.packed import Grid, Mask
from videodit.backbone.positions import When
from videodit.shapes import Text, UserError

Texts = Text | tuple[Text, Text]  # the clips' and their pictures', which stand clip by clip; or one for a clip and its pictures


def appended(
    network: Callable[..., Any],
    noisy: Float[Tensor, "b c f h w"] | Sequence[Grid],
    t: Float[Tensor, "b *f"],
    text: Texts,
    given: Float[Tensor, "b 1 f h w"] | Sequence[Mask] | None,
    images: int,
    *,
    hint: Float[Tensor, "b k f h w"] | None,
    when: When,
    tube: int = 1,
) -> Float[Tensor, "b _ f h w"]:
    """What a network says of clips whose last `images` frames are pictures, each of so many frames as a token holds (`tube`).

    Pictures have no place in time: `when` is the clip's.
    """
    if not isinstance(noisy, Tensor) or isinstance(given, Sequence):
        raise UserError("Clips that share a sequence have no pictures behind them: give each picture as a clip of one frame.")
    frames = noisy.shape[2]
    if not 0 < images < frames or images % tube:
        raise UserError(
            f"{images} of {frames} latent frames cannot be pictures behind a clip: use 1 to {frames - 1}, in multiples of {tube}."
        )
    clip, count = frames - images, images // tube
    of_clip, of_pictures = _texts(text, len(noisy), count)
    times, instants = (t, t.repeat_interleave(count)) if t.ndim == 1 else (t[:, :-count], t[:, -count:].reshape(-1, 1))
    moving, still = _parted(noisy, clip, tube)
    (held, known), (hinted, shown) = ((None, None) if x is None else _parted(x, clip, tube) for x in (given, hint))
    moving = network(moving, times, of_clip, held, hint=hinted, when=None if when is None else when[:clip])
    still = network(still, instants, of_pictures, known, hint=shown)
    return torch.cat([moving, rearrange(still, "(b i) c p h w -> b c (i p) h w", b=len(noisy))], dim=2)


def _parted(x: Float[Tensor, "b _ f h w"], clip: int, tube: int) -> tuple[Float[Tensor, "b _ m h w"], Float[Tensor, "bi _ p h w"]]:
    """Of the clips, and of each picture as a clip of its own."""
    return x[:, :, :clip], rearrange(x[:, :, clip:], "b c (i p) h w -> (b i) c p h w", p=tube)


def _texts(text: Texts, clips: int, count: int) -> tuple[Text, Text]:
    """What is told of the clips, and of each picture; what a given first frame shows is the clip's alone."""
    if isinstance(text, Text):
        return text, text._replace(picture=None).map(lambda x: x.repeat_interleave(count, dim=0))
    wrong = {len(field) for field in text[1] if field is not None} - {clips * count}
    if wrong:
        raise UserError(f"{clips} clips with {count} pictures each take {clips * count} texts of pictures, clip by clip, not {max(wrong)}.")
    return text
