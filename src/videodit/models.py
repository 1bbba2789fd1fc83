"""A model folder <-> a model: `model.toml`, which rebuilds everything, and safetensors, half precision on disk and fp32 in use.

Weights come from strangers: only safetensors are read, their digests are compared, and nothing in a folder is executed.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Literal, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from videodit import backbone, config
from videodit.autoencoder import DPVAE, DPVAESettings, PerFrame
from videodit.autoencoder.presets import ImageAutoencoder
from videodit.backbone import DiT, DualTransformer, SingleTransformer, Transformer
from videodit.config import setting
from videodit.data import sight
from videodit.data.labels import Labels, LabelSettings
from videodit.data.sight import Sight
from videodit.data.text import TextEncoder, TextSettings, load_tokenizer
from videodit.data.text_sd3 import SD3Text, SD3TextSettings
from videodit.diffusion.guidance import Guidance
from videodit.diffusion.noise import Prior
from videodit.diffusion.objectives import Diffusion, Flow
from videodit.diffusion.samplers import SAMPLERS
from videodit.diffusion.times import Times
from videodit.diffusion.upscaling import Upscale
from videodit.folders import PICKLES, locate, written
from videodit.shapes import Size, UserError


@dataclass(frozen=True, kw_only=True)
class DPVAEFile:
    """A video autoencoder: an image autoencoder and what was trained beside it."""

    kind: Literal["dpvae"] = "dpvae"
    image: ImageAutoencoder = setting(ImageAutoencoder(), doc="the frozen image autoencoder")
    groups: DPVAESettings = setting(DPVAESettings(), doc="how it was inflated")

    def build(self) -> PerFrame:
        return DPVAE(self.image.build(), self.groups)


@dataclass(frozen=True, kw_only=True)
class PerFrameFile:
    """An image autoencoder alone."""

    kind: Literal["per-frame"] = "per-frame"
    image: ImageAutoencoder = setting(ImageAutoencoder(), doc="the image autoencoder")

    def build(self) -> PerFrame:
        return PerFrame(self.image.build())


@dataclass(frozen=True, kw_only=True)
class Sampling:
    sampler: str = setting("euler", doc=f"the sampler: {', '.join(SAMPLERS)}, or a scheduler of diffusers by the name of its class")
    steps: int = setting(24, doc="steps of the sampler")
    guidance: Guidance = setting(Guidance(), doc="how the text is followed")

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"sampling.steps takes 1 or more, not {self.steps}.")


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was measured when an image model was converted; differences are parts of the largest value of the image model's."""

    source: str = setting("", doc="class that the image model was read by")
    digest: str = setting("", doc="SHA-256 of the image transformer's weights")
    difference: float = setting(0.0, doc="of the video model's output on one frame from that class's")
    autoencoder: float | None = setting(None, doc="of the latents of key frames from those of the image autoencoder's class")
    blocks: int = setting(0, doc="parameters added to the blocks")
    added: int = setting(0, doc="parameters added in all")
    output: float = setting(0.0, doc="largest output of what was added")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where weights come from."""

    commit: str = setting("", doc="commit of the code that trained them")
    run: str = setting("", doc="run file")
    steps: int = setting(0, doc="optimiser steps")
    hours: float = setting(0.0, doc="hours of training, on the machine that `machine` names")
    machine: str = setting("", doc="what they were trained on")
    sources: tuple[str, ...] = setting((), doc="what they were trained on, with its licence")
    scores: dict[str, float] = setting({}, doc="what they score")
    proof: Proof | None = setting(None, doc="what was measured at conversion, before any training")


@dataclass(frozen=True, kw_only=True)
class AutoencoderFolder:
    """What `model.toml` says of a folder that holds an autoencoder alone."""

    kind: Literal["autoencoder"] = "autoencoder"
    autoencoder: DPVAEFile | PerFrameFile = setting(DPVAEFile(), doc="pixels to latents")
    provenance: Provenance = setting(Provenance(), doc="where the weights come from")
    digests: dict[str, str] = setting({}, doc="SHA-256 of each file")


@dataclass(frozen=True, kw_only=True)
class BackboneFolder:
    """What `model.toml` says of a folder that holds a transformer alone."""

    kind: Literal["backbone"] = "backbone"
    backbone: Transformer | DiT = setting(Transformer(), doc="the transformer")
    provenance: Provenance = setting(Provenance(), doc="where the weights come from")
    digests: dict[str, str] = setting({}, doc="SHA-256 of each file")


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """What `model.toml` says of a whole model."""

    kind: Literal["model"] = "model"
    takes: Literal["text", "label", "nothing"] = setting("text", doc="what the model is told")
    size: Size = setting(Size(16, 64, 64), doc="frames, rows, columns it was trained at")
    fps: float = setting(8.0, doc="frames a second")
    autoencoder: DPVAEFile | PerFrameFile = setting(DPVAEFile(), doc="pixels to latents")
    text: TextSettings | SD3TextSettings | LabelSettings = setting(TextSettings(), doc="the text encoder, or the labels")
    backbone: Transformer | DiT = setting(Transformer(), doc="the transformer")
    objective: Flow | Diffusion = setting(Flow(), doc="what the transformer answers with")
    times: Times = setting(Times(), doc="the times it was trained on; sampling visits them alike")
    prior: Prior = setting(Prior(), doc="the noise it was trained on")
    upscale: Upscale | None = setting(None, doc="how it makes a clip larger that it is told of, if it does; else it makes its own")
    sampling: Sampling = setting(Sampling(), doc="defaults of sampling")
    provenance: Provenance = setting(Provenance(), doc="where the weights come from")
    digests: dict[str, str] = setting({}, doc="SHA-256 of each file")


@dataclass(frozen=True)
class Model:
    """A whole model in memory."""

    settings: ModelFolder
    autoencoder: PerFrame
    text: TextEncoder | SD3Text | Labels
    backbone: DualTransformer | SingleTransformer
    sight: Sight | None = None  # where the transformer is told what a given first frame shows


Folder = ModelFolder | BackboneFolder | AutoencoderFolder
Kind = TypeVar("Kind")
HOLDS: dict[type, str] = {ModelFolder: "a whole model", AutoencoderFolder: "an autoencoder", BackboneFolder: "a transformer alone"}
SIGHT = "sight"  # a model's folder of CLIP's image encoder
Precisions = Mapping[str, torch.dtype]  # on disk, by part; half where it is not said


def describe_autoencoder(autoencoder: PerFrame) -> DPVAEFile | PerFrameFile:
    """The settings that rebuild an autoencoder."""
    image = ImageAutoencoder.of(autoencoder.image)
    return DPVAEFile(image=image, groups=autoencoder.settings) if isinstance(autoencoder, DPVAE) else PerFrameFile(image=image)


# --- Saving ---


def save(folder: Path, model: Model, precisions: Precisions | None = None) -> None:
    with written(folder) as aside:
        for name, part in (("autoencoder", model.autoencoder), ("backbone", model.backbone)):
            _save_part(part, aside / f"{name}.safetensors", (precisions or {}).get(name, torch.half))
        if isinstance(model.text, SD3Text):
            model.text.save(aside / "text")
        elif isinstance(model.text, TextEncoder):
            model.text.tokenizer.save(str(aside / "tokenizer.json"))
            _save_part(model.text, aside / "text.safetensors")
        if model.sight:
            model.sight.save(aside / SIGHT)
        autoencoder = describe_autoencoder(model.autoencoder)
        described = replace(model.settings, takes=model.text.takes, autoencoder=autoencoder, digests=_digests(aside))
        (aside / "model.toml").write_text(config.write(described), encoding="utf-8")


def save_autoencoder(folder: Path, autoencoder: PerFrame, provenance: Provenance) -> None:
    with written(folder) as aside:
        _save_part(autoencoder, aside / "autoencoder.safetensors")
        described = AutoencoderFolder(autoencoder=describe_autoencoder(autoencoder), provenance=provenance, digests=_digests(aside))
        (aside / "model.toml").write_text(config.write(described), encoding="utf-8")


def save_backbone(
    folder: Path, network: DualTransformer | SingleTransformer, provenance: Provenance, precision: torch.dtype = torch.half
) -> None:
    with written(folder) as aside:
        _save_part(network, aside / "backbone.safetensors", precision)
        described = BackboneFolder(backbone=network.settings, provenance=provenance, digests=_digests(aside))
        (aside / "model.toml").write_text(config.write(described), encoding="utf-8")


def _save_part(module: nn.Module, path: Path, precision: torch.dtype = torch.half) -> None:
    save_file({name: _narrowed(value.detach(), precision).contiguous() for name, value in module.state_dict().items()}, path)


def _narrowed(value: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    """In a precision, or as it is where a number would become infinite there."""
    narrow = value.to(precision)
    return narrow if torch.equal(narrow.isfinite(), value.isfinite()) else value


def _digests(folder: Path) -> dict[str, str]:
    """Of every file, by its path in the folder."""
    return {path.relative_to(folder).as_posix(): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def latent_space(autoencoder: PerFrame) -> str:
    """What tells one latent space from another: SHA-256 of the image autoencoder as it would be saved, and of its scaling."""
    return _spelled(autoencoder.image, f"{autoencoder.scaling} {autoencoder.shift}")


def clip_space(autoencoder: PerFrame) -> str:
    """The same for latents of clips, which E_r and its groups have a part in; D has none."""
    if not isinstance(autoencoder, DPVAE):
        return latent_space(autoencoder)
    heard = autoencoder.settings.window if autoencoder.settings.reach == "causal" else 1
    groups = replace(autoencoder.settings, step=1, window=heard)  # without what latents do not hear of
    return _spelled(autoencoder.encoder, f"{latent_space(autoencoder)} {groups}")


def _spelled(module: nn.Module, said: str) -> str:
    found = hashlib.sha256(said.encode())
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode() + value.detach().half().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


# --- Loading ---


def load(name: str | Path, device: str = "cpu") -> Model:
    """A whole model, in fp32 and ready to be used."""
    folder, settings = read(name, ModelFolder)
    text = _load_text(folder, settings)
    autoencoder, network = settings.autoencoder.build(), backbone.build(settings.backbone)
    for part, file in ((autoencoder, "autoencoder"), (network, "backbone")):
        _fill(part.to(device).eval(), _checked(folder, f"{file}.safetensors", settings.digests))
    seer = load_sight(folder, settings)
    return Model(settings, autoencoder, text.to(device), network, seer and seer.to(device))


def read(name: str | Path, *kinds: type[Kind]) -> tuple[Path, Kind]:
    """A folder of ours and what its model.toml says, if it is of one of these kinds."""
    folder = locate(name)
    settings = config.read(Folder, folder / "model.toml")
    if not isinstance(settings, kinds):
        wanted = " or ".join(HOLDS[kind] for kind in kinds)
        raise UserError(f"{folder} holds {HOLDS[type(settings)]}, not {wanted}: give such a folder; training leaves OUTPUT/model.")
    return folder, settings


def _load_text(folder: Path, settings: ModelFolder) -> TextEncoder | SD3Text | Labels:
    if isinstance(settings.text, LabelSettings):
        return Labels(settings.text)
    if isinstance(settings.text, SD3TextSettings):
        _checked_all(folder, "text", settings.digests)
        return SD3Text.of_pipeline(folder / "text", settings.text).float()
    tokenizer = load_tokenizer(_checked(folder, "tokenizer.json", settings.digests), settings.text)
    text = TextEncoder(tokenizer, settings.text).eval()
    _fill(text, _checked(folder, "text.safetensors", settings.digests))
    return text


def load_sight(folder: Path, settings: ModelFolder) -> Sight | None:
    """What tells the transformer of a whole model what a picture shows."""
    if not settings.backbone.picture:
        return None
    _checked_all(folder, SIGHT, settings.digests)
    return sight.load(folder / SIGHT)


def load_backbone(name: str | Path) -> DualTransformer | SingleTransformer:
    """A transformer: from its own folder or a whole model's."""
    folder, settings = read(name, ModelFolder, BackboneFolder)
    network = backbone.build(settings.backbone).eval()
    _fill(network, _checked(folder, "backbone.safetensors", settings.digests))
    return network


def load_autoencoder(name: str | Path, device: str = "cpu") -> PerFrame:
    """An autoencoder: from its own folder, from a whole model's, or an image one as diffusers saves it."""
    path = Path(name)
    if (path / "config.json").is_file():
        return PerFrame(_load_diffusers(path)).to(device)
    folder, settings = read(name, ModelFolder, AutoencoderFolder)
    autoencoder = settings.autoencoder.build().to(device).eval()
    _fill(autoencoder, _checked(folder, "autoencoder.safetensors", settings.digests))
    return autoencoder


def describe(name: str | Path) -> DPVAEFile | PerFrameFile:
    """What a folder's autoencoder is, without its weights."""
    path = Path(name)
    if (path / "config.json").is_file():
        return PerFrameFile(image=ImageAutoencoder.of(_unfilled(path)))
    return read(name, ModelFolder, AutoencoderFolder)[1].autoencoder


def _load_diffusers(folder: Path) -> AutoencoderKL:
    weights = folder / "diffusion_pytorch_model.safetensors"
    if not weights.is_file():
        pickles = [p.name for p in folder.iterdir() if p.suffix in PICKLES]
        what = f"only a pickle ({pickles[0]})" if pickles else "no diffusion_pytorch_model.safetensors"
        raise UserError(f"{folder} holds {what}: save it with save_pretrained(..., safe_serialization=True).")
    image = _unfilled(folder)
    _fill(image, weights)
    return image


def _unfilled(folder: Path) -> AutoencoderKL:
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(described, dict):  # anything else would be looked up on the hub
            raise ValueError("it is no JSON object")
        image = AutoencoderKL.from_config(described)
        assert isinstance(image, AutoencoderKL)
        return image
    except (OSError, ValueError, TypeError, ArithmeticError, LookupError, RuntimeError) as error:  # which may say several lines
        said = " ".join(str(error).split())[:100]
        raise UserError(f"{folder / 'config.json'} does not describe an AutoencoderKL ({said}): give the folder of one.") from error


def _checked(folder: Path, file: str, digests: dict[str, str]) -> Path:
    path = folder / file
    if not path.is_file():
        if pickles := [p.name for p in folder.iterdir() if p.suffix in PICKLES and p.stem == path.stem]:
            raise UserError(f"{folder} holds a pickle ({pickles[0]}) in place of {file}: only safetensors are read; save it as those.")
        raise UserError(f"{file} is missing from {folder}: copy the whole folder again.")
    if file in digests and digest(path) != digests[file]:
        raise UserError(f"{path} is not the file that was saved (its SHA-256 differs from model.toml): copy the whole folder again.")
    return path


def _checked_all(folder: Path, part: str, digests: dict[str, str]) -> None:
    for file in (name for name in digests if name.startswith(f"{part}/")):
        _checked(folder, file, digests)


def precision_of(path: Path) -> torch.dtype:
    """The least precision that holds all weights of a file."""
    return precision_in(load_file(path).values())


def precision_in(weights: Iterable[torch.Tensor]) -> torch.dtype:
    """The least precision that holds all of some weights; half where there are none."""
    found = {value.dtype for value in weights}
    return reduce(torch.promote_types, found) if found else torch.half


def _fill(module: nn.Module, path: Path) -> None:
    try:
        weights = {name: value.float() for name, value in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a complete safetensors file ({error}): copy it again.") from error
    broken = next((name for name, value in weights.items() if not value.sum().isfinite() and not value.isfinite().all()), None)
    if broken:  # sums are known in a fourth of the time
        raise UserError(f"{path} holds what is no finite number ({broken}): its training broke, so give a model that was saved before.")
    wanted = module.state_dict()
    unlike = sorted(
        name for name in wanted.keys() | weights.keys() if getattr(wanted.get(name), "shape", 0) != getattr(weights.get(name), "shape", 1)
    )
    if unlike:
        raise UserError(f"{path} does not fit its model.toml ({unlike[0]} and {len(unlike) - 1} more differ): copy the whole folder again.")
    module.load_state_dict(weights)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def commit() -> str:
    """The commit of this checkout, or nothing where the package is installed without one, or git is not."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def trained_on() -> str:
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads of {torch.backends.cpu.get_cpu_capability()}"
