"""Other projects' names for our weights, both ways: diffusers' `SD3Transformer2DModel` (SD3 and SD3.5).

A `Pair` says that some tensors of ours, one above the other, are some of theirs, one above the other. Halves at most are exchanged and
nothing is computed, so a round trip gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from videodit.backbone import Cropped, Transformer
from videodit.shapes import UserError

Weights = dict[str, Tensor]


class Pair(NamedTuple):
    """Names without `.weight` and `.bias`. `shares`: how long ours are, relative to each other; theirs are equally long."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    halves: Literal["same", "rows", "columns"] = "same"  # which are exchanged
    shares: tuple[int, ...] = (1,)
    ends: tuple[str, ...] = ("weight", "bias")


def settings_of(described: Mapping[str, Any]) -> Transformer:
    """Our settings for the configuration of a diffusers `SD3Transformer2DModel`."""
    heads, patch = described["num_attention_heads"], described["patch_size"]
    width = heads * described["attention_head_dim"]
    dual, norm = list(described.get("dual_attention_layers") or ()), described.get("qk_norm")
    wanted = {
        "caption_projection_dim": (described["caption_projection_dim"], width),
        "out_channels": (described.get("out_channels") or described["in_channels"], described["in_channels"]),
        "dual_attention_layers": (dual, list(range(len(dual)))),
        "qk_norm": (norm, norm if norm in (None, "rms_norm") else None),
    }
    for name, (found, fitting) in wanted.items():
        if found != fitting:
            raise UserError(f"A transformer with {name} = {found} is not read: only {fitting} is.")
    return Transformer(
        channels=described["in_channels"],
        width=width,
        depth=described["num_layers"],
        heads=heads,
        patch=patch,
        text=described["joint_attention_dim"],
        pooled=described["pooled_projection_dim"],
        normed=norm is not None,
        twice=len(dual),
        places=Cropped(side=described["pos_embed_max_size"], base=described["sample_size"] // patch),
    )


def described(settings: Transformer) -> dict[str, Any]:
    """The configuration that diffusers wants for an image transformer of ours."""
    if settings.video or settings.rotary != "none" or not isinstance(settings.places, Cropped):
        raise UserError(
            "Diffusers has no such transformer: only image transformers of SD3's shape, with its table of places, are written for it."
        )
    return {
        "_class_name": "SD3Transformer2DModel",
        "sample_size": settings.places.base * settings.patch,
        "patch_size": settings.patch,
        "in_channels": settings.channels,
        "num_layers": settings.depth,
        "attention_head_dim": settings.width // settings.heads,
        "num_attention_heads": settings.heads,
        "joint_attention_dim": settings.text,
        "caption_projection_dim": settings.width,
        "pooled_projection_dim": settings.pooled,
        "out_channels": settings.channels,
        "pos_embed_max_size": settings.places.side,
        "dual_attention_layers": list(range(settings.twice)),
        "qk_norm": "rms_norm" if settings.normed else None,
    }


def pairs(settings: Transformer) -> Iterator[Pair]:
    """All weights of an image transformer."""
    clock = "time_text_embed.timestep_embedder"
    yield Pair(("patches.proj",), ("pos_embed.proj",))
    yield Pair(("text",), ("context_embedder",))
    yield Pair(("signal.time.0",), (f"{clock}.linear_1",), "columns", ends=("weight",))  # ours are sines, then cosines
    yield Pair(("signal.time.0",), (f"{clock}.linear_1",), ends=("bias",))
    yield Pair(("signal.time.2",), (f"{clock}.linear_2",))
    for ours, theirs in (("0", "1"), ("2", "2")):
        yield Pair((f"signal.text.{ours}",), (f"time_text_embed.text_embedder.linear_{theirs}",))
    yield Pair(("modulation.linear",), ("norm_out.linear",), "rows")  # ours are shift, then scale
    yield Pair(("out",), ("proj_out",))
    for i in range(settings.depth):
        yield from _block(settings, i, f"blocks.{i}", f"transformer_blocks.{i}")


def _block(settings: Transformer, i: int, ours: str, theirs: str) -> Iterator[Pair]:
    last, twice = i == settings.depth - 1, i < settings.twice
    if twice:
        yield Pair((f"{ours}.video.modulation.linear", f"{ours}.second.modulation.linear"), (f"{theirs}.norm1.linear",), shares=(6, 3))
    else:
        yield Pair((f"{ours}.video.modulation.linear",), (f"{theirs}.norm1.linear",))
    yield Pair((f"{ours}.text.modulation.linear",), (f"{theirs}.norm1_context.linear",), "rows" if last else "same")
    attentions = [("video", "attn", "to_{}", "to_out.0", "norm_{}"), ("text", "attn", "add_{}_proj", "to_add_out", "norm_added_{}")]
    if twice:
        attentions.append(("second", "attn2", "to_{}", "to_out.0", "norm_{}"))
    for part, name, projection, out, norm in attentions:
        yield Pair((f"{ours}.{part}.qkv",), tuple(f"{theirs}.{name}.{projection.format(x)}" for x in "qkv"))
        for x in "qk" if settings.normed else "":
            yield Pair((f"{ours}.{part}.norm_{x}",), (f"{theirs}.{name}.{norm.format(x)}",), ends=("weight",))
        if not (part == "text" and last):
            yield Pair((f"{ours}.{part}.out",), (f"{theirs}.{name}.{out}",))
    for part, name in (("video", "ff"), ("text", "ff_context"))[: 1 if last else 2]:
        yield Pair((f"{ours}.{part}.mlp.0",), (f"{theirs}.{name}.net.0.proj",))
        yield Pair((f"{ours}.{part}.mlp.2",), (f"{theirs}.{name}.net.2",))


def ours(theirs: Mapping[str, Tensor], settings: Transformer) -> tuple[Weights, list[str]]:
    """Our weights from theirs, and the names of theirs that say nothing to us."""
    found, used = Weights(), set()
    for pair, end in _tensors(settings):
        names = [f"{name}.{end}" for name in pair.theirs]
        used.update(names)
        if absent := [name for name in names if name not in theirs]:
            raise UserError(f"There is no {absent[0]} among these weights: give a transformer as diffusers saves it.")
        whole = _exchanged(torch.cat([theirs[name] for name in names]), pair.halves)
        for name, part in zip(pair.ours, _cut(whole, pair.shares), strict=True):
            found[f"{name}.{end}"] = part
    return found, sorted(theirs.keys() - used)


def theirs(ours: Mapping[str, Tensor], settings: Transformer) -> Weights:
    """Their weights from ours; the table of places is left for their class to make."""
    found = Weights()
    for pair, end in _tensors(settings):
        whole = _exchanged(torch.cat([ours[f"{name}.{end}"] for name in pair.ours]), pair.halves)
        for name, part in zip(pair.theirs, _cut(whole, (1,) * len(pair.theirs)), strict=True):
            found[f"{name}.{end}"] = part
    return found


def _tensors(settings: Transformer) -> Iterator[tuple[Pair, str]]:
    return ((pair, end) for pair in pairs(settings) for end in pair.ends)


def _exchanged(whole: Tensor, halves: str) -> Tensor:
    """The two halves of the rows, or of the columns, in each other's place."""
    if halves == "same":
        return whole
    dim = 0 if halves == "rows" else 1
    return whole.roll(whole.shape[dim] // 2, dims=dim)


def _cut(whole: Tensor, shares: Sequence[int]) -> Sequence[Tensor]:
    unit = len(whole) // sum(shares)
    return [part.contiguous() for part in whole.split([share * unit for share in shares])]
