"""Weights of DiT's shape: the same numbers come out of diffusers' classes and of ours, and every name goes both ways."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DiTTransformer2DModel, LatteTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor

import tiny
from videodit import backbone, convert, models
from videodit.backbone import PRESETS, Cropped, DiT, SingleTransformer
from videodit.backbone.positions import frame_positions
from videodit.cli.main import main
from videodit.convert import files, names, pipeline, sources
from videodit.convert.foreign_dit import DIT, published
from videodit.convert.from_image import Layout
from videodit.shapes import Size, Text, UserError

TINY = replace(PRESETS["dit-xl-2-tiny"], eps=1e-5, reached=True, places=Cropped(side=4, base=4))
assert isinstance(TINY, DiT)
NOISY, TIMES = tiny.grid(2, 4, 1, 8, 8), torch.tensor([0.15, 0.8])
TEXT = Text(label=torch.tensor([3, 10]))


def close(one: Tensor, other: Tensor) -> None:
    """Within 1e-5 of the largest value."""
    assert (one - other).abs().max() <= 1e-5 * other.abs().max()


@pytest.fixture(scope="module", params=[True, False])
def settings(request: pytest.FixtureRequest) -> DiT:
    return replace(TINY, variance=request.param)


@pytest.fixture(scope="module")
def diffusers(settings: DiT) -> DiTTransformer2DModel:
    """Their class with noise on every parameter, and the embeddings of time and label alike in all blocks, as DiT's are."""
    torch.manual_seed(7)
    model = DiTTransformer2DModel.from_config(DIT.described(settings))
    assert isinstance(model, DiTTransformer2DModel)
    tiny.randomised(model)
    for block in model.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    return model.eval()


@pytest.fixture(scope="module")
def network(settings: DiT, diffusers: DiTTransformer2DModel) -> SingleTransformer:
    weights, unused = names.ours(diffusers.state_dict(), DIT.pairs(settings))
    assert unused == []
    network = backbone.build(settings).eval()
    network.load_state_dict(weights)
    return network


def test_settings_go_both_ways(settings: DiT, diffusers: DiTTransformer2DModel) -> None:
    assert DIT.settings_of(dict(diffusers.config)) == settings


@torch.no_grad()
def test_the_output_is_theirs(network: SingleTransformer, diffusers: DiTTransformer2DModel) -> None:
    close(network(NOISY, TIMES, TEXT), DIT.call(diffusers, NOISY, TIMES, TEXT))


def test_the_gradients_are_theirs(network: SingleTransformer, diffusers: DiTTransformer2DModel, settings: DiT) -> None:
    out = network(NOISY, TIMES, TEXT)
    pull = tiny.grid(*out.shape, seed=3)
    for model, found in ((network, out), (diffusers, DIT.call(diffusers, NOISY, TIMES, TEXT))):
        model.zero_grad()
        (found * pull).sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    expected = {name: p.grad for name, p in diffusers.named_parameters() if p.grad is not None}
    found = names.theirs(gradients, DIT.pairs(settings))
    assert found.keys() == expected.keys()
    largest = max(value.abs().max() for value in expected.values())
    for name, value in expected.items():
        told = name.partition(".emb.")[2]  # one of ours is a copy in every block of theirs
        whole = sum((other for at, other in expected.items() if told and at.endswith(f".emb.{told}")), torch.zeros(())) if told else value
        assert (found[name] - whole).abs().max() <= 1e-5 * largest, name


def test_a_round_trip_gives_the_same_bits(network: SingleTransformer, diffusers: DiTTransformer2DModel, settings: DiT) -> None:
    there = names.theirs(network.state_dict(), DIT.pairs(settings))
    assert there.keys() == diffusers.state_dict().keys()
    assert all(torch.equal(value, diffusers.state_dict()[name]) for name, value in there.items())


def test_embeddings_that_differ_between_blocks_are_said(diffusers: DiTTransformer2DModel, settings: DiT) -> None:
    weights = {name: value.clone() for name, value in diffusers.state_dict().items()}
    weights["transformer_blocks.2.norm1.emb.class_embedder.embedding_table.weight"] += 1
    with pytest.raises(UserError, match=r"transformer_blocks\.2.* differs from its copy in another block"):
        names.ours(weights, DIT.pairs(settings))


@torch.no_grad()
def test_converted_it_is_the_image_model_on_one_frame(network: SingleTransformer) -> None:
    video = convert.inflate(network).eval()
    assert video.settings.layout == "global" and video.settings.video
    close(video(NOISY, TIMES, TEXT), network(NOISY, TIMES, TEXT))
    assert models.parameters(video.blocks) == models.parameters(network.blocks)


@pytest.mark.parametrize("layout", ["global", "beside"])
def test_a_folder_goes_there_and_back(diffusers: DiTTransformer2DModel, tmp_path: Path, layout: Layout) -> None:
    diffusers.save_pretrained(tmp_path / "transformer")
    done = pipeline.to_video(tmp_path / "transformer", tmp_path / "video", layout=layout)
    assert done.proof is not None and done.proof.source == "DiTTransformer2DModel"
    assert (
        0 < done.proof.difference <= 1e-5 and (done.proof.blocks > 0) == (layout == "beside") and done.proof.output == 0 < done.proof.added
    )
    pipeline.to_diffusers(tmp_path / "video", tmp_path / "back")
    back = sources.weights_in(tmp_path / "back")
    assert all(torch.equal(back[name], value) for name, value in diffusers.state_dict().items())
    DiTTransformer2DModel.from_pretrained(tmp_path / "back", local_files_only=True)


@pytest.mark.parametrize("change", [{"norm_type": "layer_norm"}, {"out_channels": 5}, {"attention_bias": False}])
def test_what_is_built_otherwise_is_said(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match=rf"{next(iter(change))} = .* is not read"):
        DIT.settings_of(DIT.described(TINY) | change)


# --- Latte in diffusers: other modulations and head, the same blocks ---

LATTE = replace(TINY, layout="interleaved", depth=4, labels=0, text=12, eps=1e-6, reached=False, variance=False)
ENDS = ("weight", "bias")


def _latte() -> LatteTransformer3DModel:
    torch.manual_seed(3)
    model = LatteTransformer3DModel(
        num_attention_heads=LATTE.heads, attention_head_dim=LATTE.width // LATTE.heads, in_channels=LATTE.channels, sample_size=8,
        patch_size=2, num_layers=LATTE.depth // 2, cross_attention_dim=LATTE.width, attention_bias=True, video_length=3,
        norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6, activation_fn="gelu-approximate",
        caption_channels=LATTE.text,
    )  # fmt: skip
    tiny.randomised(model)
    return model.eval()


def _table() -> dict[str, tuple[str, ...]]:
    """Names of ours, and of what stands one above the other in theirs; modulations apart."""
    found: dict[str, tuple[str, ...]] = {"patches.proj": ("pos_embed.proj",)}
    for i in (0, 2):
        found[f"signal.time.{i}"] = (f"adaln_single.emb.timestep_embedder.linear_{i // 2 + 1}",)
        found[f"text.{i}"] = (f"caption_projection.linear_{i // 2 + 1}",)
    for i in range(LATTE.depth):
        ours, block = f"blocks.{i}", _block(i)
        found[f"{ours}.own.0.qkv"] = tuple(f"{block}.attn1.to_{x}" for x in "qkv")
        found[f"{ours}.own.0.out"] = (f"{block}.attn1.to_out.0",)
        found[f"{ours}.mlp.0"], found[f"{ours}.mlp.2"] = (f"{block}.ff.net.0.proj",), (f"{block}.ff.net.2",)
        if i % 2 == 0:
            found[f"{ours}.cross.query"] = (f"{block}.attn2.to_q",)
            found[f"{ours}.cross.both"] = (f"{block}.attn2.to_k", f"{block}.attn2.to_v")
            found[f"{ours}.cross.out"] = (f"{block}.attn2.to_out.0",)
    return found


def _block(i: int) -> str:
    return f"{('transformer_blocks', 'temporal_transformer_blocks')[i % 2]}.{i // 2}"


def _as_ours(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights or their gradients by our names, modulations apart."""
    found = {f"{ours}.{end}": torch.cat([theirs[f"{name}.{end}"] for name in others]) for ours, others in _table().items() for end in ENDS}
    return found | {"signal.time.0.weight": found["signal.time.0.weight"].roll(128, 1)}


def _network(latte: LatteTransformer3DModel) -> SingleTransformer:
    """One modulation for all blocks and a table in each is a modulation for each, whose biases hold the table."""
    network, theirs = backbone.build(LATTE).eval(), dict(latte.state_dict())
    found = network.state_dict() | _as_ours(theirs)
    for i in range(LATTE.depth):
        ours, table = f"blocks.{i}.modulation.linear", theirs[f"{_block(i)}.scale_shift_table"]
        found[f"{ours}.weight"] = theirs["adaln_single.linear.weight"]
        found[f"{ours}.bias"] = theirs["adaln_single.linear.bias"] + table.flatten()
    network.load_state_dict(found)
    return network


def test_what_latte_shares_is_theirs() -> None:
    """Tokens before the heads, and the gradients of the input and of every weight."""
    latte = _latte()
    network, seen = _network(latte), {}
    noisy = tiny.grid(2, 4, 3, 8, 8)
    words = tiny.grid(2, 5, LATTE.text, seed=8)
    for name, model in (("theirs", latte.norm_out), ("ours", network.norm)):
        model.register_forward_hook(lambda module, given, out, name=name: seen.update({name: given[0]}))
    leaves = [noisy.clone().requires_grad_() for _ in range(2)]
    with torch.enable_grad():
        latte(leaves[0], timestep=TIMES * 1000, encoder_hidden_states=words)
        network(leaves[1], TIMES, Text(sequence=words))
    theirs = seen["theirs"].reshape(2, -1, LATTE.width)
    close(seen["ours"], theirs)
    pull = tiny.grid(*theirs.shape, seed=3)
    for tokens in (theirs, seen["ours"]):
        (tokens * pull).sum().backward()
    assert leaves[0].grad is not None and leaves[1].grad is not None
    close(leaves[1].grad, leaves[0].grad)
    one, other = ({name: p.grad for name, p in model.named_parameters() if p.grad is not None} for model in (latte, network))
    expected = _as_ours(one)
    modulations = [[other.pop(f"blocks.{i}.modulation.linear.{end}") for i in range(LATTE.depth)] for end in ENDS]
    for end, parts in zip(ENDS, modulations, strict=True):
        expected[f"sum of {end}s"], other[f"sum of {end}s"] = one[f"adaln_single.linear.{end}"], torch.stack(parts).sum(0)
    for i, bias in enumerate(modulations[1]):
        expected[f"table {i}"], other[f"table {i}"] = one[f"{_block(i)}.scale_shift_table"].flatten(), bias
    assert other.keys() == expected.keys()
    largest = max(value.abs().max() for value in expected.values())
    for name, value in expected.items():
        assert (other[name] - value).abs().max() <= 1e-5 * largest, name


# --- The files that DiT and Latte were published in ---

SMALL = replace(TINY, width=384, heads=6, depth=2, eps=1e-6, reached=False)


def _published(settings: DiT, path: Path, *, inside: str | None = "ema") -> SingleTransformer:
    torch.manual_seed(1)
    network = backbone.build(settings).eval()
    tiny.randomised(network)
    weights = names.theirs(network.state_dict(), published(settings))
    weights["pos_embed"] = frame_positions(Size(1, 4, 4), settings.width, settings.places, like=torch.zeros(()))[None]
    if settings.layout == "interleaved":
        weights["temp_embed"] = torch.zeros(1, 16, settings.width)
    torch.save({inside: weights, "opt": {"step": 3}} if inside else weights, path)
    return network


@pytest.mark.parametrize("inside", ["ema", "model", None])
def test_a_published_dit_is_read_when_asked_for(inside: str | None, tmp_path: Path) -> None:
    network = _published(SMALL, tmp_path / "dit.pt", inside=inside)
    with pytest.raises(UserError, match="--pickle opens it so that only tensors are built"):
        files.read(tmp_path / "dit.pt")
    source = files.read(tmp_path / "dit.pt", pickled=True)
    assert source.settings == SMALL and source.unused == []
    assert all(torch.equal(source.ours().state_dict()[name], value) for name, value in network.state_dict().items())
    done = pipeline.to_video(tmp_path / "dit.pt", tmp_path / "video", pickled=True)
    assert done.proof is not None and done.proof.difference <= 1e-5 and done.proof.source == "DiT"


def test_a_published_latte_is_a_video_model_already(tmp_path: Path) -> None:
    settings = replace(SMALL, layout="interleaved", labels=0)
    network = _published(settings, tmp_path / "latte.pt")
    done = pipeline.to_video(tmp_path / "latte.pt", tmp_path / "video", pickled=True)
    assert done.proof is None and models.load_backbone(tmp_path / "video").settings == settings
    for change, said in (({"layout": "late"}, "--layout"), ({"layout": "global"}, "--layout"), ({"side": 32}, "--side")):
        with pytest.raises(UserError, match=f"sees time already, in the layout interleaved: leave {said} out"):
            pipeline.to_video(tmp_path / "latte.pt", tmp_path / "other", pickled=True, **change)
    again = models.load_backbone(tmp_path / "video").state_dict()
    assert all(torch.equal(again[name], value) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match="Diffusers has no such transformer"):
        pipeline.to_diffusers(tmp_path / "video", tmp_path / "back")


class Trap:
    """A pickle that would leave a trace if anything called it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trap.pt").write_bytes(pickle.dumps({"ema": Trap(tmp_path / "trace")}, protocol=2))
    with pytest.raises(UserError, match="cannot be read as tensors alone"):
        files.read(tmp_path / "trap.pt", pickled=True)
    assert not (tmp_path / "trace").exists()


PATCHES = "x_embedder.proj.weight"


@pytest.mark.parametrize(
    "content", [{"a": torch.ones(1)}, {"ema": {PATCHES: 3}}, torch.ones(2), {"ema": {PATCHES: torch.ones(384, 4, 2, 2)}}]
)
def test_a_pickle_of_something_else_is_said(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "some.pt")
    with pytest.raises(UserError, match=r"holds no transformer|lacks"):
        files.read(tmp_path / "some.pt", pickled=True)


def test_safetensors_are_no_pickle(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "some.safetensors")
    with pytest.raises(UserError, match="holds no transformer of SD3"):
        files.read(tmp_path / "some.safetensors", pickled=True)


@pytest.mark.parametrize("layout", ["late", "interleaved", "factorised", "split"])
def test_a_dit_becomes_one_of_lavitas_with_a_proof(
    layout: str, diffusers: DiTTransformer2DModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compared with diffusers' own class whose labels' embedding is zero."""
    diffusers.save_pretrained(tmp_path / "dit")
    assert main(["convert", str(tmp_path / "dit"), str(tmp_path / "out"), "--layout", layout]) == 0
    assert "with all blocks in space and no label, from DiTTransformer2DModel's" in capsys.readouterr().out
    proof = models.read(tmp_path / "out", models.BackboneFolder)[1].provenance.proof
    assert proof is not None and 0 < proof.difference <= 1e-5 and proof.output == 0
    assert (proof.blocks > 0) == (layout == "factorised") and proof.added == proof.blocks
    video = models.load_backbone(tmp_path / "out")
    assert video.settings.layout == layout and not video.settings.labels


def test_a_spoiled_lavita_is_not_proved(diffusers: DiTTransformer2DModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diffusers.save_pretrained(tmp_path / "dit")
    monkeypatch.setattr(pipeline, "inflate", lambda *given, **more: tiny.randomised(convert.inflate(*given, **more), 5))
    with pytest.raises(UserError, match="output with all blocks in space differs"):
        pipeline.to_video(tmp_path / "dit", tmp_path / "out", layout="interleaved")
    assert not (tmp_path / "out").exists()
