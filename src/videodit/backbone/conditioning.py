"""The signal: diffusion time with pooled text or a label as one vector, which scales, shifts and gates every block.

It is one vector a clip (g = 1), or one a latent frame (g = f): frames that are given stand at t = 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from videodit.backbone.positions import waves
from videodit.shapes import Text, UserError

TIME_WAVES = 256
Given = Literal["refused", "noise", "channels", "time"]
GIVEN_DOC = (
    "how it is told of given latents: it refuses them; not at all, they stand where noise would (noise); by extra channels, mask and "
    "latents (channels); or by time, given frames stand at t = 0 (time)"
)
PICTURE_DOC = "channels of what a given first frame shows (CLIP's image embedding), which is told to the words; 0 is none"
HINTS_DOC = "whether it takes hints, extra channels beside the noisy latents: a mask and latents that are told and not held"


class Signal(nn.Module):
    """t (0 data, 1 noise), and the pooled text or a label if the network takes one, to one vector a clip or a frame."""

    def __init__(self, width: int, *, pooled: int = 0, labels: int = 0, reached: bool = False) -> None:
        super().__init__()
        self.reached = reached
        self.time = nn.Sequential(nn.Linear(TIME_WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.text = nn.Sequential(nn.Linear(pooled, width), nn.SiLU(), nn.Linear(width, width)) if pooled else None
        self.label = nn.Embedding(labels + 1, width) if labels else None  # the last is the blank

    def forward(self, t: Float[Tensor, "b *g"], text: Text) -> Float[Tensor, "b g d"]:
        t = t.unflatten(0, (-1, 1)) if t.ndim == 1 else t
        clock = waves(t.flatten() * 1000, TIME_WAVES, reached=self.reached).to(next(self.parameters()).dtype)
        signal = self.time(clock).unflatten(0, t.shape)
        if self.text is not None:
            assert text.pooled is not None
            pooled = self.text(text.pooled)
            signal = signal + (pooled[:, None] if pooled.ndim == 2 else pooled)
        if self.label is not None:
            blank = torch.full((len(t),), self.label.num_embeddings - 1, device=t.device)
            label = blank if text.label is None else text.label
            signal = signal + self.label(label)[:, None]
        return signal


def frame_times(t: Float[Tensor, "b *f"], given: Float[Tensor, "b 1 f h w"], tube: int = 1) -> Float[Tensor, "b g"]:
    """t for each latent frame (or tube of them): 0 where it is given."""
    whole = given.amin((1, 3, 4))
    looks = not torch.compiler.is_compiling() and given.device.type == "cpu"  # elsewhere a look would make the host wait
    if looks and not torch.equal(whole, given.amax((1, 3, 4))):
        raise UserError("This network is told by time what is given, so frames are given whole: give none of a frame or all of it.")
    return (t if t.ndim == 2 else t[:, None]) * (1 - whole.unflatten(1, (-1, tube)).amin(2))


def for_words(signal: Float[Tensor, "b g d"], t: Float[Tensor, "b *f"]) -> Float[Tensor, "b _ d"]:
    """Where frames have times of their own: what the words hear, the noisiest frame's signal, behind the frames'."""
    if signal.shape[1] == 1:
        return signal
    noisiest = (t if t.ndim == 2 else t[:, None].expand(signal.shape[:2])).argmax(1)
    return torch.cat([signal, signal[torch.arange(len(signal), device=signal.device), noisiest][:, None]], dim=1)


def of_words(signal: Float[Tensor, "b g d"], clips: int = 1) -> Float[Tensor, "b _ d"]:
    """What the words of each clip hear."""
    return signal[:, -clips:]


def of_video(signal: Float[Tensor, "b g d"], clips: int = 1) -> Float[Tensor, "b _ d"]:
    return signal if signal.shape[1] == 1 else signal[:, :-clips]


class Modulation(nn.Module):
    """`count` vectors from the signal, zero at the start: every block begins as the identity."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.act, self.linear = nn.SiLU(), nn.Linear(width, count * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, signal: Float[Tensor, "b g d"], tokens: int | list[int]) -> tuple[Float[Tensor, "b _ d"], ...]:
        """One vector a clip, or one for each of so many tokens, which stand frame by frame; or as many as each signal is for."""
        vectors = self.linear(self.act(signal))
        if signal.shape[1] > 1:
            if isinstance(tokens, int):
                vectors = vectors.repeat_interleave(tokens // signal.shape[1], dim=1)
            else:  # whose sum is told, or a GPU would have to be asked
                vectors = vectors.repeat_interleave(torch.tensor(tokens, device=signal.device), dim=1, output_size=sum(tokens))
        return vectors.chunk(self.count, dim=-1)


class Unmodulated(nn.Module):
    """In a modulation's place where the signal is a token: nothing is shifted or scaled, and every gate (the third of three) is open."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, signal: Float[Tensor, "b g d"], tokens: int) -> tuple[Float[Tensor, "b _ d"], ...]:
        shut = torch.zeros_like(signal[:, :1])
        return tuple(shut + 1 if i % 3 == 2 else shut for i in range(self.count))


def modulate(x: Float[Tensor, "b n d"], shift: Float[Tensor, "b _ d"], scale: Float[Tensor, "b _ d"]) -> Float[Tensor, "b n d"]:
    return x * (1 + scale) + shift
