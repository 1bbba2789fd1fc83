"""What a picture shows: transformers' own output, from a folder of a tiny random CLIP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPVisionModelWithProjection

import tiny
from videodit.data import sight
from videodit.shapes import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sight(tmp_path_factory.mktemp("clip"))


@pytest.mark.parametrize("extent", [(24, 24), (32, 32), (40, 24), (17, 50)])
def test_it_is_what_transformers_says(folder: Path, extent: tuple[int, int]) -> None:
    pixels = torch.randint(256, (2, 3, *extent), generator=torch.Generator().manual_seed(0))
    theirs = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True).eval()
    processor = CLIPImageProcessor(size={"shortest_edge": 24}, crop_size=24)
    ours = sight.load(folder)(pixels / 127.5 - 1)
    with torch.no_grad():
        expected = theirs(processor(list(pixels.byte()), return_tensors="pt")["pixel_values"]).image_embeds
        exact = theirs(sight.fitted(pixels.float(), 24)).image_embeds
    torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))  # resized in their way
    assert ours.shape == (2, sight.width(folder)) == (2, tiny.SIGHT)


def test_the_half_of_a_whole_clip_is_read_too(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = CLIPModel(CLIPConfig(text_config=small, vision_config={**small, "image_size": 24, "patch_size": 8}, projection_dim=10)).eval()
    whole.save_pretrained(tmp_path)
    pictures = tiny.grid(2, 3, 24, 24).clamp(-1, 1)
    with torch.no_grad():
        pooled = whole.vision_model(pixel_values=sight.fitted((pictures + 1) * 127.5, 24)).pooler_output
        torch.testing.assert_close(sight.load(tmp_path)(pictures), whole.visual_projection(pooled), rtol=1e-5, atol=1e-5)


def test_what_is_saved_is_the_same_and_its_content_says_so(folder: Path, tmp_path: Path) -> None:
    first = sight.load(folder)
    first.save(tmp_path / "again")
    again, pictures = sight.load(tmp_path / "again"), tiny.grid(1, 3, 24, 24)
    assert torch.equal(first(pictures), again(pictures)) and first.content == again.content
    assert sight.load(tiny.sight(tmp_path / "other", seed=1)).content != first.content


def test_folders_that_hold_no_encoder_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder of CLIP's image encoder"):
        sight.load(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(UserError, match="does not describe CLIP's image encoder"):
        sight.width(tmp_path)
    described = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="holds no safetensors"):
        sight.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read as CLIP"):
        sight.load(tmp_path)
    deeper = {**described, "num_hidden_layers": 5}
    (tmp_path / "config.json").write_text(json.dumps(deeper))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"lacks .* of CLIP's image encoder"):
        sight.load(tmp_path)
