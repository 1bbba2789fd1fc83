"""Lengths that a head makes up are named; films of ordinary encoders, however they are cut or told of, are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import films
from videodit.data import lengths, video
from videodit.data.video import Unreadable

FRAMES = films.numbered(30)
OPTIONS = {
    "plain": {},
    "fragmented": {"movflags": "frag_keyframe+empty_moov"},
    "fragmented behind frames": {"movflags": "frag_keyframe"},
    "dash": {"movflags": "dash+frag_keyframe"},
    "at the front": {"movflags": "faststart"},
    "without edits": {"use_editlist": "0"},
    "negative offsets": {"movflags": "negative_cts_offsets"},
}


def sounding(path: Path, options: dict[str, str], **more: Any) -> Path:
    return films.sounding(path, FRAMES, options, **more)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("sound", [0.0, 3.0])
def test_films_of_ordinary_encoders_are_read(tmp_path: Path, options: dict[str, str], sound: float) -> None:
    for suffix in (".mp4", ".mov"):
        path = sounding(tmp_path / f"a{suffix}", options, sound=sound)
        with path.open("rb") as file:
            said = lengths.film(file)
        assert said is not None and said.fragmented == any("frag" in value for value in options.values())
        assert sum(track.moves for track in said.tracks) == 1 and len(said.tracks) == 1 + bool(sound)
        assert films.numbers(video.read(path)[0]) == list(range(30))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_uneven_rates_and_late_pictures_are_read(tmp_path: Path, codec: str) -> None:
    gaps = np.random.default_rng(1).choice([2, 4, 12, 40], 29)
    assert len(video.read(sounding(tmp_path / "a.mp4", {}, times=[0, *np.cumsum(gaps).tolist()]))[0]) > 30
    assert len(video.read(films.film(tmp_path / "b.mp4", FRAMES, times=[4 * i for i in range(29)] + [300], codec=codec))[0]) > 30
    assert films.numbers(video.read(sounding(tmp_path / "c.mp4", {}, sound=4.0, late=40))[0])[-30:] == list(range(30))


def boxes(film: bytes | bytearray, name: bytes) -> list[tuple[int, int]]:
    """Where durations of 4 bytes stand: in the box of this name, of the track of pictures alone where each has one."""
    at = film.index(name) + 4
    assert film[at] == 0
    if name == b"elst":
        return [(at + 8 + 12 * i, 4) for i in range(int.from_bytes(film[at + 4 : at + 8], "big"))]
    return [(at + {b"tkhd": 20, b"mvhd": 16, b"mdhd": 16, b"mehd": 4}[name], 4)]


def longer(film: bytes, names: list[bytes], factor: float) -> bytes:
    made = bytearray(film)
    for at, size in (place for name in names for place in boxes(film, name)):
        made[at : at + size] = round(factor * int.from_bytes(made[at : at + size], "big")).to_bytes(size, "big")
    assert bytes(made) != film
    return bytes(made)


EVERY = [b"mvhd", b"tkhd", b"mdhd", b"elst"]


@pytest.mark.parametrize(
    "names", [EVERY, *([name] for name in EVERY), EVERY[:2], [b"tkhd", b"elst"]], ids=lambda names: b"-".join(names).decode()
)
@pytest.mark.parametrize("sound", [0.0, 1.0])
def test_four_times_the_truth_is_named(tmp_path: Path, names: list[bytes], sound: float) -> None:
    path = sounding(tmp_path / "a.mp4", {}, sound=sound)
    path.write_bytes(longer(path.read_bytes(), names, 4))
    with pytest.raises(Unreadable, match=r"its head says 4\.\d+ s and its frames last 1\.\d+ s"):
        video.read(path)


@pytest.mark.parametrize("names", [[b"mvhd"], [b"tkhd"], [b"mdhd"]])
def test_a_quarter_of_the_truth_is_named(tmp_path: Path, names: list[bytes]) -> None:
    path = sounding(tmp_path / "a.mp4", {})
    path.write_bytes(longer(path.read_bytes(), names, 0.25))
    with pytest.raises(Unreadable, match=r"its head says 0\.3"):
        video.read(path)


def test_a_fragmented_film_that_says_more_than_comes_is_named(tmp_path: Path) -> None:
    path = sounding(tmp_path / "a.mp4", OPTIONS["fragmented"])
    film = bytearray(path.read_bytes())
    ((at, size),) = boxes(film, b"mvhd")
    assert not any(film[at : at + size])
    film[at : at + size] = (8 * int.from_bytes(film[at - 4 : at], "big")).to_bytes(4, "big")
    path.write_bytes(film)
    with pytest.raises(Unreadable, match=r"its head says 8\.000 s and its frames last 1\.\d+ s"):
        video.read(path)


@pytest.mark.parametrize("count", [7, 31, 90, 1_000_000])
def test_frames_that_an_avi_makes_up_are_named(tmp_path: Path, count: int) -> None:
    path = films.film(tmp_path / "a.avi", FRAMES)
    assert films.numbers(video.read(path)[0]) == list(range(30))
    film = bytearray(path.read_bytes())
    at = film.index(b"avih") + 24
    assert film[at : at + 4] == (30).to_bytes(4, "little")
    film[at : at + 4] = count.to_bytes(4, "little")
    path.write_bytes(film)
    with pytest.raises(Unreadable, match=f"{count} frames are announced and 30 packets come"):
        video.read(path)
    film[at : at + 4] = bytes(4)  # as those leave it that cannot go back
    path.write_bytes(film)
    assert len(video.read(path)[0]) == 30


def test_whatever_a_head_holds_it_is_read_to_an_end(tmp_path: Path) -> None:
    film, rng = sounding(tmp_path / "a.mp4", {}, sound=1.0).read_bytes(), np.random.default_rng(3)
    moov, path = film.index(b"moov") - 4, tmp_path / "b.mp4"

    def told(data: bytes) -> lengths.Film | None:
        path.write_bytes(data)
        with path.open("rb") as file:
            assert lengths.counted(file)[0] >= 0
            return lengths.film(file)

    for _ in range(500):
        made = bytearray(film[moov:])
        for at in rng.integers(len(made), size=rng.integers(1, 12)):
            made[at] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
        said = told(made)
        assert said is None or isinstance(lengths.contradiction(said, 1.2), str)
    assert told(b"") is None and told(((16).to_bytes(4, "big") + b"free" + bytes(8)) * 30_000) is None
