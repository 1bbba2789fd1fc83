"""Folders, manifests and labels become items, in one order, and mistakes in them are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import films
from videodit.data import cuts, video
from videodit.data.item import Item
from videodit.data.sources import Folder, Labelled, Manifest, items, labels
from videodit.shapes import Size, UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    for name in ("b.mp4", "a.png", "deep/c.webm", ".hidden.mp4", "notes.md"):
        (tmp_path / name).touch()
    (tmp_path / "b.txt").write_text("a dog runs\n\n a brown dog runs \n", encoding="utf-8")
    return tmp_path


def test_a_folder_with_captions_beside_its_files(folder: Path) -> None:
    found = items(Folder(path=folder))
    assert [item.path.relative_to(folder).as_posix() for item in found] == ["a.png", "b.mp4", "deep/c.webm"]
    assert [item.captions for item in found] == [(), ("a dog runs", "a brown dog runs"), ()]
    assert [item.moves for item in found] == [False, True, True]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_manifest_says_more(folder: Path, suffix: str) -> None:
    path = folder / f"list{suffix}"
    if suffix == ".jsonl":
        rows = [{"path": "b.mp4", "caption": ["x", "y"], "start": 1, "end": 2.5, "weight": 3}, {"path": "a.png", "label": "still"}]
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    else:
        path.write_text('path,caption,label,start,end,weight\nb.mp4,"x, y",,1,2.5,3\na.png,,still,,,\n', encoding="utf-8")
    said = ("x", "y") if suffix == ".jsonl" else ("x, y",)
    assert items(Manifest(path=path)) == [Item(folder / "a.png", label="still"), Item(folder / "b.mp4", said, "", 1.0, 2.5, 3.0)]


def test_folders_that_are_labels(folder: Path) -> None:
    (folder / "walk").mkdir()
    (folder / "walk" / "x.avi").touch()
    for loose in ("a.png", "b.mp4"):
        (folder / loose).unlink()
    source = Labelled(path=folder)
    assert labels(source) == ("deep", "walk") and [item.label for item in items(source)] == ["deep", "walk"]
    (folder / "y.mp4").touch()
    (folder / "z.mp4").touch()
    with pytest.raises(UserError, match=r"y.mp4 cannot be used \(it stands in no label's folder, such as .*\) and 1 more"):
        items(source)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("l.jsonl", '{"path": "gone.mp4"}', r"gone.mp4 cannot be used \(it is not there\): mend that, or take it out of .*l.jsonl"),
        ("l.jsonl", '{"path": "notes.md"}', "neither a video nor a picture"),
        ("l.jsonl", '{"path": "deep"}', "it is a broken link, a pipe, a folder or a device"),
        ("l.jsonl", '{"file": "a.png"}', "entry 1 of l.jsonl: file is no column; there are path, caption"),
        ("l.jsonl", '{"path": "a.png"}\n\n[1]', r"entry 2 of l.jsonl: \[1\] is no JSON object"),
        ("l.jsonl", "{", "entry 1 of l.jsonl: { is no JSON object"),
        ("l.jsonl", '{"caption": "x"}', "it has no path"),
        ("l.jsonl", '{"path": 3}', "it has no path"),
        ("l.jsonl", '{"path": "b.mp4", "caption": {"en": "x"}}', "caption takes a text or a list of texts"),
        ("l.jsonl", '{"path": "b.mp4", "caption": [1]}', "caption takes a text or a list of texts"),
        ("l.jsonl", '{"path": "b.mp4", "start": 3, "end": 2}', "0 <= start < end"),
        ("l.jsonl", '{"path": "b.mp4", "weight": 0}', "weight > 0"),
        ("l.jsonl", '{"path": "b.mp4", "start": NaN}', "start takes a number, not NaN"),
        ("l.jsonl", '{"path": "b.mp4", "end": Infinity}', "end takes a number, not Infinity"),
        ("l.jsonl", '{"path": "b.mp4", "end": [1]}', r"end takes a number, not \[1\]"),
        ("l.jsonl", r'{"path": "b.mp4", "caption": "\ud800"}', "half a character"),
        ("l.jsonl", '{"path": "https://x.org/b.mp4"}', "names an address: fetch the file, or pack it into shards"),
        ("l.csv", "path,start\nb.mp4,soon", 'entry 1 of l.csv: start takes a number, not "soon"'),
        ("l.csv", "path,caption\nb.mp4,a dog, running", "more cells than the head has columns"),
        ("l.jsonl", "[" * 100_000, "is no JSON object"),
        ("l.csv", "path\n" + "x" * 200_000, "a cell is longer than 131072 characters"),
        ("l.csv", "path,caption\n" + "a dog runs " * 30 + ",b.mp4\n", r"cannot be used \(it cannot be looked for: File name too long\)"),
        ("l.csv", 'path,caption\nb.mp4,"a dog\na.png,a cat\n', "entry 1 of l.csv: .* or its quotes do not end"),
        ("l.csv", "path,caption,caption\nb.mp4,a dog,a brown dog\n", "its head names a column twice"),
        ("l.jsonl", "", "There is no video or picture"),
        ("l.tsv", "", "is one file and no list by its name: name its folder"),
    ],
)
def test_mistakes_in_a_manifest_are_named(folder: Path, name: str, text: str, match: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=match):
        items(Manifest(path=folder / name))


def test_an_empty_folder_and_one_that_is_none_are_named(tmp_path: Path) -> None:
    for path, match in ((tmp_path, "There is no video or picture"), (tmp_path / "x", "is no folder")):
        with pytest.raises(UserError, match=match):
            items(Folder(path=path))
    with pytest.raises(UserError, match="is an address, and lists stand on this machine"):
        items(Manifest(path=Path("s3://bucket/l.jsonl")))


def test_clips_stay_within_shots_do_not_overlap_and_are_spread(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shots = [np.clip(base + rng.integers(0, 9, (n, 24, 48, 3)), 0, 255).astype(np.uint8) for base, n in ((20, 11), (200, 17))]
    frames = np.concatenate(shots)
    video.write(tmp_path / "a.webp", frames, 8)
    source = Folder(path=tmp_path)
    item = Item(tmp_path / "a.webp")
    found = cuts.cut(cuts.look(item, source), Size(4, 16, 16), source)
    assert (found.frames, found.shots, found.starts, found.used, found.dropped) == (28, 2, (0, 4, 11, 15, 19, 23), 24, 4)
    made = list(cuts.clips(item, found, Size(4, 16, 16), source))
    assert [clip.shape for clip in made] == [(4, 16, 16, 3)] * 6 and made[1].mean() < 60 < made[2].mean()
    few = cuts.cut(cuts.look(item, source), Size(4, 16, 16), Folder(path=tmp_path, most=2, every=2))
    assert few.starts == (0, 18) and few.used == 14
    part = item._replace(start=1.5, end=2.5)
    seen = cuts.look(part, source)
    (clip,) = cuts.clips(part, cuts.cut(seen, Size(8, 24, 48), source), Size(8, 24, 48), source)
    assert np.array_equal(clip, frames[12:20]) and seen.frames == 8


def test_a_folder_may_hold_folders_with_strange_names_and_no_pipes(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    (tmp_path / "a.mp4" / "b.mp4").write_bytes(b"")
    assert [item.path.name for item in items(Folder(path=tmp_path))] == ["b.mp4"]
    (tmp_path / ".Trash-1000").mkdir()
    (tmp_path / ".Trash-1000" / "d.mp4").touch()
    assert len(items(Folder(path=tmp_path))) == 1
    (tmp_path / "c.mp4").symlink_to(tmp_path / "gone.mp4")
    with pytest.raises(UserError, match=r"c\.mp4 cannot be used \(it is a broken link, a pipe, a folder or a device\)"):
        items(Folder(path=tmp_path))


def test_a_mark_before_a_text_is_no_part_of_it(tmp_path: Path) -> None:
    """Excel's "CSV UTF-8" and Notepad's "UTF-8 with BOM" begin with one."""
    for name, text in (
        ("a.txt", "one\ntwo\n"),
        ("l.csv", "path,caption\na.mp4,one\n"),
        ("l.jsonl", '{"path": "a.mp4", "caption": "one"}\n'),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert [item.captions for item in items(Folder(path=tmp_path))] == [("one", "two")]
    assert [item.captions for name in ("l.csv", "l.jsonl") for item in items(Manifest(path=tmp_path / name))] == [("one",), ("one",)]


def test_cells_of_a_table_keep_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "l.csv").write_text('path,caption\r\na.mp4,"a red\r\nball"\r\na.mp4,a red\u2028ball\r\n', encoding="utf-8", newline="")
    assert [item.captions for item in items(Manifest(path=tmp_path / "l.csv"))] == [("a red\nball", "a red\u2028ball")]


def test_a_caption_of_blanks_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "l.jsonl").write_text('{"path": "a.mp4", "caption": [" ", " a dog\\n", ""]}\n')
    (tmp_path / "l.csv").write_text('path,caption\na.mp4,"  "\n')
    assert [items(Manifest(path=tmp_path / name))[0].captions for name in ("l.jsonl", "l.csv")] == [("a dog",), ()]


def test_the_order_of_rows_does_not_depend_on_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    rows = [json.dumps({"path": "a.mp4", "digest": letter * 64}) for letter in "0123456789abcdef"]
    (tmp_path / "l.jsonl").write_text("\n".join(rows))
    assert [item.digest[0] for item in items(Manifest(path=tmp_path / "l.jsonl"))] == list("0123456789abcdef")


def test_linked_folders_are_gone_through_once(tmp_path: Path) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    for folder in (here / "own", other / "deep"):
        folder.mkdir(parents=True)
        (folder / "a.mp4").touch()
    for link, folder in (("also", other), ("both", other), ("again", here / "own"), ("own/up", here)):
        (here / link).symlink_to(folder)
    (other / "deep" / "round").symlink_to(other)
    assert [item.path.relative_to(here).as_posix() for item in items(Folder(path=here))] == ["also/deep/a.mp4", "own/a.mp4"]


def test_of_a_clip_only_its_own_frames_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = films.numbered(30)
    item, source = Item(films.film(tmp_path / "a.mp4", frames)), Folder(path=tmp_path, every=6)
    right = video.fitted(video.read(item)[0][0:25:6], 24, 24)
    monkeypatch.setattr(video, "MOST", 3 * frames[0].nbytes)
    (clip,) = cuts.clips(item, cuts.cut(cuts.look(item, source), Size(5, 24, 24), source), Size(5, 24, 24), source)
    assert np.array_equal(clip, right)


def test_rows_that_differ_in_their_caption_alone_are_one_item(tmp_path: Path) -> None:
    """Lists of captions have a row for each; a run takes a file's bytes once, so all but the first would be lost."""
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "l.csv").write_text("path,caption,start\na.mp4,one,\nb.mp4,other,\na.mp4,two,\na.mp4,two,\na.mp4,three,4\n")
    found = [(item.path.name, item.captions, item.start) for item in items(Manifest(path=tmp_path / "l.csv"))]
    assert found == [("a.mp4", ("one", "two"), 0.0), ("a.mp4", ("three",), 4.0), ("b.mp4", ("other",), 0.0)]


@pytest.mark.parametrize("changes", [{"every": 0}, {"most": 0}, {"budget": -1}, {"seconds": 0}, {"seconds": float("nan")}])
def test_numbers_that_no_file_can_be_read_by_are_said(tmp_path: Path, changes: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"take 1 or more|takes 0 to 1 and seconds a number above 0"):
        Folder(path=tmp_path, **changes)  # type: ignore[arg-type]
