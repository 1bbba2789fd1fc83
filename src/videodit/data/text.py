"""Captions to features: a tokenizer of its own, and a small encoder that learns with the image model and is then frozen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.config import setting
from videodit.shapes import Text, UserError

PAD, START = "<pad>", "<start>"
SHARPNESS = 16.0  # of `confusion`: a cosine of a half with the own word, none with the others, costs 0.16


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """A small encoder that is trained here."""

    kind: Literal["small"] = "small"
    width: int = setting(128, doc="channels of a token's state")
    depth: int = setting(3, doc="layers")
    heads: int = setting(4, doc="attention heads")
    length: int = setting(32, doc="longest caption in tokens; what is longer is refused")
    vocabulary: int = setting(512, doc="entries of the tokenizer at most")

    def __post_init__(self) -> None:
        if min(self.width, self.heads, self.length) < 1 or self.depth < 0 or self.width % self.heads:
            raise UserError("text takes a width that its heads divide, a length of 1 or more and a depth of 0 or more.")


def learn_tokenizer(captions: Iterable[str], settings: TextSettings) -> Tokenizer:
    """A byte-level BPE that knows the captions' words whole and spells every other."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if settings.vocabulary < (least := len(alphabet) + 2):
        raise UserError(f"A vocabulary of {settings.vocabulary} has no room for all bytes: use {least} or more.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[PAD, START],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer


class TextEncoder(nn.Module):
    """A pre-norm transformer over tokens; the mean of its states is the pooled vector."""

    takes = "text"

    def __init__(self, tokenizer: Tokenizer | None, settings: TextSettings) -> None:
        super().__init__()
        self.settings = settings
        self._tokenizer = tokenizer  # none on the meta device
        self.tokens = nn.Embedding(settings.vocabulary, settings.width)
        self.places = nn.Parameter(0.02 * torch.randn(settings.length, settings.width))
        self.layers = nn.ModuleList(TextLayer(settings.width, settings.heads) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(settings.width)

    @property
    def tokenizer(self) -> Tokenizer:
        assert self._tokenizer is not None
        return self._tokenizer

    def forward(self, captions: Sequence[str]) -> Text:
        """Features of captions; an empty caption is the blank."""
        ids, mask = self.tokenize(captions)
        x = self.tokens(ids) + self.places[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, mask)
        x = self.norm(x) * mask[..., None]
        return Text(sequence=x, pooled=x.sum(1) / mask.sum(1, keepdim=True), mask=mask)

    def confusion(self, captions: Sequence[str], text: Text) -> Tensor:
        """How badly each word can be told from its own state: the cross-entropy of its cosines with all words' embeddings."""
        assert text.sequence is not None
        ids, mask = self.tokenize(captions)
        cosines = F.normalize(text.sequence[mask], dim=-1) @ F.normalize(self.tokens.weight, dim=-1).T
        return F.cross_entropy(SHARPNESS * cosines.float(), ids[mask])

    def tokenize(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and their mask, as long as the longest caption here."""
        start, pad = self.tokenizer.token_to_id(START), self.tokenizer.token_to_id(PAD)
        rows = [[start, *self.tokenizer.encode(caption).ids] for caption in captions]
        longest = max(map(len, rows))
        if longest > self.settings.length:
            caption = captions[[len(row) for row in rows].index(longest)]
            raise UserError(f"The prompt {_shortened(caption)!r} has {longest - 1} tokens: use at most {self.settings.length - 1}.")
        device = self.places.device
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=device)
        mask = torch.arange(longest, device=device) < torch.tensor([len(row) for row in rows], device=device)[:, None]
        return ids, mask

    def check(self, captions: Sequence[str]) -> None:
        """Refuse what is too long."""
        self.tokenize(captions)

    def spelling(self) -> str:
        """What decides the tokens of a caption."""
        return self.tokenizer.to_str()

    def unknown_words(self, prompt: str) -> list[str]:
        """The words that were in no caption the tokenizer learnt from: it has to spell them."""
        words = re.findall(r"\w+", prompt.lower())
        return [word for word in dict.fromkeys(words) if len(self.tokenizer.encode(word).ids) > 1]


class TextLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Float[Tensor, "b l d"], mask: Tensor) -> Float[Tensor, "b l d"]:
        query, key, value = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


def load_tokenizer(path: Path, settings: TextSettings) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare exceptions
        raise UserError(f"{path} is not a tokenizer ({error}): copy the model folder again.") from error
    if None in (tokenizer.token_to_id(PAD), tokenizer.token_to_id(START)) or tokenizer.get_vocab_size() > settings.vocabulary:
        raise UserError(f"{path} is not a tokenizer of this text encoder: copy the model folder again.")
    return tokenizer


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
