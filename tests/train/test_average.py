"""The average follows the weights by its formula, and gives way and comes back without a trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import lives
from videodit.shapes import UserError
from videodit.train.average import Average
from videodit.train.step import Run, train


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


def test_several_follow_each_by_its_own_decay() -> None:
    layers = network()
    several, alone = Average(layers, 0.8, (0.3, 0.8)), {decay: Average(layers, decay) for decay in (0.8, 0.3)}
    for step in range(20):
        with torch.no_grad():
            layers[0].weight.normal_(generator=torch.Generator().manual_seed(step))
        for average in (several, *alone.values()):
            average.update(layers, step)
    assert several.weights.keys() == {"0.weight", "0.bias", "0.weight@0.3", "0.bias@0.3"}
    for decay, average in alone.items():
        several.apply(layers, decay)
        assert torch.equal(layers[0].weight, average.weights["0.weight"])
    assert not torch.equal(alone[0.8].weights["0.weight"], alone[0.3].weights["0.weight"])


def leaving(run: Run) -> dict[str, dict[str, torch.Tensor]]:
    """Train, and what stands in each model folder."""
    job = lives.job(run.output)
    left: dict[str, dict[str, torch.Tensor]] = {}

    def save(folder: Path) -> None:
        left[folder.name] = {name: value.clone() for name, value in job.network.state_dict().items()}

    train(run, replace(job, save=save))
    return left


def test_a_run_leaves_a_model_for_each_and_takes_all_up_again(tmp_path: Path) -> None:
    straight, broken = (replace(lives.settings(tmp_path / name, 4, 2), averages=(0.2,)) for name in ("straight", "broken"))
    steady = replace(straight.optimizer, schedule="constant")  # the same rate whatever the number of steps
    leaving(replace(broken, steps=2, optimizer=steady))
    wanted, found = leaving(replace(straight, optimizer=steady)), leaving(replace(broken, optimizer=steady))
    assert wanted.keys() == found.keys() == {"model", "model-0.2"}
    for name, weights in wanted.items():
        assert all(torch.equal(found[name][key], value) for key, value in weights.items())
    assert not torch.equal(wanted["model"]["0.weight"], wanted["model-0.2"]["0.weight"])
    with pytest.raises(UserError, match="was written with other averages: set them as they were"):
        leaving(replace(broken, steps=6, averages=(0.2, 0.5), optimizer=steady))
