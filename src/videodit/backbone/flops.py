"""Multiply-adds of a transformer, from its settings alone: nothing is built.

PyTorch's counter sees no fused attention on a CPU, so this one counts by hand, and a test holds it against that counter with attention
written out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from videodit.backbone.conditioning import TIME_WAVES
from videodit.backbone.model import Transformer
from videodit.backbone.single import DiT
from videodit.backbone.variants import arranged
from videodit.shapes import Size, token_size

Counting = Literal["all", "latte"]
SEES: dict[str, tuple[str, ...]] = {  # what the attentions of a block see, where they are several or have another name
    "factorised": ("spatial", "temporal"),
    "divided": ("temporal", "spatial"),
    "axial": ("temporal", "row", "column"),
    "local-global": ("quarter", "second"),
    "split": ("spatial", "temporal"),
    "shifted": ("window",),
}
SHOWN = 4  # tokens of what a picture shows


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one clip, by where they are spent."""

    linear: int  # layers that every token passes
    attention: int  # products of queries, keys and values
    told: int  # the signal and its modulations
    norms: int = 0

    @property
    def total(self) -> int:
        return self.linear + self.attention + self.told + self.norms


def cost(settings: Transformer | DiT, latents: Size, words: int = 0, counting: Counting = "all", *, told: bool = False) -> Cost:
    """One forward pass over latents of an extent, with so many words.

    `told`: and with all that the network takes beside them: given frames, hints, what a picture shows.
    `latte` counts as LAVITA's Table 3 does: no attention products; the modulation anew for each frame where a block attends in space, and
    for each place where it attends in time; two for each number that is normalised.
    """
    times = latents.frames // getattr(settings, "tube", 1) if told and settings.given == "time" else 1
    if isinstance(settings, Transformer):
        found = _dual(settings, latents, words, times)
    else:
        found = _single(settings, latents, words, counting, times)
    return _with_branches(found, settings, latents, words) if told else found


def _with_branches(found: Cost, s: Transformer | DiT, latents: Size, words: int) -> Cost:
    tube, d = getattr(s, "tube", 1), s.width
    channels = (s.given == "channels") + s.hints
    linear = channels * token_size(latents, (tube, s.patch, s.patch)).count * tube * s.patch**2 * (s.channels + 1) * d
    if not s.picture:
        return replace(found, linear=found.linear + linear)
    linear += SHOWN * s.picture * d + 2 * words * d * d + 2 * SHOWN * d * d
    return replace(found, linear=found.linear + linear, attention=found.attention + 2 * words * SHOWN * d)


def _dual(s: Transformer, latents: Size, words: int, times: int) -> Cost:
    d, n = s.width, token_size(latents, (1, s.patch, s.patch)).count
    values = s.patch**2 * s.channels
    linear = n * 2 * values * d + words * s.text * d + (n * (values * d + d * d) if s.video else 0)
    told = times * (TIME_WAVES * d + 3 * d * d) + (s.pooled * d + d * d if s.pooled else 0)
    attention = 0
    folds = {"spatial": (latents.frames,), "beside": (latents.frames, 1)}.get(s.layout, (1,))  # parts that a clip is folded into
    kinds = ("global",) * s.depth if s.layout in ("spatial", "beside") else arranged(s.layout, s.depth)
    through = _through(token_size(latents, (1, s.patch, s.patch)), s.window)
    for i, kind in enumerate(kinds):
        if kind == "temporal":
            linear += n * 12 * d * d * (latents.frames > 1)
            attention += 2 * n * through["temporal"] * d
            told += times * 6 * d * d * (latents.frames > 1)
            continue
        last, twice = all(later == "temporal" for later in kinds[i + 1 :]), i < s.twice
        for parts in folds:
            linear += n * (12 + 4 * twice) * d * d + parts * words * (3 if last else 12) * d * d
            heard = times if parts == 1 else parts  # frames that are folded have one time each
            told += (heard * (6 + 3 * twice) + parts * (2 if last else 6)) * d * d
            attention += parts * 2 * twice * (n // parts) ** 2 * d
            if kind == "global":
                attention += parts * 2 * (n // parts + words) ** 2 * d
        if kind != "global":
            seen = [through[name] for name in SEES.get(kind, (kind,))]
            half = 2 if kind == "split" else 1
            linear += n * 4 * d * d * (sum(map(bool, seen)) - 1) * (kind != "split")
            attention += 2 * words * (n + words) * d + 2 * n * (sum(seen) + words) * d // half
        if s.layout == "beside":
            linear += (n + (0 if last else words)) * d * d
    return Cost(linear, attention, told)


def _through(grid: Size, window: int) -> dict[str, int]:
    """How many tokens a token sees."""
    frames = grid.frames if grid.frames > 1 else 0  # that follow each other: a clip of one is a picture
    places, quarter = grid.rows * grid.columns, grid.count // 4
    seen = {"global": grid.count, "spatial": places, "temporal": frames, "row": grid.columns, "column": grid.rows}
    return seen | {
        "quarter": quarter,
        "second": quarter // min(2, grid.frames),
        "window": min(window, grid.rows) * min(window, grid.columns),
    }


def _single(s: DiT, latents: Size, words: int, counting: Counting, times: int) -> Cost:
    grid = token_size(latents, (s.tube, s.patch, s.patch))
    d, n, places = s.width, grid.count, grid.rows * grid.columns
    frames = grid.frames if grid.frames > 1 else 0  # that follow each other: a clip of one is a picture
    values, out = s.tube * s.patch**2 * s.channels, s.channels * (2 if s.variance else 1)
    linear = n * (values + s.patch**2 * out) * d + (n * (values * d + d * d) if s.video else 0)
    linear += n * s.patch**2 * out * out * s.tube if s.tube > 1 else 0
    linear += words * (s.text * d + d * d) if s.text else 0
    told = times * (TIME_WAVES * d + d * d) + (s.pooled * d + d * d if s.pooled else 0)
    modulated = s.told == "modulation"
    told += 2 * d * d * (grid.frames if counting == "latte" else times) * modulated
    if not modulated:  # a token more in every frame
        n, places = n + grid.frames, places + 1
    attention, norms = 0, 2 * n * d

    def anew(kind: str) -> int:
        names = SEES.get(kind, (kind,))
        return places * ("temporal" in names) + grid.frames * any(name != "temporal" for name in names)

    through = _through(grid if modulated else Size(grid.frames, 1, places), s.window)
    beside = s.layout == "beside"
    linear += s.depth * n * d * d * beside
    for kind in ("spatial", "global") * s.depth if beside else s.arrangement:
        if kind == "temporal" and not frames:
            continue
        seen = [through[name] for name in SEES.get(kind, (kind,))]
        attentions = 1 if kind == "split" else sum(map(bool, seen))  # a picture passes by what attends through time
        linear += n * (4 * attentions + 8) * d * d
        attention += 2 * n * sum(seen) * d // (2 if kind == "split" else 1)
        if s.text and kind != "temporal":
            linear += 2 * n * d * d + 2 * words * d * d
            attention += 2 * n * words * d
        told += 6 * d * d * (anew(kind) if counting == "latte" else times) * modulated
        norms += (attentions + 1) * 2 * n * d
    return Cost(linear, attention, told) if counting == "all" else Cost(linear, 0, told, norms)
