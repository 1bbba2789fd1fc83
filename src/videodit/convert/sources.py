"""What other projects leave on disk: a diffusers pipeline or transformer of SD3 or SD3.5, or such a transformer in one file.

Everything is read from safetensors and JSON; nothing is executed and nothing fetched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from videodit import backbone
from videodit.backbone import DualTransformer, Transformer
from videodit.backbone.positions import frame_positions
from videodit.convert import foreign
from videodit.convert.foreign import Weights
from videodit.shapes import Size, UserError

CLASS, PIPELINE = "SD3Transformer2DModel", "StableDiffusion3Pipeline"
TABLE = "pos_embed.pos_embed"  # computed, not learnt
ORIGINAL = "joint_blocks."  # what tells SD3's own names
HEAD = 64  # channels of SD3's heads


@dataclass(frozen=True)
class Source:
    """An image transformer by diffusers' names, in the precision of its file."""

    settings: Transformer
    weights: Weights
    unused: list[str]  # names that say nothing to us

    @property
    def precision(self) -> torch.dtype:
        return next(iter(self.weights.values())).dtype

    @property
    def digest(self) -> str:
        found = hashlib.sha256()
        for name, value in sorted(self.weights.items()):
            found.update(name.encode() + value.contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def ours(self) -> DualTransformer:
        """Our network with these weights, in fp32."""
        network = backbone.build(self.settings).eval()
        network.load_state_dict(foreign.ours(self.weights, self.settings)[0])
        return network

    def theirs(self) -> SD3Transformer2DModel:
        """Diffusers' own class with these weights, in fp32."""
        model = SD3Transformer2DModel.from_config(foreign.described(self.settings))
        assert isinstance(model, SD3Transformer2DModel)
        unlike = model.load_state_dict(self.weights, strict=False)
        assert set(unlike.missing_keys) <= {TABLE}
        return model.eval()


def read(path: Path) -> Source:
    """The image transformer of a pipeline's folder, of its own folder, or of one file."""
    if not path.exists():
        raise UserError(f"{path} does not exist: give the folder of an SD3 pipeline or transformer, or one safetensors file.")
    if path.is_file():
        return _of_file(path)
    folder = path / "transformer" if is_pipeline(path) else path
    described = described_in(folder)
    try:
        return _source(foreign.settings_of(described), weights_in(folder))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        said = " ".join(str(error).split())[:100]
        raise UserError(f"{folder / 'config.json'} does not describe a {CLASS} ({said}): copy it again.") from error


def is_pipeline(path: Path) -> bool:
    """Whether this is the folder of an SD3 pipeline; one of another kind is refused."""
    if not (path / "model_index.json").is_file():
        return False
    kind = load_json(path / "model_index.json").get("_class_name")
    if kind != PIPELINE:
        raise UserError(f"{path} holds a {kind}: only a {PIPELINE} is read, of SD3 or SD3.5.")
    return True


def described_in(folder: Path) -> dict[str, Any]:
    """The configuration of a transformer's folder."""
    if not (folder / "config.json").is_file():
        raise UserError(f"There is no config.json in {folder}: give the folder of an SD3 pipeline or transformer, as diffusers saves it.")
    described = load_json(folder / "config.json")
    if described.get("_class_name") != CLASS:
        raise UserError(f"{folder} holds a {described.get('_class_name')}: only a {CLASS} is read, of SD3 or SD3.5.")
    return described


def load_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): copy it again.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is no JSON object: copy it again.")
    return found


def weights_in(folder: Path) -> Weights:
    """The weights of a folder of diffusers, in one file or in several."""
    found: Weights = {}
    for file in _files(folder):
        found |= _loaded(file)
    return found


def _files(folder: Path) -> Iterator[Path]:
    stem = "diffusion_pytorch_model"
    if (index := folder / f"{stem}.safetensors.index.json").is_file():
        named = load_json(index).get("weight_map")
        names = {Path(str(name)).name for name in named.values()} if isinstance(named, dict) else set()
    else:
        names = {path.name for path in folder.glob(f"{stem}*.safetensors")}
        names = {f"{stem}.safetensors"} if f"{stem}.safetensors" in names else set(sorted(names)[:1])  # else a variant, such as fp16
    if not names:
        raise UserError(f"{folder} holds no {stem}.safetensors: save it with save_pretrained(..., safe_serialization=True).")
    for name in sorted(names):
        if not (folder / name).is_file():
            raise UserError(f"{name} is missing from {folder}: copy the whole folder again.")
        yield folder / name


def _loaded(file: Path, wanted: Callable[[str], bool] = lambda name: True) -> Weights:
    try:
        with safe_open(file, "pt") as opened:
            if all(map(wanted, opened.keys())):
                return load_file(file)
            return {name: opened.get_tensor(name) for name in opened.keys() if wanted(name)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not a complete safetensors file ({error}): copy it again; pickles are not read.") from error


def _source(settings: Transformer, weights: Weights) -> Source:
    _, unused = foreign.ours(weights, settings)  # says what is missing
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in foreign.theirs(backbone.build(settings).state_dict(), settings).items()}
    for name, shape in wanted.items():
        if weights[name].shape != shape:
            raise UserError(f"{name} is {list(weights[name].shape)}, and config.json makes it {list(shape)}: copy the folder again.")
    kept = {name: value for name, value in weights.items() if name not in unused}
    return Source(settings, kept, [name for name in unused if name != TABLE])


def _of_file(path: Path) -> Source:
    """SD3's own names, in one file that may hold more than the transformer."""
    prefix = "model.diffusion_model."
    with_prefix = _loaded(path, lambda name: name.startswith(prefix))
    weights = {name.removeprefix(prefix): value for name, value in with_prefix.items()} or _loaded(path)
    if not any(name.startswith(ORIGINAL) for name in weights):
        raise UserError(f"{path} holds no transformer of SD3: not one name begins with {ORIGINAL}")
    try:
        settings = _shaped(weights)
        table, extra = weights["pos_embed"], sorted(name for name in weights if not name.startswith((*_KNOWN, ORIGINAL)))
        renamed = convert_sd3_transformer_checkpoint_to_diffusers(dict(weights))
    except (KeyError, IndexError) as error:
        raise UserError(f"{path} lacks {error} of SD3's transformer: copy it again.") from error
    _same_table(table, settings, path)
    source = _source(settings, renamed)
    return Source(source.settings, source.weights, [*source.unused, *extra])


_KNOWN = ("pos_embed", "x_embedder.", "t_embedder.", "context_embedder.", "y_embedder.", "final_layer.")


def _shaped(weights: Weights) -> Transformer:
    """The settings that a file's shapes tell."""
    width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith(ORIGINAL))
    norm = weights.get(f"{ORIGINAL}0.x_block.attn.ln_q.weight")
    return Transformer(
        channels=channels,
        width=width,
        depth=depth,
        heads=width // (HEAD if norm is None else len(norm)),
        patch=patch,
        text=weights["context_embedder.weight"].shape[1],
        pooled=weights["y_embedder.mlp.0.weight"].shape[1],
        normed=norm is not None,
        twice=sum(name.endswith("x_block.attn2.qkv.weight") for name in weights),
        places=backbone.Cropped(side=round(weights["pos_embed"].shape[1] ** 0.5)),
    )


def _same_table(table: torch.Tensor, settings: Transformer, path: Path) -> None:
    """A file does not say at which extent its model was first trained; its table of places does."""
    assert isinstance(settings.places, backbone.Cropped)
    side = settings.places.side
    expected = frame_positions(Size(1, side, side), settings.width, settings.places, like=torch.zeros(()))
    if (difference := (expected - table[0].float()).abs().max().item()) > 2e-3:  # the file may be in half precision
        raise UserError(
            f"The table of places in {path} differs by {difference:.2g} from that of a model first trained at 1024 x 1024: give the "
            "transformer as diffusers saves it, whose config.json says its sample_size."
        )
