"""What a picture shows: CLIP's image encoder, a folder of transformers (`CLIPVisionModelWithProjection`), as one vector a picture."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.shapes import UserError

if TYPE_CHECKING:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training pictures
KEPT = (".json", ".safetensors")  # of a folder's files; nothing that can run


class Sight(nn.Module):
    """A frozen encoder of pictures, read from `folder`."""

    def __init__(self, encoder: CLIPVisionModelWithProjection, folder: Path) -> None:
        super().__init__()
        self.encoder, self.folder = encoder, folder
        self.side: Any = encoder.config.image_size
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """The image embeddings of pictures in -1..1, in full precision."""
        with torch.autocast(pictures.device.type, enabled=False):
            seen = fitted((pictures.float() + 1) * 127.5, self.side)
            return self.encoder(pixel_values=seen).image_embeds

    @cached_property
    def content(self) -> str:
        """What decides the vectors: the folder's files."""
        found = hashlib.sha256()
        for path in _kept(self.folder):
            found.update(path.name.encode() + path.read_bytes())
        return found.hexdigest()

    def save(self, folder: Path) -> None:
        """Copy the encoder's folder, bit by bit."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in _kept(self.folder):
            shutil.copyfile(path, folder / path.name)


def load(folder: Path) -> Sight:
    """The encoder of a folder, or the picture's half of a whole CLIP; safetensors alone, and nothing from the network."""
    described = _described(folder)
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder} holds no safetensors: save it with save_pretrained(..., safe_serialization=True).")
    from transformers import CLIPVisionModelWithProjection

    how: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    try:
        read: Any = CLIPVisionModelWithProjection.from_pretrained(folder, config=described, **how)
        encoder, told = read
    except Exception as error:  # what a strange folder makes of a reader is anything
        raise UserError(f"{folder} cannot be read as CLIP ({' '.join(str(error).split())[:100]}): copy the folder again.") from error
    if told["missing_keys"]:
        raise UserError(f"{folder} lacks {sorted(told['missing_keys'])[0]} of CLIP's image encoder: save the whole of it there.")
    return Sight(encoder.float(), folder)


def width(folder: Path) -> int:
    """Channels of the vectors, without the weights."""
    return _described(folder).projection_dim


def fitted(pictures: Float[Tensor, "n 3 h w"], side: int) -> Float[Tensor, "n 3 s s"]:
    """Pictures in 0..255 as CLIP takes them: the shorter side by antialiased bicubic to `side`, the middle, CLIP's mean and deviation."""
    scale = side / min(pictures.shape[2:])
    extent = tuple(max(side, int(length * scale)) for length in pictures.shape[2:])
    if extent != pictures.shape[2:]:
        pictures = F.interpolate(pictures, extent, mode="bicubic", antialias=True).round().clamp(0, 255)
    top, left = (extent[0] - side) // 2, (extent[1] - side) // 2
    pictures = pictures[:, :, top : top + side, left : left + side] / 255
    mean, deviation = (torch.tensor(values, device=pictures.device)[:, None, None] for values in (MEAN, DEVIATION))
    return (pictures - mean) / deviation


def _described(folder: Path) -> CLIPVisionConfig:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no folder of CLIP's image encoder: there have to be config.json and model.safetensors in it.")
    from transformers import CLIPVisionConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        described = CLIPVisionConfig.from_pretrained(folder, local_files_only=True)
        whole = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "vision_config" in whole:  # of CLIP with its text half, which says once for both how wide embeddings are
            described.projection_dim = whole["projection_dim"]
        assert isinstance(described.projection_dim, int) and isinstance(described.image_size, int)
    except Exception as error:  # as above
        raise UserError(f"{folder / 'config.json'} does not describe CLIP's image encoder: give the folder of one.") from error
    return described


def _kept(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.glob("*") if path.suffix in KEPT and path.is_file())
