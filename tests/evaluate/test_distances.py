"""Distances of Gaussians are what formulas say, those of features are torchmetrics' and SciPy's, and parts together are the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

import tiny
from videodit.evaluate.features import Features
from videodit.evaluate.frechet import Moments, frechet, frechet_of_rows
from videodit.evaluate.inception import Answers
from videodit.evaluate.kernel import Subsets, discrepancy, kernel_distance
from videodit.shapes import UserError

pytestmark = pytest.mark.filterwarnings("ignore:Metric `:UserWarning")  # torchmetrics keeps all features


class Flat(nn.Module):
    """A feature module for torchmetrics: linear in the pixels."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.num_features = width
        self.layer = nn.Linear(3 * 8 * 8, width, dtype=torch.float64)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layer(pictures.double().flatten(1))


def exactly(mean: Tensor, covariance: Tensor) -> Moments:
    return Moments(count=101, mean=mean.double(), scatter=100 * covariance.double())


def mixed(count: int, width: int, seed: int) -> Tensor:
    mixing = tiny.grid(width, width, seed=seed) + 0.5 * torch.eye(width)
    return tiny.grid(count, width, seed=seed + 100) @ mixing + seed


# --- Frechet ---


def test_the_distance_of_gaussians_is_analytic():
    zero, one = torch.zeros(3), torch.ones(3)
    assert frechet(exactly(zero, torch.eye(3)), exactly(2 * one, torch.eye(3))) == pytest.approx(12, abs=1e-12)
    a, b = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 4.0, 1.0])
    assert frechet(exactly(zero, a.diag()), exactly(zero, b.diag())) == pytest.approx(1 + 0 + 4, abs=1e-12)
    turn = torch.linalg.qr(tiny.grid(3, 3).double())[0]
    turned = [turn @ x.double().diag() @ turn.T for x in (a, b)]
    assert frechet(exactly(zero, turned[0]), exactly(zero, turned[1])) == pytest.approx(5, abs=1e-10)


def test_singular_covariances_are_like_any_others():
    zero = torch.zeros(4)
    line, other = torch.tensor([1.0, 0, 0, 0]).diag(), torch.tensor([0, 0, 9.0, 0]).diag()
    assert frechet(exactly(zero, line), exactly(zero, other)) == pytest.approx(1 + 9, abs=1e-12)
    assert frechet(exactly(zero, 4 * line), exactly(zero, line)) == pytest.approx(1, abs=1e-12)
    assert frechet(exactly(zero, 0 * line), exactly(zero, line)) == pytest.approx(1, abs=1e-12)
    few, others = mixed(9, 40, 1), mixed(11, 40, 2)
    assert frechet_of_rows(few, others) == pytest.approx(frechet(Moments.of(few), Moments.of(others)), abs=1e-4)
    assert abs(frechet_of_rows(few, few)) < 1e-9


def test_the_frechet_distance_is_scipys_and_torchmetrics():
    pictures = [torch.from_numpy(np.random.default_rng(i).integers(0, 256 - 50 * i, (60, 3, 8, 8), dtype=np.uint8)) for i in (0, 1)]
    torch.manual_seed(0)
    net = Flat()
    theirs = FrechetInceptionDistance(feature=net).double()
    theirs.set_dtype(torch.float64)
    theirs.update(pictures[0], real=True)
    theirs.update(pictures[1], real=False)
    with torch.no_grad():
        one, other = (Moments.of(net(part)) for part in pictures)
    ours = frechet(one, other)
    assert ours == pytest.approx(theirs.compute().item(), rel=1e-6, abs=1e-4)
    root = linalg.sqrtm((one.covariance @ other.covariance).numpy())
    closed = (one.mean - other.mean).square().sum() + one.covariance.trace() + other.covariance.trace() - 2 * np.trace(root).real
    assert ours == pytest.approx(closed.item(), abs=1e-4)


def test_moments_of_parts_together_are_those_of_the_whole_far_from_zero_too():
    rows = mixed(50, 6, 1).double() + 1e6
    whole = Moments.of(rows)
    parts = Moments.of(rows[:7]) + Moments.none(6) + (Moments.of(rows[7:8]) + Moments.of(rows[8:]))
    assert parts.count == 50
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(parts.covariance, torch.from_numpy(np.cov(rows.numpy().T)), rtol=1e-8, atol=1e-8)
    with pytest.raises(UserError, match="two clips at least"):
        _ = Moments.of(rows[:1]).covariance


# --- Kernel ---


def test_the_kernel_distance_is_torchmetrics_and_unbiased():
    one, other = mixed(40, 12, 1), mixed(40, 12, 2)

    class Given(nn.Module):
        num_features = 12

        def forward(self, rows: Tensor) -> Tensor:
            return rows

    theirs = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=40)
    theirs.update(one, real=True)
    theirs.update(other, real=False)
    ours = kernel_distance(one, other, Subsets(number=1, size=40))
    assert ours == pytest.approx(theirs.compute()[0].item(), rel=1e-4)
    assert ours == pytest.approx(discrepancy(one, other), rel=1e-12)
    same = [discrepancy(tiny.grid(30, 4, seed=2 * i), tiny.grid(30, 4, seed=2 * i + 1)) for i in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / len(same) ** 0.5 and min(same) < 0


def test_subsets_are_drawn_by_their_seed_and_never_too_large():
    one, other = mixed(40, 4, 1), mixed(30, 4, 2)
    draws = [kernel_distance(one, other, Subsets(number=3, size=10, seed=seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    with pytest.raises(UserError, match="Subsets of 31 cannot be drawn from 30"):
        kernel_distance(one, other, Subsets(number=3, size=31))


# --- Inception score ---


def test_the_inception_score_of_known_answers():
    sure = torch.eye(5).mul(1000).repeat(4, 1)
    everything = torch.arange(20)
    assert Answers.of(everything, sure, 1).score == pytest.approx(5, abs=1e-9)
    assert Answers.of(everything, torch.zeros(20, 5), 2).score == pytest.approx(1, abs=1e-12)
    assert Answers.of(everything, sure[:1].expand(20, 5), 4).score == pytest.approx(1, abs=1e-12)
    half = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log().repeat(10, 1)
    divergence = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    assert Answers.of(everything, half, 1).score == pytest.approx(np.exp(divergence), abs=1e-6)
    with pytest.raises(UserError, match="use fewer splits"):
        _ = Answers.of(everything[:3], sure[:3], 4).scores


def test_the_inception_score_is_torchmetrics():
    logits = 2 * tiny.grid(64, 10)

    class Given(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            return rows

    theirs = InceptionScore(feature=Given(), splits=1)
    theirs.update(logits)
    parts = Answers.of(torch.arange(20), logits[:20], 1) + Answers.of(torch.arange(20, 64), logits[20:], 1)
    with pytest.warns(UserWarning, match="degrees of freedom"):  # of the deviation over one split
        assert parts.score == pytest.approx(theirs.compute()[0].item(), rel=1e-5)


# --- Sets that go by ---


def seen(rows: Tensor, numbers: list[int], limit: int = 8) -> Features:
    chosen = torch.tensor(numbers)
    return Features.of(chosen, rows[chosen], rows[chosen].repeat(1, 1, 2), splits=3, limit=limit)


def test_parts_in_any_order_are_the_whole_and_the_sample_is_bounded(tmp_path: Path):
    rows = tiny.grid(30, 2, 5)
    whole = seen(rows, list(range(30)))
    ranks = [seen(rows, list(range(rank, 30, 3))) for rank in range(3)]
    together = ranks[2] + (ranks[0] + ranks[1])
    assert together.done == 30 and len(together.sample) == 8
    assert torch.equal(together.numbers, whole.numbers) and torch.equal(together.sample, whole.sample)
    assert torch.equal(whole.sample, rows[whole.numbers])
    torch.testing.assert_close(together.moments.scatter, whole.moments.scatter, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together.halves[0].mean, rows[::2].flatten(0, 1).mean(0).double(), rtol=1e-6, atol=1e-6)
    assert together.answers and whole.answers
    torch.testing.assert_close(together.answers.scores, whole.answers.scores, rtol=1e-12, atol=0)
    assert len(seen(rows, list(range(30)), limit=100).sample) == 30


def test_a_state_comes_back_to_the_bit_and_that_of_another_set_is_refused(tmp_path: Path):
    rows, what = tiny.grid(10, 1, 4), {"source": "a", "frames": 16}
    before = seen(rows, [0, 1, 2, 3])
    assert Features.load(tmp_path / "state.safetensors", what) is None
    before.save(tmp_path / "state.safetensors", what)
    back = Features.load(tmp_path / "state.safetensors", what)
    assert back is not None
    resumed, straight = (part + seen(rows, [4, 5, 6, 7, 8, 9]) for part in (back, before))
    assert torch.equal(resumed.moments.scatter, straight.moments.scatter) and torch.equal(resumed.sample, straight.sample)
    assert resumed.done == 10
    with pytest.raises(UserError, match="frames differs"):
        Features.load(tmp_path / "state.safetensors", what | {"frames": 8})
    (tmp_path / "state.safetensors").write_bytes(b"no state")
    with pytest.raises(UserError, match="no state of a set"):
        Features.load(tmp_path / "state.safetensors", what)


def test_features_that_are_no_numbers_are_refused():
    with pytest.raises(UserError, match="no numbers"):
        Features.of(torch.tensor([0]), torch.full((1, 1, 3), float("nan")))
