"""Training on files of one's own: from a folder with captions, a manifest, or labels, to a model that generates."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
import videodit
from videodit import models
from videodit.data import cuts, toybox, video
from videodit.data.item import Item
from videodit.data.item import digest as sources_digest
from videodit.data.rows import Rows
from videodit.data.sources import Files, Folder, Labelled, Manifest
from videodit.diffusion.tasks import Tasks
from videodit.shapes import Size, UserError
from videodit.train import pools, recipes
from videodit.train.backbone import BackboneRun, Joint, job
from videodit.train.latents import Batch, Latents
from videodit.train.step import train

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of another size, one of them short, and a picture, each with captions."""
    here = tmp_path_factory.mktemp("mine")
    for i, frames in enumerate((8, 20, 5)):
        clip = toybox.clip(7, i, Size(frames, 40, 48))
        video.write(here / f"{i}.mp4", clip.video, 8)
        (here / f"{i}.txt").write_text(f"{clip.caption}\nclip number {'abc'[i]}\n", encoding="utf-8")
    Image.fromarray(toybox.picture(7, 9, Size(1, 64, 40)).video[0]).save(here / "p.png")
    (here / "p.txt").write_text("a picture\n", encoding="utf-8")
    return here


def run(world: tiny.World, output: Path, kind: str = "video", **changes: object) -> BackboneRun:
    made = tiny.runs(world, output, steps=3)[kind]
    assert isinstance(made, BackboneRun)
    return replace(made, **changes)


def test_a_folder_becomes_clips_and_pictures_with_their_words(world: tiny.World, tmp_path: Path, folder: Path) -> None:
    settings = run(world, tmp_path, data=Folder(path=folder))
    found = Latents(settings, models.load_autoencoder(settings.autoencoder), None, "text").pools
    extents = [[tuple(one.shape) for one in tiny.latents(found[kind])] for kind in (True, False)]
    assert extents == [[(8, 2, 4, 4)] * 3, [(8, 1, 4, 4)]]  # 8 frames: 1, 2 and no clip
    assert [len(found[True].captions[i]) > 0 for i in range(6)] == [True] * 6 and found[True].whose == [(0, 1), (2, 3), (2, 3)]
    assert found[True].weights is not None and found[True].weights.tolist() == [1, 0.5, 0.5]
    assert found[False].captions == ["a picture"]


def test_it_trains_and_resumes_and_generates(world: tiny.World, tmp_path: Path, folder: Path) -> None:
    settings = run(world, tmp_path, data=Folder(path=folder), tasks=Tasks(none=1.0, first=1.0, prefix=1.0))
    whole = recipes.train(settings)
    halves = recipes.train(replace(settings, output=tmp_path / "again", steps=2)) + recipes.train(
        replace(settings, output=tmp_path / "again")
    )
    assert all(torch.isfinite(torch.tensor(figures["loss"])) for figures in whole)
    assert len(halves) == 3 and [figures["loss"] for figures in whole][:2] == [figures["loss"] for figures in halves][:2]
    model = videodit.load(settings.output / "model")
    assert model.generate("clip number a", given={0: np.zeros((32, 32, 3), np.uint8)}).shape == (*tiny.CLIP, 3)


def test_from_nothing_the_words_are_the_captions(world: tiny.World, tmp_path: Path, folder: Path) -> None:
    settings = run(world, tmp_path, "video from nothing", data=Folder(path=folder))
    recipes.train(settings)
    assert videodit.load(settings.output / "model").unknown_words("clip number a dinosaur") == ["dinosaur"]


def test_words_are_told_as_they_were_when_captions_have_changed(world: tiny.World, tmp_path: Path, folder: Path) -> None:
    mine = shutil.copytree(folder, tmp_path / "mine")
    settings = run(world, tmp_path, "video from nothing", data=Folder(path=mine), text=replace(tiny.TEXT, vocabulary=400))
    recipes.train(replace(settings, steps=1))
    before = models.load(settings.output / "model").text
    (mine / "1.txt").write_text("zebras gallop\n", encoding="utf-8")
    assert len(recipes.train(settings)) == 2
    after = models.load(settings.output / "model").text
    assert after.tokenize(["clip number a", "zebras"])[0].tolist() == before.tokenize(["clip number a", "zebras"])[0].tolist()
    with pytest.raises(UserError, match=r"tokenizer.json is not of these settings of text: set them as they were"):
        recipes.train(replace(settings, text=replace(settings.text, vocabulary=300)))
    anew = replace(settings, output=tmp_path / "anew", steps=1)
    anew.output.mkdir()
    (anew.output / "tokenizer.json").write_text("of a run that left no checkpoint")
    recipes.train(anew)
    assert videodit.load(anew.output / "model").unknown_words("zebras") == []


def test_labels_are_the_folders(world: tiny.World, tmp_path: Path, folder: Path) -> None:
    for name, i in (("walk", 0), ("run", 1)):
        (tmp_path / "labelled" / name).mkdir(parents=True)
        (tmp_path / "labelled" / name / "x.mp4").write_bytes((folder / f"{i}.mp4").read_bytes())
    source = Labelled(path=tmp_path / "labelled")
    settings = run(world, tmp_path, "video from nothing", data=source, preset="dit-xl-2-tiny", joint=Joint(video_probability=0.5))
    recipes.train(settings)
    model = videodit.load(settings.output / "model")
    assert model.takes == "label" and model.generate("walk", steps=1).shape == (*tiny.CLIP, 3)
    with pytest.raises(UserError, match="use one of run, walk"):
        model.generate("swim")
    with pytest.raises(UserError, match="names no labels"):
        recipes.train(replace(settings, data=Folder(path=folder), output=tmp_path / "none"))


def test_a_new_file_costs_its_own_encoding(world: tiny.World, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    rows = [{"path": str(folder / f"{i}.mp4"), "caption": "x"} for i in (0, 1)]
    listed = tmp_path / "mine" / "list.jsonl"
    listed.write_text("\n".join(map(json.dumps, rows[:1])), encoding="utf-8")
    settings = run(world, tmp_path, data=Manifest(path=listed), joint=Joint(video_probability=1.0))
    coder, encoded, plain = models.load_autoencoder(settings.autoencoder), [], pools._of_file
    monkeypatch.setattr(pools, "_of_file", lambda settings, item, *rest: (encoded.append(item.path.name), plain(settings, item, *rest))[1])
    for some, wanted in ((rows[:1], ["0.mp4"]), (rows[:1], []), (rows, ["1.mp4"])):
        listed.write_text("\n".join(map(json.dumps, some)), encoding="utf-8")
        encoded.clear()
        assert len(pools.pools(settings, coder, "text", [True])[True].latents) in (1, 3) and encoded == wanted


def test_weights_and_captions_are_drawn_as_often_as_they_say(tmp_path: Path) -> None:
    rows = Rows.one(tmp_path, {}, lambda: {"latents": torch.zeros(3, 1)})
    pool = pools.Pool(rows, ["a", "b", "c"], [(0,), (1, 2), (1, 2)], None, np.array([2.0, 1.0, 1.0]))
    rng = np.random.default_rng(0)
    drawn = pool.draw(rng, 4000, told=False)
    assert abs((drawn == 0).mean() - 0.5) < 0.03
    said = pool.said(rng, drawn)
    assert (said[drawn == 0] == 0).all() and set(said[drawn == 1]) == {1, 2} and abs((said[drawn > 0] == 1).mean() - 0.5) < 0.05


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("no caption", "0.mp4 has no caption: write one into 0.txt beside it"),
        ("too short", "There are no clips of 8 frames"),
        ("broken", "cannot be read as a video or picture"),
    ],
)
def test_what_cannot_be_trained_on_is_said(world: tiny.World, tmp_path: Path, folder: Path, what: str, match: str) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    if what == "too short":
        (mine / "2.mp4").write_bytes((folder / "2.mp4").read_bytes())
        (mine / "2.txt").write_text("x")
    else:
        (mine / "0.mp4").write_bytes((folder / "0.mp4").read_bytes() if what == "no caption" else b"\0" * 99)
        if what == "broken":
            (mine / "0.txt").write_text("x")
    with pytest.raises(UserError, match=match):
        job(run(world, tmp_path, data=Folder(path=mine), joint=Joint(video_probability=1.0)))


def test_a_run_goes_on_without_few_files_and_stops_at_more(
    world: tiny.World, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be read is listed with its reason, known by its bytes, and not tried again."""
    mine = tmp_path / "mine"
    mine.mkdir()
    for name, content in (("0", (folder / "0.mp4").read_bytes()), ("1", (folder / "1.mp4").read_bytes()), ("x", b"\0" * 99)):
        (mine / f"{name}.mp4").write_bytes(content)
        (mine / f"{name}.txt").write_text("x")
    settings = run(world, tmp_path, data=Folder(path=mine, budget=0.4), joint=Joint(video_probability=1.0))
    coder, tried, plain = models.load_autoencoder(settings.autoencoder), [], pools._of_file
    monkeypatch.setattr(pools, "_of_file", lambda settings, item, *rest: (tried.append(item.path.name), plain(settings, item, *rest))[1])
    for wanted in (["0.mp4", "1.mp4", "x.mp4"], []):
        tried.clear()
        assert len(pools.pools(settings, coder, "text", [True])[True].latents) == 3 and tried == wanted
    (lost,) = map(json.loads, (settings.output / "unreadable.jsonl").read_text().splitlines())
    assert lost["file"].endswith("x.mp4") and "begins like no format" in lost["reason"]
    with pytest.raises(UserError, match=r"1 of 3 files could not be used so far, more than data.budget=0.3 allows; .*unreadable.jsonl"):
        pools.pools(replace(settings, data=Folder(path=mine, budget=0.3)), coder, "text", [True])


def test_a_part_that_cannot_be_read_leaves_the_others_of_its_file(
    world: tiny.World, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same at every start, and what was encoded before is read whatever failed since."""
    listed, whole = tmp_path / "list.jsonl", cuts.look
    entries = [{"path": str(folder / "1.mp4"), "caption": "x", "start": start, "end": start + 1} for start in (0, 1)]
    listed.write_text("\n".join(map(json.dumps, entries)))
    settings = run(world, tmp_path, data=Manifest(path=listed, budget=1.0), joint=Joint(video_probability=1.0))
    coder = models.load_autoencoder(settings.autoencoder)

    def look(item: Item, files: Files) -> cuts.Look:
        if item.start == 1:
            raise video.Unreadable(item.path, "it is damaged there")
        return whole(item, files)

    monkeypatch.setattr(cuts, "look", look)
    for _ in range(2):
        assert len(pools.pools(settings, coder, "text", [True])[True].latents) == 1
    pools.Quarantine(pools.cache(settings) / "quarantine.jsonl", settings.data.seconds).add(  # type: ignore[union-attr]
        pools.Place(sources_digest(folder / "1.mp4"), 0, 1), folder / "1.mp4", "another size of it failed"
    )
    assert len(pools.pools(settings, coder, "text", [True])[True].latents) == 1
    listed.write_text(json.dumps(entries[1]))
    with pytest.raises(
        UserError, match=r"1 of 1 files in .*list.jsonl could not be used, as .*unreadable.jsonl says, and there are no clips"
    ):
        pools.pools(settings, coder, "text", [True])


def test_a_digest_in_a_list_is_held_to(world: tiny.World, tmp_path: Path, folder: Path) -> None:
    listed, right = tmp_path / "list.jsonl", sources_digest(folder / "0.mp4")
    for said, match in ((right, None), ("0" * 64, "its list says the digest 000000000000 and it has")):
        listed.write_text(json.dumps({"path": str(folder / "0.mp4"), "caption": "x", "digest": said}))
        settings = run(world, tmp_path, data=Manifest(path=listed), joint=Joint(video_probability=1.0))
        coder = models.load_autoencoder(settings.autoencoder)
        if match is None:
            assert len(pools.pools(settings, coder, "text", [True])[True].latents) == 1
        else:
            with pytest.raises(UserError, match=match):
                pools.pools(settings, coder, "text", [True])


@pytest.mark.parametrize("batch", [1, 8])
def test_a_step_that_is_not_finite_names_the_files(
    batch: int, world: tiny.World, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = run(world, tmp_path, data=Folder(path=folder), joint=Joint(video_probability=1.0), batch=batch, accumulate=2)
    made = job(settings)
    read = [made.batch(index).names for index in range(2)]
    every = {str(folder / f"{i}.mp4") for i in (0, 1)}  # the third is too short for a clip
    assert all(len(names) == batch and set(names) <= every for names in read)

    def loss(index: int, drawn: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        error, figures = made.loss(index, drawn)
        return (error * float("nan") if index == 1 else error), figures

    train(replace(settings, steps=1), replace(made, loss=loss))
    said = f"step 1, pass 1 ({', '.join(dict.fromkeys(read[1]))}), "
    assert said in capsys.readouterr().err and said in json.loads((settings.output / "log.jsonl").read_text())["fault"]


def test_pictures_and_scenes_have_names(world: tiny.World, tmp_path: Path, folder: Path) -> None:
    pictures = run(world, tmp_path, data=Folder(path=folder), joint=Joint(video_probability=0.0), batch=2)
    assert job(pictures).batch(0).names == (str(folder / "p.png"),) * 2
    along = Joint(video_probability=1.0, appended=1)
    names = job(run(world, tmp_path / "drawn", joint=along, batch=2)).batch(0).names
    assert [name.split()[0] for name in names] == ["clip"] * 2 + ["picture"] * 2
    assert all(0 <= int(name.split()[1]) < 12 for name in names)
