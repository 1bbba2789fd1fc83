"""Guidance: the velocity that is told all, pushed away from the one that is told less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from videodit.config import setting
from videodit.shapes import Text, UserError

Network = Callable[..., Tensor]  # (noisy, t, text) and, where it can be told more, given and when
Field = Callable[[Tensor, Tensor], Tensor]
Grid = Float[Tensor, "b c f h w"]


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How the push is made; `scale` 1 is none."""

    scale: float = setting(3.0, doc="scale of classifier-free guidance; 1 is none")
    images: float | None = setting(
        None, doc="scale of its own for what is given, beside the text's; without it, given frames are told in both predictions"
    )
    joint: bool = setting(False, doc="whether text and given frames are left out together (STIV's joint guidance)")
    start: float = setting(1.0, doc="guidance begins where t falls to this")
    stop: float = setting(0.0, doc="and ends where it falls below this")
    rescale: float = setting(0.0, doc="how much of the guided prediction's deviation is set back to the unguided one's, 0 to 1")
    along: float = setting(1.0, doc="how much of the push along the prediction itself is kept (adaptive projection); 1 is all")
    longest: float = setting(0.0, doc="longest push, as a mean length of a number (adaptive projection); 0 is any")
    batched: bool = setting(True, doc="whether the predictions are made in one batch; one after the other takes less memory")

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= 100 or not 0 <= (self.images or 0) <= 100:
            raise UserError(f"A guidance of {self.scale if not 0 <= self.scale <= 100 else self.images} is out of range: use 0 to 100.")
        if not 0 <= self.stop <= self.start <= 1 or not 0 <= self.rescale <= 1:
            raise UserError("guidance takes 0 <= stop <= start <= 1 and rescale from 0 to 1.")
        if self.joint and self.images is not None:
            raise UserError("guidance.joint leaves text and given frames out together, so it takes no scale for images: leave one out.")


def guided(network: Network, text: Text, blank: Text, guidance: Guidance, *, untold: Network | None = None) -> Field:
    """A field (noisy, t) -> velocity. `untold`: the network without what is given, where something is.

    What a network says beside the velocity (its variance) is the text's. Times come from the host, so that looking at them waits for
    nothing.
    """
    terms = _terms(guidance, network, text, blank, untold or network)
    asked = _batched(terms) if guidance.batched else _in_turn(terms)

    def field(noisy: Tensor, t: Tensor) -> Tensor:
        within = (t >= guidance.stop) & (t <= guidance.start)
        some, every, t = bool(within.any()), bool(within.all()), t.to(noisy.device, non_blocking=True)
        if len(terms) == 1 or not some:
            return network(noisy, t, text)
        told, *others = asked(noisy, t)
        plain, rest = told[:, : noisy.shape[1]], told[:, noisy.shape[1] :]
        less = [other[:, : noisy.shape[1]] for other in others]
        push = (guidance.scale - 1) * (plain - less[0])
        if len(less) == 2:
            push = push + ((guidance.images or 0.0) - 1) * (less[0] - less[1])
        pushed = _rescaled(plain + _projected(push, plain, noisy, t, guidance), plain, guidance.rescale)
        if not every:  # of times that differ, some are outside
            pushed = torch.where(within.to(noisy.device, non_blocking=True).view(len(t), 1, -1, 1, 1), pushed, plain)
        return torch.cat([pushed, rest], dim=1)

    return field


Term = tuple[Network, Text]


def _terms(guidance: Guidance, network: Network, text: Text, blank: Text, untold: Network) -> list[Term]:
    """Who is asked what: all told, then always less."""
    if guidance.images is not None and untold is not network:
        return [(network, text), (network, blank), (untold, blank)]
    if guidance.scale == 1.0:
        return [(network, text)]
    return [(network, text), (untold if guidance.joint else network, blank)]


def _in_turn(terms: list[Term]) -> Callable[[Tensor, Tensor], list[Tensor]]:
    return lambda noisy, t: [network(noisy, t, text) for network, text in terms]


def _batched(terms: list[Term]) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """Texts of one network, of equal length, in one batch."""
    groups: list[tuple[Network, list[Text]]] = []
    for network, text in terms:
        if groups and groups[-1][0] is network:
            groups[-1][1].append(text)
        else:
            groups.append((network, [text]))
    whole = [(network, _together(texts), len(texts)) for network, texts in groups]

    def asked(noisy: Tensor, t: Tensor) -> list[Tensor]:
        answers = (network(torch.cat([noisy] * n), torch.cat([t] * n), text).chunk(n) for network, text, n in whole)
        return [part for answer in answers for part in answer]

    return asked


def _together(texts: list[Text]) -> Text:
    return Text(*(None if any(x is None for x in parts) else torch.cat(parts) for parts in zip(*texts, strict=True)))


def _projected(push: Grid, plain: Grid, noisy: Grid, t: Tensor, guidance: Guidance) -> Grid:
    """The push, with less of what lies along the clean prediction, and no longer than `longest` (adaptive projected guidance)."""
    if guidance.longest:
        length = push.square().mean((1, 2, 3, 4), keepdim=True).sqrt()
        push = push * (guidance.longest / length.clamp(min=1e-12)).clamp(max=1)
    if guidance.along == 1.0:
        return push
    clean = noisy - t.view(len(t), 1, -1, 1, 1) * plain
    share = (push * clean).sum((1, 2, 3, 4), keepdim=True) / clean.square().sum((1, 2, 3, 4), keepdim=True).clamp(min=1e-12)
    return push - (1 - guidance.along) * share * clean


def _rescaled(guided: Grid, plain: Grid, share: float) -> Grid:
    """The guided prediction with the deviation of the plain one, in part."""
    if not share:
        return guided
    deviations = [x.std((1, 2, 3, 4), keepdim=True) for x in (plain, guided)]
    return guided * (share * deviations[0] / deviations[1].clamp(min=1e-12) + 1 - share)
