"""The folders that diffusers leaves: a pipeline or a transformer of SD3, SD3.5 or DiT.

Everything is read from safetensors and JSON; nothing is executed and nothing fetched.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from videodit import backbone, models
from videodit.backbone import DiT, DualTransformer, SingleTransformer, Transformer
from videodit.convert import names
from videodit.convert.foreign import SD3
from videodit.convert.foreign_dit import DIT
from videodit.convert.names import Pair, Project, Weights
from videodit.shapes import UserError

PROJECTS: dict[str, Project] = {project.name: project for project in (SD3, DIT)}
BROKEN = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError)  # what comes of what describes nothing
PART = re.compile(r"-\d+-of-\d+(?=\.safetensors$)")  # what tells the parts of one file apart
PRECISIONS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # what says by itself which number it is
PIPELINES = {"StableDiffusion3Pipeline": SD3, "DiTPipeline": DIT}


@dataclass(frozen=True)
class Source:
    """A transformer by its project's names, in the precisions of its file."""

    settings: Transformer | DiT
    weights: Weights
    pairs: list[Pair]
    unused: list[str]  # names that say nothing to us
    project: Project | None = None  # none where no class of another project can be had to compare with

    @property
    def name(self) -> str:
        return self.project.name if self.project else type(self.settings).__name__

    @property
    def precision(self) -> torch.dtype:
        return models.precision_in(self.weights.values())

    @property
    def digest(self) -> str:
        found = hashlib.sha256()
        for name, value in sorted(self.weights.items()):
            found.update(name.encode() + value.contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def ours(self) -> DualTransformer | SingleTransformer:
        """Our network with these weights, in fp32."""
        network = backbone.build(self.settings).eval()
        network.load_state_dict(names.ours(self.weights, self.pairs)[0])
        return network

    def theirs(self) -> nn.Module:
        """Diffusers' own class with these weights, in fp32."""
        assert self.project is not None
        model = self.project.kind.from_config(self.project.described(self.settings))  # pyright: ignore[reportAttributeAccessIssue]
        unlike = model.load_state_dict(self.weights, strict=False)
        assert set(unlike.missing_keys) <= self.project.computed
        return model.eval()


def read(path: Path) -> Source:
    """The transformer of a pipeline's folder, or of its own."""
    if not path.exists():
        raise UserError(f"{path} does not exist: give the folder of an SD3 or DiT pipeline or transformer, or one file.")
    folder = path / "transformer" if pipeline_in(path) else path
    described = described_in(folder)
    project = PROJECTS[described["_class_name"]]
    try:
        return matched(project.settings_of(described), weights_in(folder), project)
    except BROKEN as error:
        raise UserError(f"{folder / 'config.json'} does not describe a {project.name} ({brief(error)}): copy it again.") from error


def brief(error: BaseException) -> str:
    """What an error says, for a sentence of ours."""
    return " ".join(str(error).split())[:100]


def pipeline_in(path: Path) -> Project | None:
    """The project of whose pipeline this is the folder, if it is one; one of another kind is refused."""
    if not (path / "model_index.json").is_file():
        return None
    kind = load_json(path / "model_index.json").get("_class_name")
    if not isinstance(kind, str) or kind not in PIPELINES:
        raise UserError(f"{path} holds a {kind}: only {' and '.join(PIPELINES)} are read.")
    return PIPELINES[kind]


def described_in(folder: Path) -> dict[str, Any]:
    """The configuration of a transformer's folder."""
    if (folder / "model.toml").is_file():
        raise UserError(f"{folder} is a model of ours already: train it or generate with it, or write its image half by --to diffusers.")
    if not (folder / "config.json").is_file():
        raise UserError(f"There is no config.json in {folder}: give the folder of a pipeline or transformer, as diffusers saves it.")
    described = load_json(folder / "config.json")
    kind = described.get("_class_name")
    if not isinstance(kind, str) or kind not in PROJECTS:
        raise UserError(f"{folder} holds a {kind}: only {' and '.join(PROJECTS)} are read.")
    if described.get("quantization_config"):
        raise UserError(f"The transformer in {folder} is quantised, says its config.json: give it in half or single precision.")
    return described


def load_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): copy it again.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is no JSON object: copy it again.")
    return found


def weights_in(folder: Path) -> Weights:
    """The weights of a folder of diffusers, in one file or in several."""
    found: Weights = {}
    for file in _files(folder):
        found |= loaded(file)
    return found


def _files(folder: Path) -> Iterator[Path]:
    """One file or all parts of one; a variant, such as fp16, where nothing else is there."""
    stem = "diffusion_pytorch_model"
    whole, indices = folder / f"{stem}.safetensors", sorted(folder.glob(f"{stem}.safetensors.index*.json"))
    plain = [path for path in indices if path.name == f"{whole.name}.index.json"]
    if plain or (indices and not whole.is_file()):
        named = load_json([*plain, *indices][0]).get("weight_map")
        names = {Path(str(name)).name for name in named.values()} if isinstance(named, dict) else set()
    else:
        found = [whole] if whole.is_file() else sorted(folder.glob(f"{stem}*.safetensors"))
        names = {path.name for path in found if PART.sub("", path.name) == PART.sub("", found[0].name)}
    if not names:
        raise UserError(f"{folder} holds no {stem}.safetensors: save it with save_pretrained(..., safe_serialization=True).")
    for name in sorted(names):
        if not (folder / name).is_file():
            raise UserError(f"{name} is missing from {folder}: copy the whole folder again.")
        yield folder / name


def loaded(file: Path, wanted: Callable[[str], bool] = lambda name: True) -> Weights:
    with _opened(file) as opened:
        if all(map(wanted, opened.keys())):
            return load_file(file)
        return {name: opened.get_tensor(name) for name in opened.keys() if wanted(name)}  # noqa: SIM118


def names_in(file: Path) -> list[str]:
    """The names in a file, without what they name."""
    with _opened(file) as opened:
        return sorted(opened.keys())


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, "pt") as opened:
            yield opened
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not a complete safetensors file ({error}): copy it again; pickles are not read.") from error


def matched(settings: Transformer | DiT, weights: Weights, project: Project | None, pairs: Iterable[Pair] = ()) -> Source:
    """Weights that are all there, have the shapes that the settings make, and are numbers as they stand."""
    pairs = names.complete(weights, project.pairs(settings) if project else pairs)
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in names.theirs(backbone.build(settings).state_dict(), pairs).items()}
    for name, shape in wanted.items():
        _usable(name, weights[name], shape)
    _, unused = names.ours(weights, pairs)
    kept = {name: value for name, value in weights.items() if name not in unused}
    return Source(settings, kept, pairs, [name for name in unused if not project or name not in project.computed], project)


def _usable(name: str, value: Tensor, shape: torch.Size) -> None:
    if value.shape != shape:
        raise UserError(f"{name} is {list(value.shape)}, and should be {list(shape)}: copy the transformer again.")
    if value.dtype not in PRECISIONS:
        kind = str(value.dtype).removeprefix("torch.")
        raise UserError(f"{name} is in {kind}, a quantised number: give the transformer in half or single precision.")
    if not value.isfinite().all():
        raise UserError(
            f"{name} holds what is no finite number: its training broke, or the file did; give another copy of the transformer."
        )
