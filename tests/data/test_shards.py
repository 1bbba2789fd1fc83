"""Shards, lists in Parquet and published layouts become items, and their bytes are read where they lie."""

from __future__ import annotations

import datetime
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

import films
from videodit.data import cuts, lists, shards, video
from videodit.data.item import Inside, content, digest, pictures
from videodit.data.sources import DataSet, Manifest, Shards, items, labels
from videodit.shapes import UserError


def tar(members: dict[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return whole.getvalue()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films.film(tmp_path_factory.mktemp("film") / "a.mp4", films.numbered(20))


def members(film: Path, first: int) -> dict[str, bytes]:
    words = json.dumps({"caption": ["one", "two"], "label": "x", "weight": 2, "made by": "somebody"}).encode()
    return {
        f"d/{first}.mp4": film.read_bytes(),
        f"d/{first}.json": words,
        f"d/{first + 1}.cls": b"7\n",
        f"d/{first + 1}.mp4": film.read_bytes(),
        f"d/{first + 1}.txt": b"three\n\nfour\n",
        f"d/{first + 1}.flac": b"sound",
    }


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_members_of_one_name_are_one_clip(tmp_path: Path, film: Path, where: str) -> None:
    """Read in place, or from fsspec's storage in memory, which stands for s3."""
    if where == "here":
        for i in range(2):
            (tmp_path / f"p-{i:03d}.tar").write_bytes(tar(members(film, 10 * i)))
        path = str(tmp_path / "p-{000..001}.tar")
    else:
        for i in range(2):
            fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/p-{i:03d}.tar", tar(members(film, 10 * i)))
        path = f"memory://{tmp_path.name}/p-*.tar"
    source = Shards(path=path)
    found = items(source)
    assert [(item.path.name, item.captions, item.label, item.weight) for item in found][:2] == [
        ("0.mp4", ("one", "two"), "x", 2.0),
        ("1.mp4", ("three", "four"), "7", 1.0),
    ]
    assert len(found) == 4 and labels(source) == ("7", "x") and content(found[3]) == digest(film)
    assert films.numbers(video.read(found[2], start=5, frames=3)[0]) == [5, 6, 7]
    assert cuts.look(found[1], source).frames == 20
    assert where != "here" or sorted(p.name for p in tmp_path.iterdir()) == ["p-000.tar", "p-001.tar"]


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_photograph_in_webp_is_a_picture_wherever_its_shard_is(tmp_path: Path, where: str) -> None:
    still, moving = io.BytesIO(), io.BytesIO()
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    first.save(still, "WEBP")
    first.save(moving, "WEBP", save_all=True, append_images=[second])
    shard, path = tar({"a.webp": still.getvalue(), "b.webp": moving.getvalue()}), str(tmp_path / "p.tar")
    if where == "elsewhere":
        path = f"memory://{tmp_path.name}/p.tar"
        fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/p.tar", shard)
    else:
        Path(path).write_bytes(shard)
    assert [item.moves for item in items(Shards(path=path))] == [False, True]


def test_a_text_that_is_empty_says_nothing(tmp_path: Path) -> None:
    words = b'{"caption": "a red circle"}'
    (tmp_path / "p.tar").write_bytes(tar({"a.mp4": b"", "a.txt": b" \n", "a.json": words, "b.mp4": b"", "b.txt": b"two", "b.json": words}))
    assert [item.captions for item in items(Shards(path=str(tmp_path / "p.tar")))] == [("a red circle",), ("two",)]


def test_shards_are_named_by_ranges_patterns_and_folders(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"p{i}.tar").write_bytes(b"")
    for path in (tmp_path, tmp_path / "p{0..2}.tar", tmp_path / "p*.tar"):
        assert [Path(name).name for name in shards.listed(str(path))] == ["p0.tar", "p1.tar", "p2.tar"]
    with pytest.raises(UserError, match=r"There is no shard .*p3\.tar and 1 more of .*: bring what is missing"):
        shards.listed(str(tmp_path / "p{1..4}.tar"))
    (tmp_path / "[a]").mkdir()
    (tmp_path / "[a]" / "p.tar").touch()
    assert shards.listed(str(tmp_path / "[a]" / "p.tar")) == [str(tmp_path / "[a]" / "p.tar")]
    for name in ("q.tar", "q{0..9}.tar"):
        with pytest.raises(UserError, match="There is no shard"):
            items(Shards(path=str(tmp_path / name)))
    with pytest.raises(UserError, match="cannot be reached"):
        items(Shards(path="nowhere://x/p.tar"))


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("1.json", b"{", "a .json that cannot be read"),
        ("1.json", b'{"weight": -1}', "weight > 0"),
        ("1.txt", b"\xff", "a .txt that cannot"),
    ],
)
def test_words_that_cannot_be_read_are_named(tmp_path: Path, name: str, data: bytes, match: str) -> None:
    (tmp_path / "p.tar").write_bytes(tar({"1.mp4": b"", name: data}))
    with pytest.raises(UserError, match=match):
        items(Shards(path=str(tmp_path / "p.tar")))


def test_a_list_in_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "a.mp4").touch()
    rows = {"path": ["a.mp4", "a.mp4"], "caption": [["x", "y"], None], "start": [1.0, None], "pixels": [b"0" * 99, b""], "label": [0, 3]}
    parquet.write_table(arrow.table(rows), tmp_path / "l.parquet")
    read = []
    plain = parquet.ParquetFile.iter_batches
    monkeypatch.setattr(
        parquet.ParquetFile, "iter_batches", lambda self, n, columns: (read.extend(columns), plain(self, n, columns=columns))[1]
    )
    found = items(Manifest(path=tmp_path / "l.parquet"))
    assert [(item.captions, item.start, item.label) for item in found] == [((), 0.0, "3"), (("x", "y"), 1.0, "0")]
    assert sorted(read) == ["caption", "label", "path", "start"]
    parquet.write_table(arrow.table({"path": ["a.mp4"], "start": [datetime.time(0, 0, 1)]}), tmp_path / "l.parquet")
    with pytest.raises(UserError, match='start takes a number, not "00:00:01"'):
        items(Manifest(path=tmp_path / "l.parquet"))
    (tmp_path / "l.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        items(Manifest(path=tmp_path / "l.parquet"))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'videodit\[parquet\]'"):
        list(lists.listed(tmp_path / "l.parquet"))


def test_published_layouts(tmp_path: Path) -> None:
    for name in ("UCF-101/Run/v_Run_g01_c01.avi", "UCF-101/Run/v_Run_g08_c01.avi", "UCF-101/Jump/v_Jump_g08_c01.avi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "UCF-101" / ".Trash").mkdir()
    (tmp_path / "UCF-101" / ".Trash" / "v_Run_g01_c02.avi").touch()
    source = DataSet(path=tmp_path, layout="ucf101")
    assert source.every == 3 and labels(source) == ("Jump", "Run") and len(items(source)) == 3
    with pytest.raises(UserError, match="There is no ucfTrainTestlist"):
        items(DataSet(path=tmp_path, layout="ucf101", split="train"))
    (tmp_path / "ucfTrainTestlist").mkdir()
    (tmp_path / "ucfTrainTestlist" / "trainlist01.txt").write_text("Run/v_Run_g08_c01.avi 1\n")
    assert [item.label for item in items(DataSet(path=tmp_path, layout="ucf101", split="train"))] == ["Run"]
    (tmp_path / "ucfTrainTestlist" / "trainlist01.txt").write_text("Run/v_Run_g08_c01.avi 1\nRun/v_Run_g99_c01.avi 1\n")
    with pytest.raises(UserError, match=r"v_Run_g99_c01.avi cannot be used \(it is not there\)"):
        items(DataSet(path=tmp_path, layout="ucf101", split="train"))


@pytest.mark.parametrize(("layout", "train"), [("faceforensics", "train"), ("skytimelapse", "sky_train"), ("taichi-hd", "train")])
def test_videos_that_are_folders_of_pictures(tmp_path: Path, layout: str, train: str) -> None:
    frames = films.numbered(12)
    for part in (train, train.replace("train", "test")):
        folder = tmp_path / part / "video" / "clip.mp4"
        folder.mkdir(parents=True)
        for i, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"frame_{i}.png")
    source = DataSet(path=tmp_path, layout=layout)  # type: ignore[arg-type]
    (item,) = items(source)
    assert train in item.path.parts and item.moves and len(items(DataSet(path=tmp_path, layout=layout, split="both"))) == 2  # type: ignore[arg-type]
    assert films.numbers(video.read(item)[0]) == list(range(12))  # frame_2 stands before frame_10
    (item.path / "frame_².png").touch()  # no number that int knows
    assert len(pictures(item.path)) == 13
    (item.path / "frame_².png").unlink()
    before = content(item)
    Image.fromarray(np.zeros_like(frames[0])).save(item.path / "frame_3.png")
    assert content(item) != before
    with pytest.raises(UserError, match="has no folder"):
        items(DataSet(path=tmp_path / train, layout=layout))  # type: ignore[arg-type]


def test_a_window_is_a_file(tmp_path: Path, film: Path) -> None:
    shard = tmp_path / "a.tar"
    shard.write_bytes(tar({"x.txt": b"words", "x.mp4": film.read_bytes()}))
    (item,) = items(Shards(path=str(shard)))
    assert item.inside is not None and content(item) == digest(film)
    wrong = item._replace(inside=Inside(str(shard), item.inside.at, item.inside.size - 200))
    with pytest.raises(video.Unreadable):
        video.read(wrong)


def test_a_storage_that_fails_in_its_own_way_is_said(tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients have exceptions of their own: at the bytes of a clip, at the heads, and at the listing."""

    class Gone(Exception):
        __module__ = "somebody.errors"

    def gone(*given: Any, **named: Any) -> Any:
        raise Gone("Could not connect\nto the endpoint")

    fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/p.tar", tar(members(film, 0)))
    source = Shards(path=f"memory://{tmp_path.name}/p.tar")
    (found, *_) = items(source)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", gone)
    with pytest.raises(UserError, match=r"p.tar cannot be read \(Gone: Could not connect to the endpoint\): see that the name is right"):
        video.read(found)
    monkeypatch.setattr(MemoryFileSystem, "open", gone)
    with pytest.raises(UserError, match=r"p.tar cannot be used \(it cannot be read as a shard: Gone: Could not connect to the endpoint\)"):
        items(source)
    monkeypatch.setattr(MemoryFileSystem, "glob", gone)
    with pytest.raises(UserError, match=r"^memory://.*p.tar cannot be read \(Gone: Could not connect"):
        items(source)


def test_hidden_members_do_not_part_a_clip_from_its_words(tmp_path: Path) -> None:
    """A Mac's tar puts ._NAME before each NAME that has attributes."""
    (tmp_path / "a.tar").write_bytes(tar({"./._a.mp4": b"x", "./a.mp4": b"x", "./._a.txt": b"x", "./a.txt": b"a ball"}))
    assert [(item.path.name, item.captions) for item in items(Shards(path=str(tmp_path / "a.tar")))] == [("a.mp4", ("a ball",))]


def test_a_name_with_dots_of_its_own_is_said(tmp_path: Path) -> None:
    """WebDataset ends a name at its first dot, so a.b.mp4 is b.mp4 of a: beside a.mp4 it is something else that belongs to the clip."""
    path = tmp_path / "a.tar"
    path.write_bytes(tar({"d/walk.2.mp4": b"", "d/walk.2.txt": b"words", "run.mp4": b"", "run.left.jpg": b"", "run.txt": b"words"}))
    walk, run = list(shards.members(str(path)))
    assert walk.path == Path("a.tar/d/walk.2.mp4") and "ends at its first dot" in walk.wrong
    assert run.path == Path("a.tar/run.mp4") and not run.wrong


@pytest.mark.parametrize("harm", ["cut between members", "cut within a head", "a damaged head", "a head of zeros"])
def test_a_shard_that_is_not_whole_is_said_wherever_it_breaks(tmp_path: Path, harm: str) -> None:
    """tarfile takes all of these for the end, and what comes behind would be lost without a word."""
    path, whole = tmp_path / "a.tar", tar({f"{i}.{kind}": b"x" * 600 for i in range(3) for kind in ("mp4", "txt")})
    at = 3 * 1536  # the head of 1.txt, without which 1.mp4 has no words
    head = bytes(512) if harm == "a head of zeros" else b"?" * 512
    broken = {"cut between members": whole[:at], "cut within a head": whole[: at + 99]}.get(harm, whole[:at] + head + whole[at + 512 :])
    path.write_bytes(whole)
    assert [bool(item.wrong) for item in shards.members(str(path))] == [False] * 3
    path.write_bytes(broken)
    with pytest.raises(UserError, match=r"a.tar cannot be used \(it cannot be read as a shard: behind 1 comes neither a member nor an end"):
        items(Shards(path=str(path)))


def test_a_mark_before_words_is_no_part_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(
        tar({"a.mp4": b"", "a.txt": "\ufeffa dog".encode(), "b.mp4": b"", "b.json": '\ufeff{"caption": "a cat"}'.encode()})
    )
    assert [item.captions for item in items(Shards(path=str(tmp_path / "a.tar")))] == [("a dog",), ("a cat",)]
