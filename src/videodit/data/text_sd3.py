"""SD3's text: two CLIPs side by side, padded to T5's width, and behind them T5. Every token counts, padding too, as SD3 was trained."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.config import setting
from videodit.shapes import Text, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLIP_LENGTH, T5_LENGTH = 77, 256  # tokens
PARTS = tuple(f"{part}{ending}" for part in ("tokenizer", "text_encoder") for ending in ("", "_2", "_3"))  # a pipeline's folders
KEPT = (".json", ".safetensors", ".txt", ".model")  # of their files; nothing that can run


@dataclass(frozen=True, kw_only=True)
class SD3TextSettings:
    """SD3's encoders, in the folder `text` as diffusers saves them."""

    kind: Literal["sd3"] = "sd3"
    width: int = setting(4096, doc="channels of a token: T5's, also where T5 is absent")


class Reader(NamedTuple):
    tokenizer: PreTrainedTokenizerBase
    encoder: nn.Module


class SD3Text(nn.Module):
    """Frozen encoders of a pipeline's `folder`; without T5 its tokens are zeros."""

    takes = "text"

    def __init__(self, clips: Sequence[Reader], t5: Reader | None, settings: SD3TextSettings, folder: Path) -> None:
        super().__init__()
        self.settings, self.width, self.folder = settings, settings.width, folder
        readers = [*clips, *([t5] if t5 else [])]
        self.encoders = nn.ModuleList(reader.encoder for reader in readers)
        self.tokenizers = [reader.tokenizer for reader in readers]
        self.clips = len(clips)
        self.requires_grad_(False).eval()

    @classmethod
    def of_pipeline(cls, folder: Path, settings: SD3TextSettings) -> SD3Text:
        """The encoders and tokenizers of an SD3 pipeline's folder, as diffusers saves it; T5 may be absent."""
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # one of its own for every encoder
        clips = [_read(folder, ending, CLIPTokenizer, CLIPTextModelWithProjection) for ending in ("", "_2")]
        t5 = _read(folder, "_3", T5Tokenizer, T5EncoderModel) if (folder / "text_encoder_3").is_dir() else None
        return cls(clips, t5, settings, folder)

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> Text:
        """Features of captions; the empty caption is the blank."""
        self.check(captions)
        states, pooled = zip(*(self._clip(i, captions) for i in range(self.clips)), strict=True)
        clip = torch.cat(states, dim=-1)
        sequence = torch.cat([F.pad(clip, (0, self.width - clip.shape[-1])), self._t5(captions, clip)], dim=1)
        return Text(sequence=sequence, pooled=torch.cat(pooled, dim=-1))

    def check(self, captions: Sequence[str]) -> None:
        """The encoder that reads most must be able to read all; CLIP reads the beginning of what is long."""
        most = T5_LENGTH if len(self.encoders) > self.clips else CLIP_LENGTH
        for caption in captions:
            if (count := len(self.tokenizers[-1](caption).input_ids)) > most:
                raise UserError(f"The prompt {caption[:40]!r}... has {count} tokens: use at most {most}.")

    def spelling(self) -> str:
        """What decides the tokens of a caption: the tokenizers' files."""
        found = hashlib.sha256()
        for path in kept(self.folder):
            if path.parent.name.startswith("tokenizer"):
                found.update(path.name.encode() + path.read_bytes())
        return found.hexdigest()

    def unknown_words(self, prompt: str) -> list[str]:
        """None: these encoders have read the web."""
        return []

    def save(self, folder: Path) -> None:
        """Copy the pipeline's text half, bit by bit."""
        for path in kept(self.folder):
            target = folder / path.relative_to(self.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    def _clip(self, index: int, captions: Sequence[str]) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b e"]]:
        """The states before the last layer, and the projection of the end's state."""
        out = self.encoders[index](self._tokens(index, captions, CLIP_LENGTH), output_hidden_states=True)
        return out.hidden_states[-2], out.text_embeds

    def _t5(self, captions: Sequence[str], like: Tensor) -> Float[Tensor, "b l d"]:
        if self.clips == len(self.encoders):
            return like.new_zeros(len(captions), T5_LENGTH, self.width)
        return self.encoders[-1](self._tokens(self.clips, captions, T5_LENGTH)).last_hidden_state

    def _tokens(self, index: int, captions: Sequence[str], length: int) -> Int[Tensor, "b l"]:
        read = self.tokenizers[index](list(captions), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return read.input_ids.to(next(self.encoders.parameters()).device)


def kept(folder: Path) -> Iterator[Path]:
    """The files of a pipeline's text half."""
    for part in PARTS:
        yield from sorted(path for path in (folder / part).glob("*") if path.suffix in KEPT and path.is_file())


def _read(folder: Path, ending: str, tokenizer: type, encoder: type) -> Reader:
    """One of the pipeline's encoders; safetensors alone, and nothing from the network."""
    parts = [folder / f"tokenizer{ending}", folder / f"text_encoder{ending}"]
    for part in parts:
        if not part.is_dir():
            raise UserError(f"{part} is missing: give the folder of a whole SD3 pipeline, as diffusers saves it.")
    if not any(parts[1].glob("*.safetensors")):
        raise UserError(f"{parts[1]} holds no safetensors: save it with save_pretrained(..., safe_serialization=True).")
    local = {"local_files_only": True}
    try:
        return Reader(tokenizer.from_pretrained(parts[0], **local), encoder.from_pretrained(parts[1], use_safetensors=True, **local))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{parts[1]} or its tokenizer cannot be read ({error}): copy the folder again.") from error
