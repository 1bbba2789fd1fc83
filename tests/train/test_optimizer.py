"""The learning rate is a function of the step, and decay is for matrices."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from videodit.shapes import UserError
from videodit.train.optimizer import Optimizer
from videodit.train.step import Run


def test_warm_up_then_a_cosine_down_to_a_twentieth() -> None:
    settings = Optimizer(learning_rate=2.0, warmup=10)
    rates = [settings.rate(step, 110) for step in range(111)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert max(rates) == 2.0 and all(one > two for one, two in pairwise(rates[10:]))
    assert rates[60] == pytest.approx(2 * (0.05 + 0.95 / 2))
    assert rates[110] == pytest.approx(0.1) == settings.rate(500, 110)


@pytest.mark.parametrize("wrong", [{"beta1": 1.0}, {"beta2": -0.1}, {"muon": 0.01, "learning_rate": 0.0}])
def test_what_cannot_be_is_said(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"optimizer\.{next(iter(wrong))}"):
        Optimizer(**wrong)


def test_a_seed_that_nothing_can_be_drawn_from_is_said() -> None:
    for seed in (-1, 2**32):
        with pytest.raises(UserError, match="use 0 to 4294967295"):
            Run(output=Path("run"), seed=seed)


def test_a_constant_rate() -> None:
    settings = Optimizer(learning_rate=2.0, warmup=4, schedule="constant")
    assert [settings.rate(step, 100) for step in (0, 1, 2, 3, 50, 99)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(("warmup", "steps"), [(0, 5), (50, 5), (5, 5), (0, 1)])
def test_short_runs_have_a_rate(schedule, warmup: int, steps: int) -> None:
    rates = [Optimizer(warmup=warmup, schedule=schedule).rate(step, steps) for step in range(steps)]
    assert all(0 < rate <= 1e-3 for rate in rates)


def test_matrices_decay_and_vectors_do_not() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    network[2].requires_grad_(False)
    with torch.no_grad():
        network[0].bias.fill_(1.0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    (optimizer,) = Optimizer(learning_rate=0.1, weight_decay=0.5).build(network)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    after = network.state_dict()
    torch.testing.assert_close(after["0.weight"], before["0.weight"] * (1 - 0.1 * 0.5))
    assert all(torch.equal(after[name], before[name]) for name in before if name != "0.weight")


def test_it_goes_down() -> None:
    network, optimizer = nn.Linear(4, 1), None
    (optimizer,) = Optimizer(learning_rate=0.05).build(network)
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(200):
        optimizer.zero_grad()
        loss = (network(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3


def test_muon_has_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4, bias=False)]))
    network[1][1].requires_grad_(False)
    adam, muon = Optimizer(learning_rate=1e-3, muon=3e-3).build(network)
    assert isinstance(adam, torch.optim.AdamW) and isinstance(muon, torch.optim.Muon)
    moved = {kind: {id(p) for group in kind.param_groups for p in group["params"]} for kind in (adam, muon)}
    assert moved[muon] == {id(network[1][0].weight)}
    assert moved[adam] == {id(network[0].weight), id(network[0].bias), id(network[1][0].bias)}
    assert {group["scale"] for group in adam.param_groups} == {1.0} and [group["scale"] for group in muon.param_groups] == [3.0]
    fresh = [network[1][0].weight, network[1][0].bias]
    for kind in Optimizer(learning_rate=1e-3, muon=3e-3, fresh=10.0).build(network, fresh):
        scales = {id(p): group["scale"] for group in kind.param_groups for p in group["params"]}
        usual = 3.0 if isinstance(kind, torch.optim.Muon) else 1.0
        assert scales == {one: pytest.approx(usual * (10 if one in map(id, fresh) else 1)) for one in scales}


def test_muon_without_a_matrix_for_it_is_refused() -> None:
    with pytest.raises(UserError, match=r"this network has none: set optimizer\.muon=0"):
        Optimizer(muon=3e-3).build(nn.Sequential(nn.Linear(3, 4), nn.ModuleList([nn.Conv2d(4, 4, 3)])))
