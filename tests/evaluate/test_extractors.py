"""Weights are believed by their digest alone, flow is what was done to the frames, and spoilt clips are seen."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import ndimage

from videodit.evaluate import extractors, motion
from videodit.evaluate.extractors import EXTRACTORS, Kind
from videodit.models import digest
from videodit.shapes import Size, UserError

_path = Path(__file__).parents[2] / "benchmarks" / "metrics.py"
_spec = importlib.util.spec_from_file_location("metrics", _path)
assert _spec and _spec.loader
metrics = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(metrics)


# --- Weights ---


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An extractor that needs weights, and few of them."""
    monkeypatch.setitem(EXTRACTORS, "small", Kind(build=lambda: torch.nn.Linear(3, 2), takes="nothing", where="a shop"))


def test_weights_are_believed_by_their_digest(small: None, tmp_path: Path):
    path = tmp_path / "small.safetensors"
    net = torch.nn.Linear(3, 2)
    save_file(dict(net.state_dict()), path)
    found = digest(path)
    with pytest.raises(UserError, match=rf"{found}, which is none known for small: say --sha256 {found}"):
        extractors.load("small", path)
    with pytest.raises(UserError, match="not the 00 of --sha256"):
        extractors.load("small", path, sha256="00")
    assert extractors.load("small", path, sha256=found.upper()).seen.digest == found
    with pytest.raises(UserError, match=r"needs its weights: name their file by --weights \(a shop\); nothing is fetched"):
        extractors.load("small")
    with pytest.raises(UserError, match="There is no file"):
        extractors.load("small", tmp_path / "absent.safetensors")


def test_pickles_are_opened_only_when_asked_for_and_only_as_tensors(small: None, tmp_path: Path):
    path = tmp_path / "small.pth"
    torch.save({"state_dict": torch.nn.Linear(3, 2).state_dict()}, path)
    with pytest.raises(UserError, match="--pickle"):
        extractors.load("small", path, sha256=digest(path))
    assert extractors.load("small", path, sha256=digest(path), pickled=True).seen.name == "small"
    torch.save(Path("x"), path)
    with pytest.raises(UserError, match="as tensors alone"):
        extractors.load("small", path, sha256=digest(path), pickled=True)
    torch.save({"weight": torch.zeros(2, 3)}, path)
    with pytest.raises(UserError, match="lacks bias"):
        extractors.load("small", path, sha256=digest(path), pickled=True)


def test_names_that_are_none_and_weights_for_what_takes_none(tmp_path: Path):
    with pytest.raises(UserError, match="no extractor 'vgg': use random-3d, flow"):
        extractors.load("vgg")
    with pytest.raises(UserError, match="takes no weights"):
        extractors.load("flow", tmp_path)
    for more in ({"sha256": "ab"}, {"pickled": True}):
        with pytest.raises(UserError, match="takes no weights"):
            extractors.load("random-3d", **more)


def test_random_weights_are_the_same_everywhere():
    assert extractors.load("random-3d").seen.digest == "393ea72a8a440d44f9b3eb5b40b28e7f772080674ad3d1deb4754d7d611cd9e2"


# --- Flow ---


def textured(rows: int = 48, columns: int = 64) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(3).standard_normal((rows + 32, columns + 32)), 2.0) / 0.3 + 0.5


@pytest.mark.parametrize(("right", "down"), [(0, 0), (1, 0), (0, -2), (3, 2), (-5, 4)])
def test_flow_is_how_far_a_picture_was_moved(right: int, down: int):
    whole = textured()
    frames = [whole[16 - y : 64 - y, 16 - x : 80 - x] for x, y in ((0, 0), (right, down))]
    one, other = (torch.from_numpy(frame.copy()).float()[None, None] for frame in frames)
    found = motion.flow(one, other)[0, :, 10:-10, 10:-10]
    middle = found.flatten(1).median(1).values
    assert (middle - torch.tensor([right, down])).abs().max() < 0.05 + 0.05 * max(abs(right), abs(down))


def test_what_is_still_or_empty_does_not_move():
    clips = torch.from_numpy(np.repeat(np.clip(textured()[None, None, ..., None] * 255, 0, 255), 5, 1).repeat(3, -1).astype(np.uint8))
    told = motion.described(torch.cat([clips, torch.full_like(clips, 90)]))
    assert told[:, : 3 * len(motion.NAMES)].abs().max() < 1e-3 and torch.equal(told[:, -1], torch.full((2,), 4.0))
    with pytest.raises(UserError, match="Motion needs 3 frames"):
        motion.described(clips[:, :2])


def test_a_clip_that_runs_backwards_has_the_opposite_ways():
    whole = textured()
    frames = [whole[16 - i : 64 - i, 16 + 2 * i : 80 + 2 * i] for i in range(5)]
    clip = torch.from_numpy(np.clip(np.stack(frames)[None, ..., None] * 255, 0, 255).repeat(3, -1).astype(np.uint8))
    told, back = motion.described(clip)[0], motion.described(clip.flip(1))[0]
    torch.testing.assert_close(told[:2], torch.tensor([-2.0, 1.0]) * 100 / 48, rtol=0, atol=0.3)
    torch.testing.assert_close(back[:2], -told[:2], rtol=0, atol=0.3)


# --- What is seen ---


@pytest.mark.usefixtures("unchecked")
def test_every_spoiling_is_seen_by_a_score_at_its_strongest():
    looks = {name: extractors.load(name) for name in ("random-3d", "flow")}
    strongest = {name: (spoil, strengths[-1:], unit) for name, (spoil, strengths, unit) in metrics.SPOILINGS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "SPOILINGS", strongest)
        table = metrics.measure(24, Size(8, 32, 32), looks, resamples=30)
    for name in strongest:
        assert any(row[name][0] > row["interval"][1] for row in table.values()), name
    for name in ("jitter", "freeze", "shuffle", "reversal"):
        assert table["flow"][name][0] > table["flow"]["interval"][1], name
