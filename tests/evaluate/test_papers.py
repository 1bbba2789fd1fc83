"""What decides a claim is arithmetic, a row that has its line is not run again, and every row can be read."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from videodit import backbone, models
from videodit.data import toybox, video
from videodit.data.sources import Folder
from videodit.shapes import Size
from videodit.train import planning, starting
from videodit.train.backbone import BackboneRun

_path = Path(__file__).parents[2] / "benchmarks" / "papers.py"
_spec = importlib.util.spec_from_file_location("papers", _path)
assert _spec and _spec.loader
papers = importlib.util.module_from_spec(_spec)
sys.modules["papers"] = papers  # where dataclasses look for their module
sys.path.insert(0, str(_path.parent))
_spec.loader.exec_module(papers)
import papers_figures  # noqa: E402  where the module above finds it


@pytest.mark.parametrize(
    ("better", "worse", "more", "word"),
    [
        ([1.0, 1.1], [1.4, 1.5], False, "held"),
        ([1.4, 1.5], [1.0, 1.1], False, "not held"),
        ([1.0, 1.2], [1.1, 1.5], False, "not decided"),  # 0.2 apart, spread 0.22
        ([1.0, 1.1], [1.4, 1.5], True, "not held"),
        ([1.4, 1.5], [1.0, 1.1], True, "held"),
        ([1.0], [9.0], False, "not decided"),  # one seed has no spread
        ([], [9.0, 9.1], False, "not decided"),
        ([1.0, 1.0], [1.0, 1.0], False, "not decided"),
    ],
)
def test_the_rule(better: list[float], worse: list[float], more: bool, word: str) -> None:
    assert papers.decided(better, worse, more=more) == word


def test_the_spread_is_pooled() -> None:
    assert papers.pooled([0.0, 2.0], [5.0, 5.0]) == pytest.approx(1.0)  # variances 2 and 0
    edge = 2 * papers.pooled([0.0, 1.0], [0.0, 1.0])
    assert papers.decided([0.0, 1.0], [edge - 0.01, edge + 0.99]) == "not decided"
    assert papers.decided([0.0, 1.0], [edge + 0.01, edge + 1.01]) == "held"


def test_what_is_known_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Path] = []

    def train(settings: BackboneRun) -> None:
        trained.append(settings.output)
        (settings.output / "model").mkdir(parents=True)

    monkeypatch.setattr(papers.recipes, "train", train)
    monkeypatch.setattr(papers, "measured", lambda settings, also: ({"held": 1.0 + settings.seed}, [(1, 1.5), (2, 1.25)]))
    for _ in range(2):
        papers.finish("video", 1, tmp_path, papers.Results(tmp_path / "results.jsonl"))
    assert [path.name for path in trained] == ["image-1", "video-1"]
    shutil.rmtree(tmp_path / "image-1")
    for name in ("video", "video-2d"):  # the second needs what the first started from
        papers.finish(name, 1, tmp_path, papers.Results(tmp_path / "results.jsonl"))
    assert [path.name for path in trained[2:]] == ["image-1", "video-2d-1"]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3
    known = papers.Results(tmp_path / "results.jsonl")
    assert known.of("video", "held") == [2.0] and known.of("video-joint", "held") == []
    command = known.known["video", 1]["command"]
    assert command.startswith("videodit train runs/papers/video.toml") and f"start={tmp_path}/image-1/model" in command

    page = tmp_path / "papers.md"
    page.write_text(f"Before.\n\n{papers.MARKS[0]}\nold\n{papers.MARKS[1]}\n\nAfter.\n")
    papers.write(page, known)
    said = page.read_text()
    assert said.startswith("Before.") and said.endswith("After.\n") and "old" not in said
    assert said.count("| not run |") == len(papers.CLAIMS) - 1  # video against video-2d was
    assert json.loads((tmp_path / "papers" / "results.jsonl").read_text().splitlines()[0])["row"] == "image"
    assert "(papers/videodit.svg)" in said and "<svg" in (tmp_path / "papers" / "videodit.svg").read_text()
    assert papers.mean_curve("video", known) == [(1.0, 1.5), (2.0, 1.25)]

    for seed in (1, 2):
        known.add({"row": "video-2d", "seed": seed, "figures": {"held": 9.0 + seed}, "curve": [], "command": ""})
    known.add({"row": "video", "seed": 2, "figures": {"held": 3.0}, "curve": [], "command": ""})
    row = papers.page_row("table-5", papers.CLAIMS["table-5"], known)
    assert "| held |" in row and "video: held 2.5 ± 0.71" in row and "2 seeds" in row


def test_how_far_two_rows_are_apart_is_by_seed(tmp_path: Path) -> None:
    known = papers.Results(tmp_path / "results.jsonl")
    for row, seed, value in (("a", 1, 5.0), ("a", 0, 3.0), ("b", 2, 9.0), ("b", 1, 7.0), ("b", 0, 3.5)):
        known.add({"row": row, "seed": seed, "figures": {"frechet": value}, "curve": [], "command": ""})
    assert known.of("b", "frechet") == [3.5, 7.0, 9.0] and known.of("a to b", "frechet") == known.of("b to a", "frechet") == [0.5, 2.0]
    assert known.of("a to c", "frechet") == known.of("a to b", "held") == []


def test_clips_of_files_are_compared_with_clips_of_files(tmp_path: Path) -> None:
    """As many as training takes from them, every so many-th frame."""
    for seed in range(2):
        video.write(tmp_path / f"{seed}.webp", toybox.render(toybox.scene(seed, 0), Size(24, 32, 32)), 8)
    counts = [papers_figures.truth("random-3d", Size(8, 32, 32), Folder(path=tmp_path, every=every)).moments.count for every in (1, 3)]
    assert counts == [6, 2]


def test_claims_are_of_rows() -> None:
    for claim in papers.CLAIMS.values():
        assert {
            *claim.better[0].split(papers.APART),
            *claim.worse[0].split(papers.APART),
        } <= papers.ROWS.keys() and claim.better != claim.worse
    assert all(name in papers.ROWS or not name for row in papers.ROWS.values() for name in (row.start, row.autoencoder))


def test_rows_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their settings hold, and their transformers can be built."""
    monkeypatch.setattr(papers, "per_frame", lambda out: "toybox")
    shapes, sizes = {}, {}
    for name, row in papers.ROWS.items():
        settings, _ = papers.settled(name, 0, tmp_path)
        if row.run == "autoencoder":
            assert planning.plan(settings, whole=False)["trained"] > 0
            continue
        assert settings.steps == 0 or settings.joint.video_probability == 0 or settings.looks.every * 4 == settings.steps, name
        shapes[name], sizes[name] = starting.shape(settings, 4), settings.size
        if row.start:
            shapes[name] = starting.telling(
                starting.seen(models.ModelFolder(backbone=shapes[row.start], size=sizes[row.start]), settings), settings
            )
        with torch.device("meta"):
            assert backbone.build(shapes[name]).settings == shapes[name]
    assert shapes["untrained"] == shapes["video"] == replace(shapes["image"], video=True)
    assert shapes["video-2d"] == shapes["image"] and shapes["given-time"] != shapes["given-channels"]
    assert shapes["lavita-from-image"] == shapes["lavita-v2"] != shapes["lavita-rotary"]


def test_variants_are_of_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(papers, "per_frame", lambda out: "toybox")
    rows = (papers.settled(f"lavita-v{number}", 0, tmp_path)[0].backbone for number in (1, 2, 3, 4))
    with torch.device("meta"):
        counts = [sum(p.numel() for p in backbone.build(shape).parameters()) for shape in rows if shape]
    assert max(counts) < 1.03 * min(counts)


def test_independent_frames_are_the_image_model() -> None:
    """What Figure 2 is compared with: the same weights over each frame by itself."""
    network = tiny.transformer(layout="global", video=False)
    alone = backbone.build(replace(network.settings, layout="spatial")).eval()
    alone.load_state_dict(network.state_dict())
    noisy, t, text = tiny.grid(1, network.settings.channels, 3, 4, 4), torch.tensor([0.6]), tiny.text([3])
    frames = torch.cat([network(noisy[:, :, i : i + 1], t, text) for i in range(3)], dim=2)
    assert torch.allclose(alone(noisy, t, text), frames, atol=1e-5)
    assert not torch.allclose(network(noisy, t, text), frames, atol=1e-3)
