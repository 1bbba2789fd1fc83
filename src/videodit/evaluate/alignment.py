"""How well frames fit their words: 100 times the cosine of CLIP's image and text features, the mean over a clip's frames (CLIPSIM).

The model is a folder of transformers (`CLIPModel` and its tokenizer). Frames are resized by antialiased bicubic interpolation so that the
shorter side fits, and their middle is taken. The floor is chance: the same clips against other clips' words.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from videodit.data.sight import fitted
from videodit.evaluate.extractors import Clips, Extractor, Looked
from videodit.evaluate.intervals import interval
from videodit.evaluate.protocol import Estimator, Protocol, Score, Seen
from videodit.evaluate.scores import Looking, Progress, carded, gathered
from videodit.evaluate.sets import Set
from videodit.models import digest
from videodit.shapes import UserError

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerBase

Features = Float[Tensor, "n d"]
DECIDING = ("config.json", "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "preprocessor_config.json")
NEEDS = ("transformers", "tokenizers")
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

        return Extractor(seen=self.seen, look=look, needs=NEEDS)


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
    real: Set, fake: Set, clip: Clip, protocol: Protocol, estimator: Estimator, state: Path | None = None, progress: Progress | None = None
) -> Score | None:
    """The score of the generated set, that of the real one beside it; none in a process that only helped another."""
    estimator = replace(estimator, kept=max(estimator.kept, real.taken.count, fake.taken.count))  # all, which are three numbers each
    looks = {"real": looking(real, clip), "fake": looking(fake, clip)}
    sets = [gathered(chosen, name, looks[name], estimator, state, progress) for name, chosen in (("real", real), ("fake", fake))]
    if sets[0] is None or sets[1] is None:
        return None
    # Of the clips in their order, so that neither a state nor several processes change a digit.
    own, others, having = sets[1].sample[:, 0].double().unbind(1)
    value = own.mean().item()
    span = interval(value, [own[:, None, None]], lambda drawn: drawn.mean().item(), estimator, least=-100.0, most=100.0)
    return Score(
        value=value,
        interval=span,
        floor=others.sum().item() / having.sum().item() if having.any() else None,  # one clip has no other's words
        fake=fake.name,
        fake_digest=fake.digest,
        card=carded("alignment", protocol, clip.seen, real, fake, estimator, needs=NEEDS, words=looks["fake"].words),
        more={"real_score": sets[0].sample[:, 0, 0].double().mean().item()},
        figures={},
    )


def looking(chosen: Set, clip: Clip) -> Looking:
    """For each clip how well its own words fit, and the first others from half the set further on; 0 of none where all are alike."""
    captions = chosen.captions

    def look(numbers: Int[Tensor, "1"], clips: Clips) -> Looked:
        number = int(numbers[0])
        beyond = captions[number + len(captions) // 2 :] + captions
        told = clip.words([captions[number], *[said for said in beyond if said != captions[number]][:1]])
        fits = 100 * (clip.pictures(clips[0]) @ told.T).mean(0)
        other = [fits[1], torch.ones(())] if len(fits) > 1 else [torch.zeros(()), torch.zeros(())]
        return Looked(torch.stack([fits[0], *other])[None, None])

    held = hashlib.sha256("\n".join(captions).encode()).hexdigest()
    return Looking(seen=clip.seen, look=look, needs=NEEDS, words=held, together=1)  # clips may be of several extents
