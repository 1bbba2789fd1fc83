"""The audit: a row a file, a reason for each that is left out, and sums that agree."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import films
from videodit.cli.main import main
from videodit.data import audit, cuts, video
from videodit.data.buckets import Bucketed
from videodit.data.item import digest
from videodit.data.sources import Folder, Manifest, Shards, items
from videodit.shapes import Size

SIZE = Size(4, 16, 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    here, rng = tmp_path / "clips", np.random.default_rng(0)
    here.mkdir()

    def moving(frames: int, base: int) -> np.ndarray:
        return np.clip(base + rng.integers(0, 30, (frames, 24, 32, 3)), 0, 255).astype(np.uint8)

    clips = {
        "good": moving(10, 20),
        "cut": np.concatenate([moving(9, 10), moving(11, 200)]),
        "short": moving(3, 50),
        "still": np.full((9, 24, 32, 3), 77, np.uint8),
        "wordless": moving(8, 90),
    }
    for name, frames in clips.items():  # a .webp of equal frames is one picture
        video.write(here / f"{name}.{'mp4' if name == 'still' else 'webp'}", frames, 8)
    (here / "twin.webp").write_bytes((here / "good.webp").read_bytes())
    (here / "broken.mp4").write_bytes(b"nothing")
    Image.fromarray(moving(1, 30)[0]).save(here / "picture.png")
    for name in [*clips, "twin", "broken", "picture"]:
        if name != "wordless":
            (here / f"{name}.txt").write_text(f"a {name} thing")
    return here


def test_every_file_has_a_row_and_every_row_a_reason(folder: Path) -> None:
    source = Folder(path=folder)
    rows = list(audit.audited(items(source), SIZE, source, worded=True))
    why = {row.item.path.stem: row.why for row in rows}
    assert why == {
        "broken": "unreadable",
        "cut": "",
        "good": "",
        "picture": "",
        "short": "too short",
        "still": "static",
        "twin": "duplicate",
        "wordless": "no caption",
    }
    cut = next(row for row in rows if row.item.path.stem == "cut")
    assert (cut.frames, cut.shots, cut.clips, cut.used, cut.dropped, cut.spans) == (20, 2, 4, 16, 4, ((0, 9), (9, 20)))
    found = audit.totals(rows)
    assert found["files"] == 8 == found["good"] + sum(found[name] for name in why.values() if name)
    assert found["frames"] == found["used"] + found["dropped"] and found["clips"] == 4 + 2 + 1


def test_the_mended_list_holds_what_is_good_shot_by_shot(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "good.jsonl"
    options = [str(folder), "--frames", "4", "--size", "16x16", "--fix", str(listed)]
    assert main(["audit", *options, "--sheet", str(tmp_path / "sheet.png")]) == 0
    said = capsys.readouterr()
    assert "duplicate: the same as good.webp" in said.out and "data.kind=manifest" in said.err
    entries = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [entry["path"] for entry in entries] == ["clips/cut.webp", "clips/cut.webp", "clips/good.webp", "clips/picture.png"]
    assert entries[1]["start"] == pytest.approx(9 / 8) and entries[1]["end"] == pytest.approx(20 / 8)
    assert [entry.get("weight") for entry in entries] == [0.5, 0.5, None, None]  # a file counts as often as before
    assert main(["audit", str(listed), "--frames", "4", "--size", "16x16", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["totals"]["good"] == 4 == again["totals"]["files"] and [row["shots"] for row in again["files"]] == [1, 1, 1, 1]
    assert np.asarray(Image.open(tmp_path / "sheet.png")).shape == (3 * 18 - 2, 8 * 18 - 2, 3)
    assert len(items(Manifest(path=listed))) == 4


def test_of_equal_files_the_one_with_words_is_taken(folder: Path) -> None:
    (folder / "a.webp").write_bytes((folder / "good.webp").read_bytes())
    source = Folder(path=folder)
    rows = {row.item.path.stem: row.why for row in audit.audited(items(source), SIZE, source, worded=True)}
    assert (rows["a"], rows["good"], rows["twin"]) == ("no caption", "", "duplicate")


@pytest.mark.parametrize("what", ["--fix", "--sheet"])
def test_nothing_good_is_told_before_there_is_nothing_to_write(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    (folder / "picture.png").unlink()
    made = tmp_path / {"--fix": "good.jsonl", "--sheet": "sheet.png"}[what]
    for more in ([], ["--json"]):
        assert main(["audit", str(folder), "--frames", "99", "--size", "16x16", what, str(made), *more]) == 2
        said = capsys.readouterr()
        assert "too short" in said.out and "No file is good, so there is nothing to list or to show" in said.err and not made.exists()
    assert json.loads(said.out)["totals"]["good"] == 0


def test_what_is_small_moves_in_a_large_frame_and_what_is_still_does_not(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:480, :640]
    scene = (110 + 60 * np.sin(rows / 7) * np.sin(columns / 5))[..., None].repeat(3, 2).astype(np.uint8)
    frames = scene[None].repeat(24, 0)
    films.film(tmp_path / "still.mp4", frames, gop=12)
    for i, frame in enumerate(frames):
        frame[(rows - 240) ** 2 + (columns - 40 - 4 * i) ** 2 < 12**2] = 220
    films.film(tmp_path / "ball.mp4", frames)
    source = Folder(path=tmp_path)
    assert [cuts.still(item, cuts.look(item, source)) for item in items(source)] == [False, True]


def test_a_shot_too_short_for_a_clip_is_not_listed_and_times_are_those_of_whole_frames(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"path": "clips/cut.webp", "caption": "x", "start": 0.8125, "weight": 3}\n')  # frame 6.5 is 6
    source = Manifest(path=tmp_path / "list.jsonl")
    (row,) = audit.audited(items(source), SIZE, source, worded=True)
    assert row.spans == ((0, 3), (3, 14))
    (entry,) = map(json.loads, audit.fixed([row], tmp_path).splitlines())
    assert (entry["start"], entry["end"], entry["weight"]) == (9 / 8, 20 / 8, 3)


def test_who_has_no_caption_is_told_where_it_belongs(folder: Path, tmp_path: Path) -> None:
    (folder / "good.txt").write_text("\n")
    (tmp_path / "list.jsonl").write_text('{"path": "clips/cut.webp"}\n')
    for source, said in (
        (Manifest(path=tmp_path / "list.jsonl"), {"its entry has no caption"}),
        (Folder(path=folder), {"good.txt is empty", "wordless.txt is not there"}),
    ):
        assert {row.said for row in audit.audited(items(source), SIZE, source, worded=True) if row.why == "no caption"} == said


def test_a_bad_caption_or_entry_is_a_row_and_the_others_go_on(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "good.txt").write_bytes(b"\xff\xfe\x00")
    (folder / "picture.png").unlink()
    (folder / "picture.png").symlink_to("gone.png")
    assert main(["audit", str(folder), "--frames", "4", "--size", "16x16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    why = {Path(row["path"]).name: (row["why"], row["said"]) for row in found["files"]}
    assert why["good.webp"] == ("bad entry", "good.txt cannot be read: it is not UTF-8 text")
    assert why["picture.png"][0] == "bad entry" and why["twin.webp"][0] == "" and why["cut.webp"][0] == ""
    assert found["totals"]["files"] == 8 and found["totals"]["bad entry"] == 2
    lines = ['{"path": "clips/cut.webp", "caption": "x"}', "{", '{"path": "clips/cut.webp", "start": "soon"}', '{"path": "s3://b/x.mp4"}']
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    assert main(["audit", str(tmp_path / "list.jsonl"), "--frames", "4", "--size", "16x16", "--fix", str(tmp_path / "good.jsonl")]) == 0
    told = capsys.readouterr().out
    assert "entry 2 of list.jsonl: { is no JSON object" in told and 'entry 3 of list.jsonl: start takes a number, not "soon"' in told
    assert "entry 4 of list.jsonl: it names an address" in told and "files 4, good 1, bad entry 3" in told
    assert len((tmp_path / "good.jsonl").read_text().splitlines()) == 2  # its shots


def test_a_photograph_in_webp_is_a_picture(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((24, 32, 3), 99, np.uint8)).save(folder / "photo.webp", exif=b"Exif\0\0MM\0*\0\0\0\b\0\0\0\0\0\0")  # extended
    (folder / "photo.txt").write_text("a photograph")
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name in ("cut.webp", "photo.webp"):
            file.add(folder / name, name)
    source = Folder(path=folder)
    rows = {row.item.path.name: row for row in audit.audited(items(source), SIZE, source, worded=True)}
    assert (rows["photo.webp"].why, rows["photo.webp"].clips) == ("", 1)
    assert [item.moves for item in items(Shards(path=str(tmp_path / "a.tar")))] == [True, False]


def test_a_file_that_goes_while_others_are_read_is_a_row(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Folder(path=folder)
    found = items(source)
    (folder / "good.webp").unlink()
    why = {row.item.path.name: (row.why, row.said) for row in audit.audited(found, SIZE, source, worded=True)}
    assert why["good.webp"] == ("unreadable", "No such file or directory") and why["cut.webp"][0] == ""


def test_a_name_that_is_no_text_is_shown_and_listed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As old archives leave them, on a terminal that takes UTF-8 alone."""
    for suffix in (".webp", ".txt"):
        (folder / f"good{suffix}").rename(folder / f"caf\udce9{suffix}")
    (folder / "caf\udce9.txt").write_text("one\ntwo\n")
    options = ["--frames", "4", "--size", "16x16"]
    for more in ([str(folder), "--fix", str(tmp_path / "good.jsonl")], [str(tmp_path / "good.jsonl")]):
        said = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(said, encoding="utf-8", write_through=True))
        assert main(["audit", *options, *more]) == 0 and rb"caf\udce9.webp" in said.getvalue()


def test_the_mended_list_names_links_as_they_are_called(folder: Path, tmp_path: Path) -> None:
    """Stores that keep files by their digests link names to them."""
    (folder / "good.webp").rename(tmp_path / "0123abcd")
    (folder / "good.webp").symlink_to(tmp_path / "0123abcd")
    source = Folder(path=folder)
    (tmp_path / "good.jsonl").write_text(audit.fixed(list(audit.audited(items(source), SIZE, source, worded=True)), tmp_path))
    assert "clips/good.webp" in {item.path.relative_to(tmp_path).as_posix() for item in items(Manifest(path=tmp_path / "good.jsonl"))}


def test_the_mended_list_keeps_digests(folder: Path, tmp_path: Path) -> None:
    content = digest(folder / "good.webp")
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": "clips/good.webp", "caption": "x", "digest": content}))
    source = Manifest(path=tmp_path / "list.jsonl")
    (line,) = audit.fixed(list(audit.audited(items(source), SIZE, source, worded=True)), tmp_path).splitlines()
    assert json.loads(line)["digest"] == content


def test_labels_need_no_captions(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(folder.parent), "--labels", "--frames", "4", "--size", "16x16", "--json"]) == 0
    assert "no caption" not in json.loads(capsys.readouterr().out)["totals"]
    (tmp_path / "list.jsonl").write_text('{"path": "clips/wordless.webp", "label": "x"}\n')
    assert main(["audit", str(tmp_path / "list.jsonl"), "--labels", "--frames", "4", "--size", "16x16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["good"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["missing"], "is no list that is there"),
        (["https://x.org/a.mp4"], "is the address of one file or list, and only shards (.tar) may be elsewhere"),
        (["clips", "--fix", "a.csv"], "--fix writes JSON lines"),
        (["clips", "--fix", "no/where.jsonl"], "There is no directory no"),
        (["clips.tar", "--fix", "a.jsonl"], "what is in shards has no path of its own"),
        (["clips", "--sheet", "a.txt"], "no suffix that can be written"),
        (["clips", "--size", "16"], "--size takes"),
    ],
)
def test_mistakes(folder: Path, options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder.parent)
    assert main(["audit", *options]) == 2
    assert said in capsys.readouterr().err


def test_buckets_are_told_as_a_run_deals_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["sizes.kind=buckets", "sizes.resolutions=[16]", "sizes.aspects=[1.33, 1.78]", "sizes.lengths=[1, 4, 8]"]
    assert main(["audit", str(folder), *options, "--json"]) == 0
    found = {Path(row["path"]).stem: row for row in json.loads(capsys.readouterr().out)["files"]}
    table = Bucketed(resolutions=(16,), aspects=(1.33, 1.78), lengths=(1, 4, 8)).table(space=4, time=2, patch=2)
    for name, frames in (("good", 10), ("cut", 11), ("picture", 1)):
        assert tuple(found[name]["bucket"]) == table.of(Size(frames, 24, 32)), name
    assert (
        found["good"]["clips"] == 1
        and found["cut"]["clips"] == 2
        and (found["short"]["why"], found["short"]["bucket"]) == ("too small", [])
    )


def test_a_data_set_as_it_is_published(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "set" / "Walk").mkdir(parents=True)
    (tmp_path / "set" / "Walk" / "v.webp").write_bytes((folder / "good.webp").read_bytes())
    assert main(["audit", str(tmp_path / "set"), "--layout", "ucf101", "--frames", "4", "--size", "16x16", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["files"]
    assert (row["why"], row["clips"], row["used"]) == ("", 1, 10)  # every third of its ten frames
