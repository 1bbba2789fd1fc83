"""A transformer in one file: SD3 under the names it was first published with, and the pickles of DiT and Latte.

A pickle is opened only when asked for, by `weights_only`, which builds tensors and calls nothing.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from torch import Tensor

from videodit.backbone import Cropped, DiT, Transformer
from videodit.backbone.positions import frame_positions
from videodit.convert.foreign import SD3
from videodit.convert.foreign_dit import published
from videodit.convert.names import Weights
from videodit.convert.sources import BROKEN, Source, brief, loaded, matched, names_in
from videodit.folders import PICKLES
from videodit.shapes import Size, UserError

ORIGINAL = "joint_blocks."  # what tells SD3's own names
SCALES = (".scale_weight", ".weight_scale")  # what numbers in 8 bits are multiplied by, in files made for inference
SD3_HEAD = 64  # channels of its heads
DIT_HEADS = {1152: 16, 1024: 16, 768: 12, 384: 6}  # by width: XL, L, B and S
DIT_TABLES = ("pos_embed", "temp_embed")  # computed, not learnt


def read(path: Path, *, pickled: bool = False) -> Source:
    """The transformer in a file; `pickled`: whether it may be a pickle."""
    if path.suffix not in PICKLES:
        return _sd3(path)
    if not pickled:
        raise UserError(f"{path} is a pickle, which can run code: --pickle opens it so that only tensors are built.")
    return _dit(path)


def _sd3(path: Path) -> Source:
    """SD3 by its own names; the file may hold more than the transformer."""
    prefix = "model.diffusion_model."
    with_prefix = loaded(path, lambda name: name.startswith(prefix))
    weights = {name.removeprefix(prefix): value for name, value in with_prefix.items()} or loaded(path)
    others = [name for name in names_in(path) if not name.startswith(prefix)] if with_prefix else []
    if not any(name.startswith(ORIGINAL) for name in weights):
        raise UserError(f"{path} holds no transformer of SD3: not one name begins with {ORIGINAL}")
    try:
        settings = _sd3_shaped(weights)
        _same_table(weights["pos_embed"], settings.width, settings.places, path)
        left = dict(weights)
        source = matched(settings, convert_sd3_transformer_checkpoint_to_diffusers(left), SD3)  # which takes out what it knows
    except BROKEN as error:
        raise _unlike(path, "SD3", error) from error
    if scaled := next((name for name in sorted(left) if name.endswith(SCALES)), None):
        raise UserError(f"The numbers of {path} are to be multiplied by scales of their own ({scaled}): give the file in half precision.")
    return Source(source.settings, source.weights, source.pairs, [*source.unused, *sorted(left), *_counted(others)], SD3)


def _counted(names: list[str]) -> list[str]:
    """Names by their first part, since a checkpoint of everything has a thousand."""
    counts = Counter(name.partition(".")[0] for name in names)
    return [f"{first}.* ({count})" for first, count in sorted(counts.items())]


def _sd3_shaped(weights: Weights) -> Transformer:
    """The settings that a file's shapes tell."""
    width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
    norm = weights.get(f"{ORIGINAL}0.x_block.attn.ln_q.weight")
    return Transformer(
        channels=channels,
        width=width,
        depth=_depth(weights, ORIGINAL),
        heads=width // (SD3_HEAD if norm is None else len(norm)),
        patch=patch,
        text=weights["context_embedder.weight"].shape[1],
        pooled=weights["y_embedder.mlp.0.weight"].shape[1],
        normed=norm is not None,
        twice=sum(name.endswith("x_block.attn2.qkv.weight") for name in weights),
        places=Cropped(side=round(weights["pos_embed"].shape[1] ** 0.5)),
    )


def _dit(path: Path) -> Source:
    """DiT or Latte, whose averaged weights come first where there are any."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what bytes that are no tensors make of a reader is anything
        said = " ".join(str(error).split())[:100]
        raise UserError(f"{path} cannot be read as tensors alone ({said}): have it saved as a dictionary of tensors.") from error
    for part in ("ema", "model"):
        found = found[part] if isinstance(found, dict) and isinstance(found.get(part), dict) else found
    if (
        not isinstance(found, dict)
        or not all(isinstance(value, Tensor) for value in found.values())
        or "x_embedder.proj.weight" not in found
    ):
        raise UserError(f"{path} holds no transformer of DiT or Latte: there is no x_embedder.proj.weight.")
    weights = {str(name): value for name, value in found.items()}
    try:
        settings = _dit_shaped(weights)
        _same_table(weights["pos_embed"], settings.width, settings.places, path)
        tables = {name: value for name, value in weights.items() if name not in DIT_TABLES}
        return matched(settings, tables, None, published(settings))
    except BROKEN as error:
        raise _unlike(path, "DiT", error) from error


def _dit_shaped(weights: Weights) -> DiT:
    width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
    if width not in DIT_HEADS:
        raise UserError(
            f"A DiT of width {width} does not say how many heads it has: only those of {', '.join(map(str, DIT_HEADS))} are read."
        )
    side, labels = round(weights["pos_embed"].shape[1] ** 0.5), weights.get("y_embedder.embedding_table.weight")
    return DiT(
        channels=channels,
        width=width,
        depth=_depth(weights, "blocks."),
        heads=DIT_HEADS[width],
        patch=patch,
        layout="interleaved" if "temp_embed" in weights else "spatial",
        labels=0 if labels is None else len(labels) - 1,
        variance=len(weights["final_layer.linear.weight"]) == 2 * channels * patch**2,
        places=Cropped(side=side, base=side),
    )


def _unlike(path: Path, whose: str, error: Exception) -> UserError:
    if isinstance(error, LookupError):
        return UserError(f"{path} lacks {error} of {whose}'s transformer: copy it again.")
    return UserError(f"{path} holds no transformer of {whose} ({brief(error)}): copy it again.")


def _depth(weights: Weights, prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in weights if name.startswith(prefix))


def _same_table(table: Tensor, width: int, places: object, path: Path) -> None:
    """A file does not say at which extent its model was first trained; its table of places does."""
    assert isinstance(places, Cropped)
    expected = frame_positions(Size(1, places.side, places.side), width, places, like=torch.zeros(()))
    difference = (expected - table[0].float()).abs().max().item()
    if not difference <= 2e-3:  # the file may be in half precision
        raise UserError(
            f"The table of places in {path} differs by {difference:.2g} from that of a model first trained at {places.base} tokens a side: "
            "give the transformer as diffusers saves it, whose config.json says its sample_size."
        )
