"""Names of transformers of DiT's shape: diffusers' `DiTTransformer2DModel`, and the files that DiT and Latte were published in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch import Tensor

from videodit.backbone import Cropped, DiT
from videodit.convert.names import Pair, Project
from videodit.shapes import Text, UserError

FIXED = {
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
    "upcast_attention": False,
}


def settings_of(described: Mapping[str, Any]) -> DiT:
    """Our settings for the configuration of a diffusers `DiTTransformer2DModel`."""
    channels, out = described["in_channels"], described.get("out_channels") or described["in_channels"]
    wanted = {name: (described.get(name, value), value) for name, value in FIXED.items()}
    wanted["out_channels"] = (out, out if out in (channels, 2 * channels) else channels)
    for name, (found, fitting) in wanted.items():
        if found != fitting:
            raise UserError(f"A transformer with {name} = {found} is not read: only {fitting} is.")
    side = described["sample_size"] // described["patch_size"]
    return DiT(
        channels=channels,
        width=described["num_attention_heads"] * described["attention_head_dim"],
        depth=described["num_layers"],
        heads=described["num_attention_heads"],
        patch=described["patch_size"],
        layout="spatial",
        labels=described["num_embeds_ada_norm"],
        variance=out == 2 * channels,
        places=Cropped(side=side, base=side),
        eps=described["norm_eps"],
        reached=True,
    )


def described(settings: DiT) -> dict[str, Any]:
    """The configuration that diffusers wants for an image transformer of ours."""
    plain = (
        settings.tube == 1
        and settings.told == "modulation"
        and settings.layout in ("spatial", "global", "beside")
        and settings.time != "space-time"
        and not (settings.video or settings.pooled or settings.text or settings.normed)
    )
    if not (plain and settings.labels and settings.reached and isinstance(settings.places, Cropped)):
        raise UserError("Diffusers has no such transformer: only image transformers that came from its DiT are written for it.")
    return {
        "_class_name": DiTTransformer2DModel.__name__,
        "num_attention_heads": settings.heads,
        "attention_head_dim": settings.width // settings.heads,
        "in_channels": settings.channels,
        "out_channels": settings.channels * (2 if settings.variance else 1),
        "num_layers": settings.depth,
        "sample_size": settings.places.side * settings.patch,
        "patch_size": settings.patch,
        "num_embeds_ada_norm": settings.labels,
        "norm_eps": settings.eps,
        **FIXED,
    }


def pairs(settings: DiT) -> Iterator[Pair]:
    """All weights; diffusers keeps a copy of the embeddings of time and label in every block."""
    yield Pair(("patches.proj",), ("pos_embed.proj",))
    yield Pair(("modulation.linear",), ("proj_out_1",))
    yield Pair(("out",), ("proj_out_2",))
    for i in range(settings.depth):
        ours, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
        told = f"{theirs}.norm1.emb"
        yield from _clock(f"{told}.timestep_embedder.linear_1", f"{told}.timestep_embedder.linear_2")
        yield Pair(("signal.label",), (f"{told}.class_embedder.embedding_table",), ends=("weight",))
        yield Pair((f"{ours}.modulation.linear",), (f"{theirs}.norm1.linear",))
        yield Pair((f"{ours}.own.0.qkv",), tuple(f"{theirs}.attn1.to_{x}" for x in "qkv"))
        yield Pair((f"{ours}.own.0.out",), (f"{theirs}.attn1.to_out.0",))
        yield Pair((f"{ours}.mlp.0",), (f"{theirs}.ff.net.0.proj",))
        yield Pair((f"{ours}.mlp.2",), (f"{theirs}.ff.net.2",))


def published(settings: DiT) -> Iterator[Pair]:
    """All weights under the names of the files that DiT and Latte were published in."""
    yield Pair(("patches.proj",), ("x_embedder.proj",))
    yield from _clock("t_embedder.mlp.0", "t_embedder.mlp.2")
    if settings.labels:
        yield Pair(("signal.label",), ("y_embedder.embedding_table",), ends=("weight",))
    yield Pair(("modulation.linear",), ("final_layer.adaLN_modulation.1",))
    yield Pair(("out",), ("final_layer.linear",))
    for i in range(settings.depth):
        for ours, theirs in (("modulation.linear", "adaLN_modulation.1"), ("own.0.qkv", "attn.qkv"), ("own.0.out", "attn.proj")):
            yield Pair((f"blocks.{i}.{ours}",), (f"blocks.{i}.{theirs}",))
        yield Pair((f"blocks.{i}.mlp.0",), (f"blocks.{i}.mlp.fc1",))
        yield Pair((f"blocks.{i}.mlp.2",), (f"blocks.{i}.mlp.fc2",))


def _clock(first: str, second: str) -> Iterator[Pair]:
    yield Pair(("signal.time.0",), (first,), "columns", ends=("weight",))  # ours are sines, then cosines
    yield Pair(("signal.time.0",), (first,), ends=("bias",))
    yield Pair(("signal.time.2",), (second,))


def _call(model: DiTTransformer2DModel, noisy: Tensor, t: Tensor, text: Text) -> Tensor:
    blank = torch.full((len(noisy),), model.config["num_embeds_ada_norm"])
    label = blank if text.label is None else text.label
    return model(noisy[:, :, 0], timestep=t * 1000, class_labels=label).sample[:, :, None]  # pyright: ignore[reportArgumentType]


DIT = Project(DiTTransformer2DModel, settings_of, described, pairs, _call)
