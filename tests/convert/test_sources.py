"""What strangers' folders and files hold is read as it is, and what is not a transformer of SD3 is said."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_sd3
from videodit.backbone import Cropped
from videodit.backbone.positions import frame_positions
from videodit.convert import files, pipeline, sources
from videodit.shapes import Size, UserError

TABLE = "pos_embed.pos_embed"
NAME = "diffusion_pytorch_model.safetensors"
PUBLISHED = replace(tiny_sd3.SETTINGS, width=128, heads=2, depth=2, places=Cropped(side=20))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_sd3.transformer().save_pretrained(tmp_path / "transformer")
    return tmp_path / "transformer"


def test_a_folder_in_several_files(folder: Path, tmp_path: Path) -> None:
    tiny_sd3.transformer().save_pretrained(tmp_path / "several", max_shard_size="60KB")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 1
    one, several = sources.read(folder), sources.read(tmp_path / "several")
    assert one.digest == several.digest and one.settings == several.settings


@pytest.mark.parametrize("index", [True, False])
def test_a_variant_in_several_files(index: bool, folder: Path, tmp_path: Path) -> None:
    several = tmp_path / "several"
    tiny_sd3.transformer().save_pretrained(several, max_shard_size="60KB", variant="fp16")
    assert len(list(several.glob("*.fp16-*.safetensors"))) > 1
    if not index:
        (several / f"{NAME}.index.fp16.json").unlink()
    assert sources.read(several).digest == sources.read(folder).digest


def test_a_variant_stands_in_where_it_is_alone(folder: Path) -> None:
    digest = sources.read(folder).digest
    (folder / NAME).rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    assert sources.read(folder).digest == digest


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_one_file_under_the_first_names(normed: bool, prefix: str, tmp_path: Path) -> None:
    settings = replace(PUBLISHED, normed=normed)
    weights = tiny_sd3.transformer(settings).state_dict()
    if normed:
        named = tiny_sd3.original(weights, settings.depth)
        for i, (part, norm) in ((i, x) for i in range(settings.depth) for x in (("x", "norm_{}"), ("context", "norm_added_{}"))):
            for x in "qk":
                there = f"transformer_blocks.{i}.attn.{norm.format(x)}.weight"
                named[f"joint_blocks.{i}.{part}_block.attn.ln_{x}.weight"] = weights[there]
    else:
        named = tiny_sd3.original(weights, settings.depth)
    others = ("first_stage_model.decoder.conv_in.weight", "first_stage_model.decoder.conv_in.bias", "text_encoders.clip_l.logit_scale")
    elsewhere = {name: torch.ones(3) for name in others} if prefix else {}
    save_file({f"{prefix}{name}": value.contiguous() for name, value in named.items()} | elsewhere, tmp_path / "sd3.safetensors")
    source = files.read(tmp_path / "sd3.safetensors")
    assert source.settings == settings
    assert source.unused == (["first_stage_model.* (2)", "text_encoders.* (1)"] if prefix else [])
    weights.pop(TABLE)
    assert source.weights.keys() == weights.keys() and all(torch.equal(source.weights[name], weights[name]) for name in weights)


def test_files_of_two_precisions_lose_nothing(folder: Path, tmp_path: Path) -> None:
    weights = {name: value.half() for name, value in load_file(folder / NAME).items()}
    large = {"proj_out.bias": load_file(folder / NAME)["proj_out.bias"] + 1e5, "pos_embed.proj.bias": weights.pop("pos_embed.proj.bias")}
    weights.pop("proj_out.bias")
    (folder / NAME).unlink()
    held = {f"part-{i}.safetensors": part for i, part in enumerate((weights, large))}
    for name, part in held.items():
        save_file(part, folder / name)
    named = {name: file for file, part in held.items() for name in part}
    (folder / f"{NAME}.index.json").write_text(json.dumps({"weight_map": named}))
    assert sources.read(folder).precision == torch.float32
    pipeline.to_video(folder, tmp_path / "video")
    pipeline.to_diffusers(tmp_path / "video", tmp_path / "back")
    after = sources.weights_in(tmp_path / "back")
    assert all(torch.equal(after[name].double(), value.double()) for name, value in (weights | large).items() if name != TABLE)


def test_names_that_say_nothing_are_listed(folder: Path) -> None:
    save_file(load_file(folder / NAME) | {"control.weight": torch.ones(2)}, folder / NAME)
    assert sources.read(folder).unused == ["control.weight"]


def test_one_file_lists_names_that_say_nothing_and_refuses_scales(tmp_path: Path) -> None:
    named = tiny_sd3.original(tiny_sd3.transformer(PUBLISHED).state_dict(), PUBLISHED.depth)
    for name, file in (("joint_blocks.0.control.weight", "more"), ("joint_blocks.0.x_block.attn.qkv.scale_weight", "scaled")):
        held = {key: value.contiguous() for key, value in named.items()} | {name: torch.ones(2)}
        save_file(held, tmp_path / f"{file}.safetensors")
    assert files.read(tmp_path / "more.safetensors").unused == ["joint_blocks.0.control.weight"]
    with pytest.raises(UserError, match=r"qkv.scale_weight\): give the file in half precision"):
        files.read(tmp_path / "scaled.safetensors")


def test_a_table_of_another_extent_is_said(tmp_path: Path) -> None:
    weights = tiny_sd3.transformer(PUBLISHED).state_dict()
    weights[TABLE] = weights[TABLE] * 0.5
    save_file({name: value.contiguous() for name, value in tiny_sd3.original(weights, 2).items()}, tmp_path / "sd3.safetensors")
    with pytest.raises(UserError, match="table of places"):
        files.read(tmp_path / "sd3.safetensors")


def _json(change: dict[str, object]) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | change))


def _without(name: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / NAME)
        weights.pop(name)
        save_file(weights, folder / NAME)

    return spoil


def _cast(precision: torch.dtype) -> Callable[[Path], object]:
    return lambda folder: save_file({name: value.to(precision) for name, value in load_file(folder / NAME).items()}, folder / NAME)


def _put(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / NAME)
        save_file(weights | {name: change(weights[name]).contiguous()}, folder / NAME)

    return spoil


def _other(folder: Path) -> None:
    save_file({"layers.0.weight": torch.ones(2)}, folder / NAME)


def _pickled(folder: Path) -> None:
    (folder / NAME).unlink()
    (folder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_json({"_class_name": "FluxTransformer2DModel"}), "holds a FluxTransformer2DModel"),
        (_json({"num_layers": 4}), "There is no transformer_blocks.2"),
        (_json({"in_channels": 12, "out_channels": 12}), "and should be"),
        (_json({"num_layers": "many"}), "config.json"),
        (_json({"num_layers": -1}), "depth takes 1 or more, not -1"),
        (_json({"num_attention_heads": 5, "caption_projection_dim": 120, "attention_head_dim": 24.0}), "does not describe"),
        (_json({"_class_name": ["a"]}), "holds a ['a']"),
        (_json({"sample_size": 0}), "a side of 1 or more"),
        (_json({"pos_embed_max_size": 0}), "a side of 1 or more"),
        (_json({"num_layers": 10**9}), "There is no transformer_blocks.2"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "cannot be read"),
        (_json({"quantization_config": {"load_in_8bit": True}}), "is quantised, says its config.json"),
        (_cast(torch.int8), "is in int8, a quantised number"),
        (_cast(torch.float8_e4m3fn), "is in float8_e4m3fn, a quantised number"),
        (_put("transformer_blocks.1.attn.to_q.weight", lambda x: x / 0), "to_q.weight holds what is no finite number"),
        (_put("transformer_blocks.0.attn.to_q.weight", lambda x: x[:5, :5]), "to_q.weight is [5, 5], and should be"),
        (_without("proj_out.bias"), "There is no proj_out.bias"),
        (_other, "There is no pos_embed.proj.weight"),
        (_pickled, "safe_serialization=True"),
        (lambda folder: (folder / NAME).write_bytes((folder / NAME).read_bytes()[:999]), "not a complete safetensors file"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "no JSON object"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / f"{NAME}.index.json").write_text('{"weight_map": {"a": "../x"}}'), "x is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(spoil: Callable[[Path], object], said: str, folder: Path) -> None:
    spoil(folder)
    with pytest.raises(UserError) as caught:
        sources.read(folder)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_of_ours_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "model.toml").touch()
    with pytest.raises(UserError, match="is a model of ours already"):
        sources.read(tmp_path)


def test_a_pipeline_of_another_kind_is_said(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(UserError, match="holds a FluxPipeline"):
        sources.read(tmp_path)


@pytest.mark.parametrize("content", [{"joint_blocks.0.x": torch.ones(1)}, {"a": torch.ones(1)}])
def test_a_file_of_something_else_is_said(content: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(content, tmp_path / "some.safetensors")
    with pytest.raises(UserError, match=r"lacks|holds no transformer of SD3"):
        files.read(tmp_path / "some.safetensors")
    with pytest.raises(UserError, match="does not exist"):
        sources.read(tmp_path / "none")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match="is a pickle, which can run code"):
        files.read(tmp_path / "old.ckpt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blocks.0.attn.qkv.weight": None}, "holds no transformer of DiT"),
        ({"blocks.0.attn.qkv.weight": None, "blocks.a.b": torch.zeros(1)}, "holds no transformer of DiT"),
        ({"x_embedder.proj.weight": torch.zeros(384, 4)}, "holds no transformer of DiT"),
        ({"pos_embed": torch.zeros(1, 16, 12)}, "holds no transformer of DiT"),
        ({"pos_embed": None}, "lacks 'pos_embed'"),
        ({}, "There is no t_embedder.mlp.0.weight"),
    ],
)  # fmt: skip
def test_a_pickle_of_something_else_is_said(change: dict[str, torch.Tensor | None], said: str, tmp_path: Path) -> None:
    places = frame_positions(Size(1, 4, 4), 384, Cropped(side=4, base=4), like=torch.zeros(()))[None]
    held = {"x_embedder.proj.weight": torch.zeros(384, 4, 2, 2), "x_embedder.proj.bias": torch.zeros(384), "pos_embed": places}
    held |= {"final_layer.linear.weight": torch.zeros(32, 384), "blocks.0.attn.qkv.weight": torch.zeros(1152, 384)}
    torch.save({name: value for name, value in (held | change).items() if value is not None}, tmp_path / "some.pt")
    with pytest.raises(UserError) as caught:
        files.read(tmp_path / "some.pt", pickled=True)
    assert said in str(caught.value) and "\n" not in str(caught.value)
