"""Diffusers' names for transformers of SD3's shape, SD3 and SD3.5: `SD3Transformer2DModel`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from torch import Tensor

from videodit.backbone import Cropped, Transformer
from videodit.convert.names import Pair, Project
from videodit.shapes import Text, UserError

WHOLE = ("global", "spatial", "factorised", "divided", "beside")  # layouts in which one frame passes all of the image model's blocks


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
    if settings.layout not in WHOLE:
        known = f"{', '.join(WHOLE[:-1])} and {WHOLE[-1]}"
        raise UserError(f"On one frame the layout {settings.layout} is no image model that diffusers has: only {known} go back.")
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


def _call(model: SD3Transformer2DModel, noisy: Tensor, t: Tensor, text: Text) -> Tensor:
    out = model(noisy[:, :, 0], encoder_hidden_states=text.sequence, pooled_projections=text.pooled, timestep=t * 1000)
    return out.sample[:, :, None]


SD3 = Project(SD3Transformer2DModel, settings_of, described, pairs, _call, frozenset({"pos_embed.pos_embed"}))
