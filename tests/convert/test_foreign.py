"""Weights of other projects: the same numbers come out of their class and of ours, and every name goes both ways."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

import tiny
from videodit import backbone, models
from videodit.backbone import PRESETS, Cropped, DualTransformer, Transformer
from videodit.backbone.positions import frame_positions
from videodit.convert import names
from videodit.convert.foreign import SD3
from videodit.shapes import Size, Text, UserError

TINY = PRESETS["sd3-medium-tiny"]
SHAPES = {
    "sd3": TINY,
    "sd3.5-large": replace(TINY, normed=True),
    "sd3.5-medium": replace(TINY, normed=True, twice=2, places=Cropped(side=16, base=6)),
}
NOISY, TIMES = tiny.grid(2, 8, 1, 6, 10), torch.tensor([0.15, 0.8])
TEXT = Text(sequence=tiny.grid(2, 5, TINY.text, seed=1), pooled=tiny.grid(2, TINY.pooled, seed=2))


def close(one: Tensor, other: Tensor) -> None:
    """Within 1e-5 of the largest value."""
    assert (one - other).abs().max() <= 1e-5 * other.abs().max()


@pytest.fixture(params=SHAPES, scope="module")
def settings(request: pytest.FixtureRequest) -> Transformer:
    return SHAPES[request.param]


@pytest.fixture(scope="module")
def diffusers(settings: Transformer) -> SD3Transformer2DModel:
    """Their class with noise on every parameter."""
    torch.manual_seed(7)
    model = SD3Transformer2DModel.from_config(SD3.described(settings))
    assert isinstance(model, SD3Transformer2DModel)
    tiny.randomised(model)
    return model.eval()


@pytest.fixture(scope="module")
def network(settings: Transformer, diffusers: SD3Transformer2DModel) -> DualTransformer:
    weights, unused = names.ours(diffusers.state_dict(), SD3.pairs(settings))
    assert unused == ["pos_embed.pos_embed"]
    network = backbone.build(settings).eval()
    network.load_state_dict(weights)
    return network


def theirs(model: SD3Transformer2DModel) -> Tensor:
    return SD3.call(model, NOISY, TIMES, TEXT)


def test_settings_go_both_ways(settings: Transformer, diffusers: SD3Transformer2DModel) -> None:
    assert SD3.settings_of(dict(diffusers.config)) == settings


def test_the_output_is_theirs(network: DualTransformer, diffusers: SD3Transformer2DModel) -> None:
    with torch.no_grad():
        close(network(NOISY, TIMES, TEXT), theirs(diffusers))


def test_the_gradients_are_theirs(network: DualTransformer, diffusers: SD3Transformer2DModel, settings: Transformer) -> None:
    pull = tiny.grid(*NOISY.shape, seed=3)
    for model, out in ((network, network(NOISY, TIMES, TEXT)), (diffusers, theirs(diffusers))):
        model.zero_grad()
        (out * pull).sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    expected = {name: p.grad for name, p in diffusers.named_parameters() if p.grad is not None}
    found = names.theirs(gradients, SD3.pairs(settings))
    assert found.keys() == expected.keys()
    largest = max(value.abs().max() for value in expected.values())
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-5 * largest, name


def test_a_round_trip_gives_the_same_bits(network: DualTransformer, diffusers: SD3Transformer2DModel, settings: Transformer) -> None:
    there, here = names.theirs(network.state_dict(), SD3.pairs(settings)), network.state_dict()
    for name, value in there.items():
        assert torch.equal(value, diffusers.state_dict()[name]), name
    back, unused = names.ours(there, SD3.pairs(settings))
    assert unused == [] and back.keys() == here.keys() and all(torch.equal(back[name], here[name]) for name in here)


def test_the_table_of_places_is_theirs(diffusers: SD3Transformer2DModel, settings: Transformer) -> None:
    grid = Size(1, 3, 5)
    cropped = diffusers.pos_embed.cropped_pos_embed(2 * grid.rows, 2 * grid.columns)[0]
    torch.testing.assert_close(frame_positions(grid, settings.width, settings.places, like=cropped), cropped, rtol=0, atol=2e-6)


def test_a_frame_larger_than_the_table_is_said() -> None:
    with pytest.raises(UserError, match="12 rows and columns of tokens, not 13 x 2"):
        backbone.build(TINY)(tiny.grid(2, 8, 1, 26, 4), TIMES, TEXT)


@pytest.mark.parametrize(
    "change", [{"qk_norm": "layer_norm"}, {"dual_attention_layers": (1,)}, {"caption_projection_dim": 5}, {"out_channels": 9}]
)
def test_what_is_built_otherwise_is_said(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match=rf"{next(iter(change))} = .* is not read"):
        SD3.settings_of(SD3.described(TINY) | change)


def test_weights_that_are_missing_are_named(network: DualTransformer, settings: Transformer) -> None:
    there = names.theirs(network.state_dict(), SD3.pairs(settings))
    del there["transformer_blocks.1.attn.to_k.weight"]
    with pytest.raises(UserError, match=r"no transformer_blocks\.1\.attn\.to_k\.weight"):
        names.ours(there, SD3.pairs(settings))


def test_a_video_model_is_not_written_as_an_image_model() -> None:
    with pytest.raises(UserError, match="only image transformers"):
        SD3.described(replace(TINY, video=True))


def test_sd3_medium_has_the_parameters_of_theirs() -> None:
    with torch.device("meta"):
        ours, other = backbone.build(PRESETS["sd3-medium"]), SD3Transformer2DModel.from_config(SD3.described(PRESETS["sd3-medium"]))
    assert isinstance(other, SD3Transformer2DModel) and models.parameters(ours) == models.parameters(other) == 2_028_328_000
