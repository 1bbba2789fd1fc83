"""How well frames fit their words: 100 times the cosine of CLIP's image and text features, the mean over a clip's frames (CLIPSIM).

The model is a folder of transformers (`CLIPModel` and its tokenizer). Frames are resized by antialiased bicubic interpolation so that the
shorter side fits, and their middle is taken. The floor is chance: the same clips against other clips' words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from videodit.data.sight import fitted
from videodit.evaluate.extractors import Extractor, Looked
from videodit.evaluate.protocol import Estimator, Protocol, Score, Seen
from videodit.evaluate.scores import carded, interval
from videodit.evaluate.sets import Set
from videodit.models import digest
from videodit.shapes import UserError

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerBase

Features = Float[Tensor, "n d"]
DECIDING = ("config.json", "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "preprocessor_config.json")
TAKES = "every frame, its shorter side by antialiased bicubic to what the model takes, the middle; CLIP's mean and deviation"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A CLIP model that is ready."""

    seen: Seen
    model: CLIPModel
    tokenizer: PreTrainedTokenizerBase
    side: int

    @torch.inference_mode()
    def pictures(self, frames: UInt8[Tensor, "n h w 3"]) -> Features:
        """Features of length 1."""
        pictures = fitted(rearrange(frames, "n h w c -> n c h w").float(), self.side)
        pooled = self.model.vision_model(pixel_values=pictures).pooler_output
        return F.normalize(self.model.visual_projection(pooled), dim=-1)

    @torch.inference_mode()
    def words(self, texts: list[str]) -> Features:
        """Features of length 1."""
        shape: Any = self.model.config.text_config
        most = shape.max_position_embeddings  # which not every tokenizer says
        told = self.tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
        pooled = self.model.text_model(input_ids=told["input_ids"], attention_mask=told["attention_mask"]).pooler_output
        return F.normalize(self.model.text_projection(pooled), dim=-1)

    @property
    def extractor(self) -> Extractor:
        """A row for each frame."""

        def look(clips: UInt8[Tensor, "b f h w 3"]) -> Looked:
            rows = self.pictures(rearrange(clips, "b f h w c -> (b f) h w c"))
            return Looked(rearrange(rows, "(b f) d -> b f d", b=len(clips)))

        return Extractor(seen=self.seen, look=look)


def load(folder: Path | None, *, sha256: str | None = None, pickled: bool = False) -> Clip:
    """The model in a folder, if its digest is the one that is given."""
    if pickled:
        raise UserError("clip is read from safetensors alone: leave out --pickle, and name a folder that holds model.safetensors.")
    if folder is None:
        raise UserError("clip needs its model: name a folder of transformers (config.json, model.safetensors, tokenizer) by --weights.")
    if not (folder / "model.safetensors").is_file() or not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no folder of CLIP: there have to be config.json, model.safetensors and the tokenizer's files in it.")
    found = folder_digest(folder)
    if sha256 is None or sha256.lower() != found:
        said = f"not the {sha256} of --sha256" if sha256 else "which none is known for"
        raise UserError(f"{folder} has the digest {found}, {said}: say --sha256 {found} if it is what you mean.")
    from transformers import AutoTokenizer, CLIPModel

    try:
        read: Any = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
        model, missing = read
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # what a strange folder makes of a reader is anything
        raise UserError(
            f"{folder} cannot be read as CLIP ({' '.join(str(error).split())[:100]}): save model and tokenizer there."
        ) from error
    if missing["missing_keys"]:
        raise UserError(f"{folder} lacks {sorted(missing['missing_keys'])[0]} of CLIP: save the whole model.")
    side = model.config.vision_config.image_size
    return Clip(seen=Seen(name="clip", digest=found, takes=TAKES), model=model.eval().requires_grad_(False), tokenizer=tokenizer, side=side)


def folder_digest(folder: Path) -> str:
    """Of the files that decide what the model says."""
    names = [*DECIDING, *sorted(path.name for path in folder.glob("*.safetensors"))]
    held = {name: digest(folder / name) for name in names if (folder / name).is_file()}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def aligned(
    real: Set, fake: Set, clip: Clip, protocol: Protocol, estimator: Estimator, progress: Callable[[int, int], None] | None = None
) -> Score:
    """The score of the generated set; that of the real one beside it."""
    found = [_fits(chosen, clip, progress) for chosen in (real, fake)]
    value = float(found[1][0].mean())
    held = hashlib.sha256("\n".join(fake.captions).encode()).hexdigest()
    card = replace(carded("alignment", protocol, clip.seen, real, fake, estimator), words=held)
    sample = torch.from_numpy(found[1][0])[:, None, None]
    span = interval(value, (sample, sample), lambda _, drawn: drawn.mean().item(), estimator)
    strange = found[1][1][np.isfinite(found[1][1])]
    chance = float(strange.mean()) if len(strange) else None  # one clip has no other's words
    more = {"real_score": float(found[0][0].mean())}
    return Score(value=value, interval=span, floor=chance, fake=fake.name, fake_digest=fake.digest, card=card, more=more)


def _fits(chosen: Set, clip: Clip, progress: Callable[[int, int], None] | None) -> tuple[np.ndarray, np.ndarray]:
    """For each clip how well its own words fit, and the first others from half the set further on; nan where all are alike."""
    captions = chosen.captions
    own, other = np.zeros(len(captions)), np.full(len(captions), np.nan)
    for number, frames in chosen.clips():
        beyond = captions[number + len(captions) // 2 :] + captions
        told = clip.words([captions[number], *[said for said in beyond if said != captions[number]][:1]])
        fits = 100 * (clip.pictures(torch.from_numpy(np.ascontiguousarray(frames))) @ told.T).mean(0)
        own[number] = fits[0].item()
        other[number] = fits[-1].item() if len(fits) > 1 else np.nan
        if progress:
            progress(number + 1, len(captions))
    return own, other
