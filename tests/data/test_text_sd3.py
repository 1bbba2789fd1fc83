"""SD3's text encoders: the same features as diffusers' own pipeline makes of the same folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

import tiny_sd3
from videodit.data.text_sd3 import SD3Text, SD3TextSettings
from videodit.shapes import UserError

CAPTIONS = ["a red circle moves right", "", "two things, one of them " + "very " * 40 + "large"]
WIDTH = tiny_sd3.WIDTH
SETTINGS = SD3TextSettings(width=WIDTH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd3.text(tmp_path_factory.mktemp("sd3"))


@pytest.fixture
def without_t5(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "two", ignore=shutil.ignore_patterns("*_3"))
    return tmp_path / "two"


def theirs(folder: Path, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """What `StableDiffusion3Pipeline` makes of captions."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    parts: dict[str, object] = {"text_encoder_3": None, "tokenizer_3": None}
    for ending in ("", "_2"):
        parts[f"tokenizer{ending}"] = CLIPTokenizer.from_pretrained(folder / f"tokenizer{ending}")
        parts[f"text_encoder{ending}"] = CLIPTextModelWithProjection.from_pretrained(folder / f"text_encoder{ending}")
    if (folder / "text_encoder_3").is_dir():
        parts["tokenizer_3"] = T5Tokenizer.from_pretrained(folder / "tokenizer_3")
        parts["text_encoder_3"] = T5EncoderModel.from_pretrained(folder / "text_encoder_3")
    transformer = SD3Transformer2DModel(
        num_layers=1, num_attention_heads=1, attention_head_dim=8, caption_projection_dim=8, joint_attention_dim=WIDTH
    )
    pipeline = StableDiffusion3Pipeline(transformer, FlowMatchEulerDiscreteScheduler(), AutoencoderKL(block_out_channels=(32,)), **parts)
    with torch.no_grad():
        sequence, _, pooled, _ = pipeline.encode_prompt(captions, captions, captions, device="cpu", do_classifier_free_guidance=False)
    return sequence, pooled


@pytest.mark.parametrize("t5", [True, False])
def test_features_are_the_pipelines(t5: bool, folder: Path, without_t5: Path) -> None:
    folder = folder if t5 else without_t5
    captions = CAPTIONS if t5 else CAPTIONS[:2]
    text = SD3Text.of_pipeline(folder, SETTINGS)(captions)
    sequence, pooled = theirs(folder, captions)
    assert text.sequence is not None and text.pooled is not None and text.mask is None
    assert text.sequence.shape == (len(captions), 77 + 256, WIDTH) and text.sequence[:, 77:].any() == t5
    torch.testing.assert_close(text.sequence, sequence, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(text.pooled, pooled, rtol=1e-5, atol=1e-5)


def test_encoders_are_frozen(folder: Path) -> None:
    encoders = SD3Text.of_pipeline(folder, SETTINGS)
    assert not encoders.training and not any(p.requires_grad for p in encoders.parameters())


def test_a_prompt_beyond_every_encoder_is_refused(folder: Path, without_t5: Path) -> None:
    with pytest.raises(UserError, match=r"'word word .* use at most 256"):
        SD3Text.of_pipeline(folder, SETTINGS)(["word " * 80])
    with pytest.raises(UserError, match="use at most 77"):
        SD3Text.of_pipeline(without_t5, SETTINGS)(["word " * 20])


def test_a_part_that_is_missing_is_said(without_t5: Path) -> None:
    shutil.rmtree(without_t5 / "tokenizer_2")
    with pytest.raises(UserError, match=r"tokenizer_2 is missing"):
        SD3Text.of_pipeline(without_t5, SETTINGS)


def test_a_pickle_is_not_read(without_t5: Path) -> None:
    weights = without_t5 / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(UserError, match="no safetensors"):
        SD3Text.of_pipeline(without_t5, SETTINGS)


def test_a_truncated_file_is_said(without_t5: Path) -> None:
    weights = without_t5 / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        SD3Text.of_pipeline(without_t5, SETTINGS)
