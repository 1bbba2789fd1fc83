"""What is seen of a run while it lasts: videos, figures of clips it does not learn, a page at the end; none of it decides a step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tiny
from videodit import config, models
from videodit.data import toybox, video
from videodit.data.labels import Labels
from videodit.data.rows import Rows
from videodit.data.sources import Folder, Labelled
from videodit.diffusion.noise import Prior
from videodit.diffusion.tasks import Tasks
from videodit.evaluate import report
from videodit.shapes import UserError
from videodit.train import looks, recipes
from videodit.train.backbone import BackboneRun, Joint
from videodit.train.looks import SEED, Held, Looks, by_time
from videodit.train.pools import Pool

pytestmark = pytest.mark.usefixtures("unchecked")


def run(world: tiny.World, folder: Path) -> BackboneRun:
    made = tiny.runs(world, folder, steps=4)["video"]
    assert isinstance(made, BackboneRun)
    return replace(made, joint=Joint(video_probability=0.75))


def test_a_run_whose_report_cannot_be_made_ends_all_the_same(
    world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "LARGEST", 5)
    plain = replace(run(world, tmp_path), steps=1)
    (plain.output / "samples").mkdir(parents=True)
    (plain.output / "samples" / "mine.mp4").write_bytes(bytes(10))
    assert len(recipes.train(plain)) == 1 and (plain.output / "model" / "model.toml").is_file()
    assert "There is no report: The videos take 0 MiB" in capsys.readouterr().err
    assert not (plain.output / "report.html").exists()


def test_a_run_that_is_looked_at_is_the_same_run(world: tiny.World, tmp_path: Path) -> None:
    plain = run(world, tmp_path)
    looks = Looks(every=2, clips=2, held=3)
    told = recipes.train(replace(plain, output=tmp_path / "told", looks=looks, track="tensorboard"))
    silent = recipes.train(replace(plain, output=tmp_path / "silent"))
    assert [figures["loss"] for figures in told] == [figures["loss"] for figures in silent]
    weights = [(tmp_path / name / "model" / "backbone.safetensors").read_bytes() for name in ("told", "silent")]
    assert weights[0] == weights[1]

    seen = [figures for figures in told if "held" in figures]
    assert len(seen) == 2 and seen[0]["held"] != seen[1]["held"], "the same clips by other weights"
    assert 0 < seen[0]["held"] < 20 and 0 < seen[0]["learnt"] < 20 and seen[0]["learnt"] != seen[0]["held"]
    assert {"judged [shape]", "judged [all]"} <= seen[0].keys()
    none = recipes.train(replace(plain, output=tmp_path / "none", looks=replace(looks, held=0, every=4)))
    assert "judged [all]" in none[-1] and not {"held", "learnt"} & none[-1].keys()
    folders = sorted((tmp_path / "told" / "samples").iterdir())
    assert [path.name for path in folders] == ["step-00000002", "step-00000004"]
    said = toybox.prompt(toybox.scene(SEED, 0, split="held-out"))
    frames, fps = video.read(folders[0] / f"01 {said}.mp4")
    assert frames.shape == (*plain.size, 3) and fps == plain.fps and len(list(folders[0].iterdir())) == 2

    page = (tmp_path / "told" / "report.html").read_text()
    assert page.count("<video") == 2 and "loss by t" in page and said in page
    accumulated = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator(
        str(tmp_path / "told" / "tensorboard")
    )
    accumulated.Reload()
    assert [event.step for event in accumulated.Scalars("loss")] == [1, 2, 3, 4]
    assert [event.value for event in accumulated.Scalars("held")] == pytest.approx([figures["held"] for figures in seen])


def test_a_run_on_files_is_measured_on_other_files(world: tiny.World, tmp_path: Path) -> None:
    for split, seed in (("learnt", 1), ("held", 2)):
        (tmp_path / split).mkdir()
        for i in range(2):
            clip = toybox.clip(seed, i, tiny.CLIP)
            video.write(tmp_path / split / f"{i}.mp4", clip.video, 8)
            (tmp_path / split / f"{i}.txt").write_text(f"{split} {clip.caption}")
    (tmp_path / "learnt" / "x.mp4").write_bytes(b"\0" * 99)
    (tmp_path / "learnt" / "x.txt").write_text("x")
    plain = replace(run(world, tmp_path), data=Folder(path=tmp_path / "learnt", budget=0.5), steps=1)
    looks = Looks(every=1, clips=2, held=8, data=Folder(path=tmp_path / "held"))
    (told,) = recipes.train(replace(plain, output=tmp_path / "a", looks=looks))
    assert told["held"] > 0 and told["learnt"] not in (0, told["held"]) and not any(name.startswith("judged") for name in told), (
        "nobody knows what is right there"
    )
    assert all(" held " in path.name for path in (tmp_path / "a" / "samples" / "step-00000001").iterdir())
    assert "x.mp4" in (tmp_path / "a" / "unreadable.jsonl").read_text(), "what is looked at leaves what is learnt from listed"
    (told,) = recipes.train(replace(plain, output=tmp_path / "c", looks=replace(looks, data=plain.data)))
    assert told["learnt"] == told["held"], "of the same files"
    (told,) = recipes.train(replace(plain, output=tmp_path / "b", looks=replace(looks, data=None, prompts=("a dog? / runs",))))
    assert "held" not in told
    assert [path.name for path in (tmp_path / "b" / "samples" / "step-00000001").iterdir()] == ["01 a dog  runs.mp4"]


def test_clips_with_labels_are_measured_with_them(world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.runs(world, tmp_path, steps=1)["video from nothing"]
    assert isinstance(made, BackboneRun)
    said: list[str] = []
    forward = Labels.forward
    monkeypatch.setattr(Labels, "forward", lambda labels, names: (said.extend(names), forward(labels, names))[1])
    recipes.train(replace(made, preset="dit-xl-2-tiny", text_dropout=1.0, looks=Looks(every=1, clips=1, held=2)))
    scenes = [toybox.clip(SEED, i, made.size, split="held-out").scene for i in range(2)]
    assert said[-4:-2] == [scene.things[0].motion for scene in scenes] and "" not in said[-2:]
    for name, file in (("walk", "a"), ("run", "b")):
        (tmp_path / file / name).mkdir(parents=True)
        video.write(tmp_path / file / name / "x.mp4", toybox.clip(7, 0, made.size).video, 8)
    other = replace(made, preset="dit-xl-2-tiny", data=Labelled(path=tmp_path / "a"), joint=Joint(video_probability=1.0))
    with pytest.raises(UserError, match="There is no label 'run': use one of walk"):
        recipes.train(replace(other, output=tmp_path / "other", looks=Looks(every=1, data=Labelled(path=tmp_path / "b"))))


def test_errors_by_time_share_out_their_mean() -> None:
    error, times = torch.rand(50), torch.rand(50, 3)
    found = by_time("loss", error, times)
    middle = times.mean(1)
    counts = {name: int(((middle >= float(name[8:12])) & (middle < float(name[13:17]))).sum()) for name in found}
    torch.testing.assert_close(sum(counts[name] * value for name, value in found.items()) / 50, error.mean())
    assert list(by_time("loss", error, torch.full((50,), 0.3))) == ["loss [t 0.25-0.50]"]


def test_the_log_says_what_was_seen(world: tiny.World, tmp_path: Path) -> None:
    made = replace(run(world, tmp_path), output=tmp_path / "a", steps=2, looks=Looks(every=2, clips=1, held=1))
    recipes.train(made)
    lines = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert "held" not in lines[0] and "held" in lines[1] and lines[0]["tokens"] > 0 < lines[0]["operations"]
    assert made.digest == replace(made, looks=Looks()).digest, "a run may be looked at otherwise when it is taken up"


def test_looks_that_would_not_be_heard_are_refused(world: tiny.World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"leave looks.data out, which is for a run on files"):
        BackboneRun(output=tmp_path, autoencoder=tmp_path, looks=Looks(data=Folder(path=tmp_path)))
    with pytest.raises(UserError, match=r'looks.data.kind takes one of "folder"'):
        config.parse(BackboneRun, "", [f"output={tmp_path}", f"autoencoder={tmp_path}", "looks.data.kind=toybox"])
    told = BackboneRun(output=tmp_path, autoencoder=tmp_path, looks=Looks(every=1, prompts=("a dog",)))
    for takes, said in (("label", "told labels"), ("nothing", "told nothing")):
        with pytest.raises(UserError, match=f"looks.prompts are words, and this model is {said}"):
            looks.held(told, models.load_autoencoder(world.autoencoder), takes)


def test_looks_that_make_no_sense_are_refused() -> None:
    for wrong in ({"every": -1}, {"clips": 0}, {"held": -1}):
        with pytest.raises(UserError, match="looks takes"):
            Looks(**wrong)


@pytest.mark.parametrize("told", [{"lone": "channels"}, {"sight": Path("clip")}])
def test_a_run_that_is_told_of_pictures_may_be_looked_at_by_files(
    told: dict[str, Any], world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the clips that it is looked at by nothing is given, whatever is of those that it learns."""
    read: list[BackboneRun] = []
    pool = SimpleNamespace(captions=["x"], whose=[(0,)], latents=[None], together=lambda which: torch.zeros(len(which)))
    monkeypatch.setattr(looks, "pools", lambda settings, coder, takes, kinds, **_: (read.append(settings), {kinds[0]: pool})[1])
    other = Looks(every=1, data=Folder(path=tmp_path))
    made = BackboneRun(output=tmp_path, autoencoder=tmp_path, data=Folder(path=tmp_path), looks=other, tasks=Tasks(first=1.0), **told)
    assert looks.held(made, models.load_autoencoder(world.autoencoder), "text").said == ["x"] and not read[0].tasks.gives


def test_what_is_not_learnt_is_noised_as_what_is(world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, model, seen = run(world, tmp_path), models.load(world.video_model), []

    def network(noisy: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(noisy.flatten(3))
        return noisy

    monkeypatch.setattr(model.backbone, "forward", network)
    for prior in (Prior(), Prior(kind="shared", share=0.9)):
        looks.missed(replace(settings, prior=prior), model, "held", Held(torch.zeros(4, 4, 3, 16, 16), ["red"] * 4))
    alone, shared = (torch.cosine_similarity(noisy[:, :, 0], noisy[:, :, 1], dim=-1).mean() for noisy in seen)
    assert abs(alone) < 0.1 and shared > 0.8


def test_clips_that_are_learnt_are_measured_where_clips_are_held(tmp_path: Path) -> None:
    """Also where pictures stand before them, each of its own extent."""
    shapes = [(8, 1, 4, 4), (8, 1, 2, 4), (8, 2, 4, 4), (8, 1, 4, 4), (8, 2, 2, 2), (8, 2, 4, 4)]
    rows = Rows(tmp_path, lambda entry: None)
    for i, shape in enumerate(shapes):
        rows.add({"clip": i}, lambda i=i, shape=shape: {"latents": torch.full((1, *shape), float(i))})
    pool = Pool(rows, list("abcdef"))
    for share, which in ((0.5, "cf"), (0.0, "ad")):
        settings: Any = SimpleNamespace(looks=Looks(held=3), joint=Joint(video_probability=share))
        assert looks.learnt(settings, pool).said == list(which)
