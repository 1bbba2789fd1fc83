"""LoRA: a transformer's named linear layers, each with a low-rank change beside it that alone is learnt.

A folder holds the changes in peft's layout, and in diffusers' where it has such a transformer; `load` reads either and merges it into the
weights.
"""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from videodit import backbone
from videodit.backbone import DualTransformer, SingleTransformer, Transformer
from videodit.config import setting
from videodit.convert.foreign import SD3
from videodit.convert.lora import Factors, renamed
from videodit.folders import PICKLES
from videodit.models import written
from videodit.shapes import UserError

PEFT, CONFIG, DIFFUSERS = "adapter_model.safetensors", "adapter_config.json", "pytorch_lora_weights.safetensors"
METADATA = "lora_adapter_metadata"  # where diffusers' file says what peft's folder says in CONFIG
PREFIXES = ("base_model.model.", "transformer.")  # peft's, diffusers'
ENDS = {".lora_A.weight": "down", ".lora_B.weight": "up", ".lora.down.weight": "down", ".lora.up.weight": "up", ".alpha": "alpha"}
NAME = "default"  # peft's for the one adapter there is


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank changes of the named layers."""

    rank: int = setting(16, doc="rank of each change")
    alpha: float = setting(16.0, doc="a change counts alpha / rank times")
    dropout: float = setting(0.0, doc="part of what goes into a change that is left out while it learns")
    names: tuple[str, ...] = setting(("blocks.*.qkv", "blocks.*.out"), doc="linear layers that change; * stands for anything")

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha or not math.isfinite(self.alpha) or not 0 <= self.dropout < 1 or not self.names:
            raise UserError(
                "lora takes a rank of 1 or more, an alpha other than 0, dropout from 0 up to, not including, 1, and names of layers."
            )


def attach(network: DualTransformer | SingleTransformer, settings: LoRA) -> None:
    """Give the named layers their changes, which are zero at the start and alone are learnt."""
    from peft import LoraConfig, inject_adapter_in_model  # two seconds that only those wait for who use it

    linears = [name for name, _ in _linears(network)]
    for pattern in settings.names:
        if not fnmatch.filter(linears, pattern):
            raise UserError(f"lora.names: no linear layer is called {pattern!r}: they are called {', '.join(sorted(linears)[:6])}, ...")
    chosen = [name for name in linears if any(fnmatch.fnmatchcase(name, pattern) for pattern in settings.names)]
    described = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=settings.dropout,
        target_modules="|".join(map(re.escape, chosen)),
    )
    inject_adapter_in_model(described, network, adapter_name=NAME)


def factors(network: nn.Module) -> dict[str, Factors]:
    """The changes that are attached, by layer."""
    return {
        name: Factors(layer.lora_A[NAME].weight.detach(), layer.lora_B[NAME].weight.detach(), layer.scaling[NAME])  # pyright: ignore
        for name, layer in network.named_modules()
        if hasattr(layer, "lora_A")
    }


def merged(network: DualTransformer | SingleTransformer) -> DualTransformer | SingleTransformer:
    """A transformer of the same kind that has the attached changes in its weights."""
    weights = {name.replace(".base_layer.", "."): value for name, value in network.state_dict().items() if ".lora_" not in name}
    plain = backbone.build(network.settings).to(next(network.parameters()).device)
    plain.load_state_dict(weights)
    _merge(plain, factors(network), 1.0)
    return plain.eval()


def save(folder: Path, network: DualTransformer | SingleTransformer) -> None:
    """Write the attached changes: as peft does, and as diffusers does where it has such a transformer and all layers that change."""
    changes = factors(network)
    with written(folder) as aside:
        weights = {f"{PREFIXES[0]}{name}": value for name, value in _halves(changes)}
        save_file(weights, aside / PEFT, metadata={"format": "pt"})
        network.peft_config[NAME].save_pretrained(str(aside))  # pyright: ignore
        if _known_to_diffusers(network, changes):
            theirs = renamed(changes, SD3.pairs(network.settings))
            whole = {
                name: change._replace(up=change.up * change.scale) for name, change in theirs.items()
            }  # read everywhere as alpha = rank
            save_file({f"{PREFIXES[1]}{name}": value for name, value in _halves(whole)}, aside / DIFFUSERS, metadata={"format": "pt"})


def load(network: DualTransformer | SingleTransformer, path: Path, scale: float = 1.0) -> int:
    """Merge the changes in a folder or file into a transformer's weights, `scale` times; returns how many layers change."""
    found = read(path)
    linears = dict(_linears(network))
    if not found.keys() <= linears.keys() and isinstance(network.settings, Transformer):
        found = renamed(found, SD3.pairs(network.settings), back=True)
    for name, change in found.items():
        wanted, shape = tuple(linears[name].weight.shape) if name in linears else None, (len(change.up), change.down.shape[1])
        if wanted != shape:
            raise UserError(f"{path} changes {name} of {list(shape)}, which this transformer has not: give adapters of the same model.")
    _merge(network, found, scale)
    return len(found)


def read(path: Path) -> dict[str, Factors]:
    """The changes in a folder or file, by the names of whoever wrote them."""
    file = file_of(path)
    tensors, described = _opened(file)
    if file.name == PEFT:
        described = _described(file.with_name(CONFIG))
    refused = [name for name in ("use_dora", "lora_bias") if described.get(name)]
    refused += ["bias"] * (described.get("bias", "none") != "none")
    if refused:
        raise UserError(f"{path} holds more than LoRA's two factors ({refused[0]}), which are all that is read.")
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        end = next((end for end in ENDS if key.endswith(end)), None)
        name = next((key.removeprefix(prefix) for prefix in PREFIXES if key.startswith(prefix)), key)
        if end is None or (ENDS[end] != "alpha" and value.ndim != 2):
            raise UserError(f"{key} in {file} is no low-rank change of a linear layer: only LoRA of linear layers is read.")
        layers.setdefault(name.removesuffix(end), {})[ENDS[end]] = value.float()
    if not layers:
        raise UserError(f"{file} holds no adapters: give what training left in OUTPUT/lora, or what diffusers or peft saved.")
    return {name: _factors(file, name, parts, described) for name, parts in layers.items()}


def _factors(file: Path, name: str, parts: Mapping[str, Tensor], described: Mapping[str, Any]) -> Factors:
    if not {"down", "up"} <= parts.keys() or len(parts["down"]) != parts["up"].shape[1]:
        raise UserError(f"{file} holds not both factors of {name}: copy it again.")
    rank = len(parts["down"])
    try:
        alpha = parts["alpha"].item() if "alpha" in parts else _alpha(name, described, rank)
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise UserError(
            f"What stands beside {file} does not say how often {name} counts ({error}): copy the whole folder again."
        ) from error
    return Factors(parts["down"], parts["up"], alpha / (math.sqrt(rank) if described.get("use_rslora") else rank))


def _alpha(name: str, described: Mapping[str, Any], rank: int) -> float:
    """peft's way to say something of some layers."""
    patterns, otherwise = described.get("alpha_pattern") or {}, described.get("lora_alpha", rank)
    return float(next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", name)), otherwise))


def file_of(path: Path) -> Path:
    """The file of adapters that a path means."""
    if path.is_file() and path.suffix == ".safetensors":
        return path
    there = [path / name for name in (PEFT, DIFFUSERS) if (path / name).is_file()]
    if not there:
        pickles = sorted(file.name for file in (path.iterdir() if path.is_dir() else [path]) if file.suffix in PICKLES)
        what = f"{path} holds a pickle ({pickles[0]})" if pickles else f"There are no adapters in {path}"
        raise UserError(f"{what}: give a folder with {PEFT} or {DIFFUSERS}, or such a file.")
    return there[0]


def _opened(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A file's tensors, and what its metadata says in peft's words."""
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            described = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is not a complete safetensors file ({error}): copy it again.") from error
    return tensors, {name.removeprefix(PREFIXES[1]): value for name, value in described.items()}


def _described(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["peft_type"] == "LORA":
            return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read ({error}): copy the whole folder again.") from error
    raise UserError(f"{file} describes {found['peft_type']}: only LORA is read.")


def _halves(changes: Mapping[str, Factors]) -> Iterator[tuple[str, Tensor]]:
    for name, change in changes.items():
        yield f"{name}.lora_A.weight", change.down.contiguous().clone()
        yield f"{name}.lora_B.weight", change.up.contiguous().clone()


def _linears(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear))


@torch.no_grad()
def _merge(network: nn.Module, changes: Mapping[str, Factors], scale: float) -> None:
    for name, change in changes.items():
        weight = network.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        weight += change._replace(scale=change.scale * scale).change().to(weight)


def _known_to_diffusers(network: DualTransformer | SingleTransformer, changes: Mapping[str, Factors]) -> bool:
    """Whether diffusers has the image transformer that this one came from with these layers, and loads adapters for it."""
    if not isinstance(network.settings, Transformer):
        return False
    try:
        SD3.described(replace(network.settings, video=False))
    except UserError:
        return False
    return network.settings.layout != "beside" and changes.keys() <= {name for pair in SD3.pairs(network.settings) for name in pair.ours}
