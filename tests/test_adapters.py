"""LoRA: nothing at the start, peft's numbers and diffusers' numbers afterwards, in the files of both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny
from videodit import adapters, backbone, models
from videodit.adapters import CONFIG, DIFFUSERS, PEFT, LoRA
from videodit.backbone import PRESETS, DualTransformer
from videodit.convert import names
from videodit.convert.foreign import SD3
from videodit.convert.lora import Factors, renamed
from videodit.shapes import Text, UserError

TINY = PRESETS["sd3-medium-tiny"]
SHAPES = {"sd3": TINY, "sd3.5-medium": replace(TINY, normed=True, twice=2)}
EVERYTHING = LoRA(rank=3, alpha=6.0, names=("blocks.*", "signal.*", "modulation.*", "text", "out"))
NOISY, TIMES = tiny.grid(2, 8, 1, 6, 10), torch.tensor([0.15, 0.8])
TEXT = Text(sequence=tiny.grid(2, 5, TINY.text, seed=1), pooled=tiny.grid(2, TINY.pooled, seed=2))


def close(one: Tensor, other: Tensor) -> None:
    """Within 1e-5 of the largest value."""
    assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def made(shape: str = "sd3", seed: int = 0) -> DualTransformer:
    torch.manual_seed(0)
    network = backbone.build(SHAPES[shape])
    assert isinstance(network, DualTransformer)
    tiny.randomised(network, seed)
    return network.eval()


def learnt(network: DualTransformer, settings: LoRA = EVERYTHING) -> DualTransformer:
    """With changes that do something."""
    adapters.attach(network, settings)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_B." in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def out(network: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return network(NOISY, TIMES, TEXT)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    adapters.save(tmp_path / "lora", learnt(made()))
    return tmp_path / "lora"


def test_at_the_start_the_model_is_the_base() -> None:
    """What is added is zero to the bit; a product's last bit may follow from where in memory its numbers lie."""
    network = made()
    before = out(network)
    adapters.attach(network, EVERYTHING)
    close(out(network), before)
    assert all(not change.up.any() for change in adapters.factors(network).values())
    learning = [name for name, p in network.named_parameters() if p.requires_grad]
    assert learning and all(".lora_" in name for name in learning)


def test_a_pattern_names_layers() -> None:
    network = made()
    adapters.attach(network, LoRA(names=("blocks.*.video.qkv", "out")))
    assert set(adapters.factors(network)) == {"blocks.0.video.qkv", "blocks.1.video.qkv", "blocks.2.video.qkv", "out"}
    with pytest.raises(UserError, match=r"no linear layer is called 'to_q': they are called blocks"):
        adapters.attach(made(), LoRA(names=("to_q",)))


def test_merged_it_is_pefts_own_merging(saved: Path) -> None:
    """peft reads the folder, and merges to the same weights to the bit; the merged model says what the attached one says."""
    attached = learnt(made())
    theirs = PeftModel.from_pretrained(made(), str(saved)).merge_and_unload()  # pyright: ignore[reportArgumentType]
    ours = adapters.merged(attached)
    weights = ours.state_dict()
    assert theirs.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in theirs.state_dict().items())
    close(out(ours), out(attached))
    assert (out(ours) - out(made())).abs().max() > 0.01
    loaded = made()
    assert adapters.load(loaded, saved) == len(adapters.factors(attached))
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())


def test_what_peft_saved_is_read(tmp_path: Path) -> None:
    """With ranks and alphas by layer, and ranks that scale by their root."""
    described = LoraConfig(
        r=4,
        lora_alpha=8,
        use_rslora=True,
        target_modules=["video.qkv", "text.out"],
        rank_pattern={"video.qkv": 2},
        alpha_pattern={"text.out": 5},
    )
    theirs = PeftModel(made(), described)  # pyright: ignore[reportArgumentType]
    tiny.randomised(theirs, 3)
    theirs.save_pretrained(str(tmp_path))
    ours = made()
    with torch.no_grad():
        ours.load_state_dict(
            {n.replace("base_model.model.", "").replace(".base_layer", ""): p for n, p in theirs.named_parameters() if "lora_" not in n}
        )
    adapters.load(ours, tmp_path)
    close(out(ours), out(theirs.eval()))


@pytest.mark.parametrize("shape", SHAPES)
def test_diffusers_reads_what_was_saved(shape: str, tmp_path: Path) -> None:
    """Their class with the same weights and our file puts out what ours does; and our file comes back as it went."""
    attached = learnt(made(shape))
    adapters.save(tmp_path / "lora", attached)
    theirs = SD3Transformer2DModel.from_config(SD3.described(SHAPES[shape]))
    assert isinstance(theirs, SD3Transformer2DModel)
    theirs.load_state_dict(names.theirs(made(shape).state_dict(), SD3.pairs(SHAPES[shape])), strict=False)
    with torch.no_grad():
        close(SD3.call(theirs, NOISY, TIMES, TEXT), out(made(shape)))
        theirs.load_lora_adapter(load_file(tmp_path / "lora" / DIFFUSERS))
        close(SD3.call(theirs, NOISY, TIMES, TEXT), out(attached))
    back = made(shape)
    adapters.load(back, tmp_path / "lora" / DIFFUSERS)
    close(out(back), out(attached))


@pytest.mark.parametrize("shape", SHAPES)
def test_what_diffusers_saved_is_read(shape: str, tmp_path: Path) -> None:
    """Queries and values alone change, each with factors of its own."""
    theirs = SD3Transformer2DModel.from_config(SD3.described(SHAPES[shape]))
    assert isinstance(theirs, SD3Transformer2DModel)
    theirs.load_state_dict(names.theirs(made(shape).state_dict(), SD3.pairs(SHAPES[shape])), strict=False)
    theirs.add_adapter(LoraConfig(r=3, lora_alpha=5, target_modules=["to_q", "to_v", "add_k_proj", "norm1.linear", "norm_out.linear"]))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        expected = SD3.call(theirs.eval(), NOISY, TIMES, TEXT)
    theirs.save_lora_adapter(str(tmp_path))
    ours = made(shape)
    adapters.load(ours, tmp_path)
    close(out(ours), expected)
    assert (out(made(shape)) - expected).abs().max() > 0.01
    pipeline = tmp_path / "pipeline.safetensors"  # as a pipeline writes it, without saying of alpha: then each change counts once
    save_file({f"transformer.{name}": value for name, value in load_file(tmp_path / DIFFUSERS).items()}, pipeline)
    once, scaled = made(shape), made(shape)
    adapters.load(once, pipeline)
    adapters.load(scaled, tmp_path, scale=3 / 5)
    close(out(once), out(scaled))


def test_a_change_goes_both_ways_and_keeps_its_rank() -> None:
    settings = SHAPES["sd3.5-medium"]
    changes = adapters.factors(learnt(made("sd3.5-medium")))
    theirs = renamed(changes, SD3.pairs(settings))
    assert "transformer_blocks.0.attn.to_k" in theirs and "transformer_blocks.0.attn2.to_k" in theirs
    back = renamed(theirs, SD3.pairs(settings), back=True)
    assert back.keys() == changes.keys()
    for name, change in changes.items():
        assert torch.equal(back[name].change(), change.change()) or torch.allclose(back[name].change(), change.change(), atol=1e-6)
        twice = (name.startswith(("blocks.0", "blocks.1")) and "video.modulation" in name) or "second.modulation" in name
        assert len(back[name].down) == (2 if twice else 1) * len(change.down)  # one layer of theirs is two of ours
    with pytest.raises(UserError, match="change nowhere and 0 more layers that this transformer has not"):
        renamed({"nowhere": Factors(torch.ones(1, 2), torch.ones(2, 1))}, SD3.pairs(settings))


def test_a_scale_counts(saved: Path) -> None:
    none, half, base = made(), made(), made()
    adapters.load(none, saved, scale=0.0)
    assert torch.equal(out(none), out(base))
    adapters.load(half, saved, scale=0.5)
    adapters.load(half, saved, scale=0.5)
    close(out(half), out(adapters.merged(learnt(made()))))


def test_wrong_files_are_said(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There are no adapters in .*: give a folder with adapter_model.safetensors"):
        adapters.load(made(), tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds a pickle \(adapter_model.bin\)"):
        adapters.load(made(), tmp_path)
    other = backbone.build(replace(TINY, width=96))
    with pytest.raises(UserError, match=r"changes .* of \[.*\], which this transformer has not"):
        adapters.load(other, saved)
    with pytest.raises(UserError, match=r"which this transformer has not"):
        adapters.load(backbone.build(PRESETS["latte-xl-v2-tiny"]), saved)
    whole = (saved / PEFT).read_bytes()
    (saved / PEFT).write_bytes(whole[:-9])
    with pytest.raises(UserError, match="is not a complete safetensors file"):
        adapters.load(made(), saved)
    (saved / PEFT).write_bytes(whole)
    described = json.loads((saved / CONFIG).read_text())
    for change, said in (
        ({"peft_type": "LOHA"}, "describes LOHA"),
        ({"use_dora": True}, r"\(use_dora\)"),
        ({"lora_alpha": [1]}, "how often"),
        ({"bias": "all"}, r"\(bias\)"),
    ):
        (saved / CONFIG).write_text(json.dumps(described | change))
        with pytest.raises(UserError, match=said):
            adapters.load(made(), saved)
    save_file({"blocks.0.video.qkv.hada_w1": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="is no low-rank change of a linear layer"):
        adapters.load(made(), tmp_path / "other.safetensors")
    save_file({"blocks.0.video.qkv.lora_A.weight": torch.ones(2, 2)}, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match="holds not both factors of"):
        adapters.load(made(), tmp_path / "half.safetensors")


def test_a_transformer_that_diffusers_has_not_leaves_pefts_files_alone(tmp_path: Path) -> None:
    network = tiny.transformer()
    adapters.attach(network, LoRA(rank=2))
    adapters.save(tmp_path / "lora", network)
    assert sorted(path.name for path in (tmp_path / "lora").iterdir()) == [CONFIG, PEFT]
    assert models.parameters(network) > sum(p.numel() for p in network.parameters() if p.requires_grad) > 0


def test_layers_that_diffusers_has_not_are_left_in_pefts_file_alone(tmp_path: Path) -> None:
    network = backbone.build(replace(TINY, video=True))
    adapters.attach(network, LoRA(rank=2, names=("blocks.*.qkv", "video.out")))
    adapters.save(tmp_path / "lora", network)
    assert (tmp_path / "lora" / PEFT).is_file() and not (tmp_path / "lora" / DIFFUSERS).exists()
    assert "video.out" in adapters.read(tmp_path / "lora")


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"dropout": 1.0}, {"names": ()}])
def test_settings_that_cannot_be_are_said(wrong: dict) -> None:
    with pytest.raises(UserError, match="lora takes a rank of 1 or more"):
        LoRA(**wrong)
