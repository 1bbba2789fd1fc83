"""Captions to features: a tokenizer that is the same every time, and an encoder that padding does not reach."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE

import tiny
from videodit.data import toybox
from videodit.data.text import START, TextEncoder, TextSettings, learn_tokenizer, load_tokenizer
from videodit.shapes import Text, UserError

CAPTIONS = ["a red circle moves right", "a cyan star spins and a blue square stays still", "", "Zebras!"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return tiny.text_encoder()


def unpacked(text: Text) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    assert text.sequence is not None and text.pooled is not None and text.mask is not None
    return text.sequence, text.pooled, text.mask


@torch.no_grad()
def test_padding_changes_nothing(encoder: TextEncoder) -> None:
    sequence, pooled, mask = unpacked(encoder(CAPTIONS))
    assert not sequence[~mask].any()
    for i, caption in enumerate(CAPTIONS):
        alone, alone_pooled, alone_mask = unpacked(encoder([caption]))
        assert alone_mask.all() and alone_mask.shape[1] == mask[i].sum()
        torch.testing.assert_close(sequence[i, mask[i]], alone[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(pooled[i], alone_pooled[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_words_and_their_order_matter(encoder: TextEncoder) -> None:
    pooled = unpacked(encoder(["a red circle", "a red square", "circle red a"]))[1]
    assert (pooled[:1] - pooled[1:]).abs().amax(1).min() > 1e-3


@torch.no_grad()
def test_the_pooled_vector_is_the_mean_of_the_states(encoder: TextEncoder) -> None:
    sequence, pooled, mask = unpacked(encoder(CAPTIONS))
    for states, one, real in zip(sequence, pooled, mask, strict=True):
        torch.testing.assert_close(one, states[real].mean(0))


@torch.no_grad()
def test_confusion_is_low_where_states_are_their_words(encoder: TextEncoder) -> None:
    ids, mask = encoder.tokenize(CAPTIONS)
    told = Text(sequence=3 * encoder.tokens(ids) * mask[..., None])
    swapped = Text(sequence=encoder.tokens(ids.roll(1, 1)) * mask[..., None])
    assert 0 <= encoder.confusion(CAPTIONS, told) < 0.5 < 3 < encoder.confusion(CAPTIONS, swapped)


@torch.no_grad()
def test_an_empty_caption_is_the_blank(encoder: TextEncoder) -> None:
    ids, mask = encoder.tokenize(["", "  "])
    assert ids.tolist() == [[encoder.tokenizer.token_to_id(START)]] * 2 and mask.all()


@torch.no_grad()
def test_capitals_and_spaces_around_change_nothing(encoder: TextEncoder) -> None:
    ids, _ = encoder.tokenize(["A Red CIRCLE ", "a red circle"])
    assert torch.equal(ids[0], ids[1])


def test_too_long_a_prompt_is_said(encoder: TextEncoder) -> None:
    room = tiny.TEXT.length - 1
    fits = " ".join(["red"] * room)
    assert encoder.tokenize([fits])[0].shape == (1, tiny.TEXT.length)
    with pytest.raises(UserError, match=rf"The prompt 'red red .*…' has {room + 1} tokens: use at most {room}\."):
        encoder.tokenize(["a", f"{fits} red"])


def test_words_never_read_are_named_once(encoder: TextEncoder) -> None:
    assert encoder.unknown_words("a red Zebra, a zebra and a circle yodels") == ["zebra", "yodels"]
    for index in range(50):
        assert encoder.unknown_words(toybox.sentence(3, index)) == []


def test_every_caption_of_the_toybox_survives_and_fits() -> None:
    tokenizer, room = tiny.tokenizer(), TextSettings().length - 1
    for index in range(200):
        caption = toybox.sentence(1, index)
        ids = tokenizer.encode(caption).ids
        assert tokenizer.decode(ids).strip() == caption and len(ids) <= room


@pytest.mark.parametrize("words", ["naïve façade", "日本語 ☃ 🎈", 'quotes " and \\ back', "tab\tand\nline"])
def test_any_text_survives(words: str) -> None:
    tokenizer = tiny.tokenizer()
    assert tokenizer.decode(tokenizer.encode(words).ids).strip() == words.lower()


def test_learning_twice_gives_the_same_tokenizer(tmp_path: Path) -> None:
    captions = [toybox.sentence(0, i) for i in range(300)]
    one, other = (learn_tokenizer(captions, tiny.TEXT) for _ in range(2))
    assert one.to_str() == other.to_str() and one.get_vocab_size() <= tiny.TEXT.vocabulary
    one.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path / "tokenizer.json", tiny.TEXT).to_str() == one.to_str()


def test_a_vocabulary_without_room_for_the_bytes_is_refused() -> None:
    with pytest.raises(UserError, match="use 258 or more"):
        learn_tokenizer(["a red circle"], TextSettings(vocabulary=100))


def test_a_file_that_is_no_tokenizer_is_said(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text('{"model": 3}')
    with pytest.raises(UserError, match="is not a tokenizer"):
        load_tokenizer(path, tiny.TEXT)


def test_a_tokenizer_of_another_encoder_is_said(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tiny.tokenizer().save(str(path))
    with pytest.raises(UserError, match="is not a tokenizer of this text encoder"):
        load_tokenizer(path, TextSettings(vocabulary=tiny.tokenizer().get_vocab_size() - 1))
    Tokenizer(BPE()).save(str(path))
    with pytest.raises(UserError, match="is not a tokenizer of this text encoder"):
        load_tokenizer(path, tiny.TEXT)
