"""SD3 on disk, as diffusers saves it: tiny and random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

import tiny
from videodit.backbone import PRESETS, Transformer
from videodit.convert.foreign import SD3

WIDTH, POOLED = 32, 12 + 16
SETTINGS = replace(PRESETS["sd3-medium-tiny"], text=WIDTH, pooled=POOLED)


def text(folder: Path) -> Path:
    """The text half of a pipeline."""
    torch.manual_seed(5)
    letters = sorted(ByteLevel.alphabet())
    words = {word: i for i, word in enumerate([*letters, *(f"{x}</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"])}
    for ending, width, act in (("", 12, "quick_gelu"), ("_2", 16, "gelu")):
        config = CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=width,
            intermediate_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            projection_dim=width,
            hidden_act=act,
            bos_token_id=words["<|startoftext|>"],
            eos_token_id=words["<|endoftext|>"],
        )
        pad = {"pad_token": "!"} if ending else {}
        CLIPTokenizer(vocab=words, merges=[], model_max_length=77, **pad).save_pretrained(folder / f"tokenizer{ending}")
        CLIPTextModelWithProjection(config).save_pretrained(folder / f"text_encoder{ending}")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((x, -3.0) for x in "abcdefghijklmnopqrstuvwxyz")]
    T5Tokenizer(vocab=pieces, extra_ids=0).save_pretrained(folder / "tokenizer_3")
    config = T5Config(vocab_size=len(pieces), d_model=WIDTH, d_kv=8, d_ff=48, num_layers=2, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder / "text_encoder_3")
    return folder


def transformer(settings: Transformer = SETTINGS) -> SD3Transformer2DModel:
    """Diffusers' class with noise on every parameter."""
    torch.manual_seed(7)
    model = SD3Transformer2DModel.from_config(SD3.described(settings))
    assert isinstance(model, SD3Transformer2DModel)
    tiny.randomised(model)
    return model.eval()


def pipeline(folder: Path, precision: torch.dtype = torch.float32) -> Path:
    """A whole pipeline."""
    readers = text(folder / "text")
    parts: dict[str, object] = {}
    for ending, tokenizer, encoder in (
        ("", CLIPTokenizer, CLIPTextModelWithProjection),
        ("_2", CLIPTokenizer, CLIPTextModelWithProjection),
        ("_3", T5Tokenizer, T5EncoderModel),
    ):
        parts[f"tokenizer{ending}"] = tokenizer.from_pretrained(readers / f"tokenizer{ending}")
        parts[f"text_encoder{ending}"] = encoder.from_pretrained(readers / f"text_encoder{ending}")
    whole = StableDiffusion3Pipeline(transformer(), FlowMatchEulerDiscreteScheduler(shift=3.0), tiny.image_autoencoder(), **parts)
    whole.to(precision).save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def original(theirs: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The names that SD3 was first published under, from diffusers'."""
    clock, text = "time_text_embed.timestep_embedder.linear_", "time_text_embed.text_embedder.linear_"
    same = {
        "x_embedder.proj": "pos_embed.proj",
        "context_embedder": "context_embedder",
        "final_layer.linear": "proj_out",
        **{f"t_embedder.mlp.{i}": f"{clock}{i // 2 + 1}" for i in (0, 2)},
        **{f"y_embedder.mlp.{i}": f"{text}{i // 2 + 1}" for i in (0, 2)},
    }
    halves = {"final_layer.adaLN_modulation.1": "norm_out.linear"}
    thirds = {}
    for i in range(depth):
        ours, block = f"joint_blocks.{i}", f"transformer_blocks.{i}"
        same[f"{ours}.x_block.adaLN_modulation.1"] = f"{block}.norm1.linear"
        (halves if i == depth - 1 else same)[f"{ours}.context_block.adaLN_modulation.1"] = f"{block}.norm1_context.linear"
        thirds[f"{ours}.x_block.attn.qkv"] = [f"{block}.attn.to_{x}" for x in "qkv"]
        thirds[f"{ours}.context_block.attn.qkv"] = [f"{block}.attn.add_{x}_proj" for x in "qkv"]
        for part, out, feed in (("x", "attn.to_out.0", "ff"), ("context", "attn.to_add_out", "ff_context"))[: 1 if i == depth - 1 else 2]:
            same[f"{ours}.{part}_block.attn.proj"] = f"{block}.{out}"
            same[f"{ours}.{part}_block.mlp.fc1"], same[f"{ours}.{part}_block.mlp.fc2"] = (
                f"{block}.{feed}.net.0.proj",
                f"{block}.{feed}.net.2",
            )
    found = {"pos_embed": theirs["pos_embed.pos_embed"]}
    for end in ("weight", "bias"):
        found |= {f"{one}.{end}": theirs[f"{other}.{end}"] for one, other in same.items()}
        found |= {f"{one}.{end}": theirs[f"{other}.{end}"].roll(len(theirs[f"{other}.{end}"]) // 2, 0) for one, other in halves.items()}
        found |= {f"{one}.{end}": torch.cat([theirs[f"{other}.{end}"] for other in others]) for one, others in thirds.items()}
    return found
