"""The average follows the weights by its formula, and gives way and comes back without a trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from videodit.train.average import Average


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    layers[1].requires_grad_(False)
    return layers


def test_it_follows_by_its_formula() -> None:
    layers, decay = network(), 0.8
    average = Average(layers, decay)
    wanted = layers[0].weight.detach().clone()
    for step in range(60):
        with torch.no_grad():
            layers[0].weight.normal_(generator=torch.Generator().manual_seed(step))
        keep = min(decay, (1 + step) / (10 + step))
        wanted = keep * wanted + (1 - keep) * layers[0].weight.detach()
        average.update(layers, step)
        torch.testing.assert_close(average.weights["0.weight"], wanted)


def test_weights_that_stand_still_are_their_own_average() -> None:
    layers = network()
    average = Average(layers, 0.99)
    for step in range(5):
        average.update(layers, step)
    assert torch.equal(average.weights["0.weight"], layers[0].weight)


def test_the_start_does_not_linger() -> None:
    layers = network()
    average = Average(layers, 0.9999)
    with torch.no_grad():
        layers[0].weight.fill_(1.0)
    for step in range(100):
        average.update(layers, step)
    assert average.weights["0.weight"].sub(1).abs().max() < 1e-6


def test_only_what_is_trained_is_averaged() -> None:
    assert Average(network(), 0.9).weights.keys() == {"0.weight", "0.bias"}


def test_it_is_put_in_and_taken_out() -> None:
    layers = network()
    average = Average(layers, 0.9)
    with torch.no_grad():
        layers[0].weight += 1
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    replaced = average.apply(layers)
    assert torch.equal(layers[0].weight, average.weights["0.weight"])
    assert layers[0].weight is not average.weights["0.weight"] and replaced.keys() == average.weights.keys()
    layers.load_state_dict(replaced, strict=False)
    assert all(torch.equal(value, before[name]) for name, value in layers.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_is_kept_in_fp32(dtype: torch.dtype) -> None:
    layers = network().to(dtype)
    average = Average(layers, 0.9)
    average.update(layers, 0)
    assert {weight.dtype for weight in average.weights.values()} == {torch.float32}
