"""What edits leave out is not shown, what stands in fragments is, and an empty chunk of an .avi is the picture before."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import films
from videodit.data import lengths, video
from videodit.data.video import Unreadable

FRAMES = films.numbered(30)
FIRST = {"0": 0, "3": 80}  # milliseconds after which the first frame is shown, with so many B-frames
APART = {"movflags": "frag_keyframe+default_base_moof+skip_trailer"}  # fragments that say nothing of where they stand
EDITS = {
    "from a frame on": [(1000, 200)],
    "to a frame": [(400, 0)],
    "within": [(240, 480)],
    "late": [(400, -1), (1200, 0)],
    "late and within": [(400, -1), (240, 480)],
    "two parts": [(200, 200), (200, 680)],
    "a part twice": [(200, 200), (200, 200)],
    "parts the other way round": [(200, 680), (200, 200)],
    "a pause": [(200, 200), (400, -1), (200, 400)],
}


def seen(edits: Sequence[tuple[int, int]]) -> list[int]:
    """The frames of 40 ms that players show; before the first they show nothing."""
    found: list[int] = []
    for lasts, start in edits:
        found += range(start // 40, (start + lasts) // 40) if start >= 0 else found[-1:] * (lasts // 40)
    return found


def seeks(path: Path, numbers: list[int]) -> bool:
    """Whether what is read from any frame on is what is read from the beginning."""
    return all(films.numbers(video.read(path, start=at, frames=3)[0]) == numbers[at : at + 3] for at in range(0, len(numbers), 4))


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS.keys())
@pytest.mark.parametrize("behind", FIRST)
def test_what_edits_leave_is_seen(tmp_path: Path, edits: list[tuple[int, int]], behind: str) -> None:
    path = films.film(tmp_path / "a.mp4", FRAMES, gop=10, options={"bf": behind, "x264-params": "scenecut=0"})
    whole, _ = video.read(path)
    path.write_bytes(films.edited(path.read_bytes(), [(lasts, start if start < 0 else start + FIRST[behind]) for lasts, start in edits]))
    frames, rate = video.read(path)
    right = seen(edits)
    assert films.numbers(frames) == right and rate == 25.0 and np.array_equal(frames, whole[right])
    assert video.probe(path).frames == len(right) and seeks(path, right)


def test_one_edit_is_as_players_of_ffmpeg_show_it(tmp_path: Path) -> None:
    film, rng = films.film(tmp_path / "a.mp4", FRAMES, gop=10, options={"bf": "3"}).read_bytes(), np.random.default_rng(1)
    path = tmp_path / "b.mp4"
    for start in rng.integers(0, 900, 6).tolist():
        path.write_bytes(films.edited(film, [(int(rng.integers(120, 1280 - start)), start)]))
        with av.open(str(path)) as container:
            shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert films.numbers(video.read(path)[0]) == films.numbers(shown), start


def test_edits_that_contradict_frames_are_named(tmp_path: Path) -> None:
    path = films.film(tmp_path / "a.mp4", FRAMES, gop=10)
    film = path.read_bytes()
    for edits, why in (([(5000, 0)], "its head says 5"), ([(200, 3000)], "its edits show none"), ([(400, -1)], "its edits show none")):
        path.write_bytes(films.edited(film, edits))
        with pytest.raises(Unreadable, match=why):
            video.read(path)


@pytest.mark.parametrize("sound", [0.0, 2.0])
@pytest.mark.parametrize("flags", ["frag_keyframe", "frag_keyframe+separate_moof", "frag_keyframe+default_base_moof+skip_trailer"])
def test_frames_in_the_head_and_in_fragments(tmp_path: Path, flags: str, sound: float) -> None:
    path = films.sounding(tmp_path / "a.mp4", FRAMES, {"movflags": flags}, sound=sound)
    with path.open("rb") as file:
        told = lengths.film(file)
        assert told and [track.stored > 0 for track in told.tracks if track.moves] == [True]
        numbers = [track.number for track in told.tracks if track.moves]
        assert told.tracks[0].stored + (lengths.in_fragments(file, numbers[0]) or 0) == 30
    assert films.numbers(video.read(path)[0]) == list(range(30)) and seeks(path, list(range(30)))


def test_an_edit_of_a_film_whose_frames_go_on_in_fragments(tmp_path: Path) -> None:
    """It says where to begin; where it ends was not known when it was written."""
    path = films.film(tmp_path / "a.mp4", FRAMES, gop=10, options={"bf": "0"}, container=APART)
    for lasts in (0, 400):
        path.write_bytes(films.edited(path.read_bytes(), [(lasts, 200)]))
        assert films.numbers(video.read(path)[0]) == list(range(5, 30))


@pytest.mark.parametrize("flags", ["frag_keyframe", "frag_keyframe+empty_moov"])
def test_a_fragment_that_tells_of_what_is_not_there_is_named(tmp_path: Path, flags: str) -> None:
    path = films.film(tmp_path / "a.mp4", FRAMES, gop=10, container={"movflags": flags})
    film = path.read_bytes()
    more = bytearray(film)
    at = more.rindex(b"trun") + 8
    more[at : at + 4] = (int.from_bytes(more[at : at + 4], "big") + 1).to_bytes(4, "big")
    path.write_bytes(more)
    with pytest.raises(Unreadable):
        video.read(path)
    path.write_bytes(film.replace(b"mvex", b"free"))  # nothing says that fragments follow
    with pytest.raises(Unreadable):
        video.read(path)


TABLES = (b"stts", b"stsz", b"stco", b"stsc", b"ctts", b"stss")


@pytest.mark.parametrize("lost, why", [((b"moof",), "fragments are missing behind frame 8"), (TABLES, "the first 0.320 s are missing")])
def test_a_part_that_is_lost_is_named(tmp_path: Path, lost: tuple[bytes, ...], why: str) -> None:
    path = films.film(tmp_path / "a.mp4", FRAMES, gop=10, container={"movflags": "frag_keyframe"})
    film = path.read_bytes()
    for name in lost:
        film = film.replace(name, b"free", 1)
    path.write_bytes(film)
    with pytest.raises(Unreadable, match=why):
        video.read(path)


@pytest.mark.parametrize("sound, held", [(0.0, []), (1.2, [1])])
def test_an_avi_with_sound(tmp_path: Path, sound: float, held: list[int]) -> None:
    """The sound of an .mp3 begins before its first sample: FFmpeg moves the pictures by an empty chunk."""
    path = films.sounding(tmp_path / "a.avi", FRAMES, {}, sound=sound)
    numbers = [0] * len(held) + list(range(30))
    with path.open("rb") as file:
        assert [i for i, full in enumerate(lengths.chunks(file, 0)) if not full] == held
    assert films.numbers(video.read(path)[0]) == numbers and video.read(path)[1] == 25.0 and seeks(path, numbers)


@pytest.mark.parametrize("codec, behind", [("mpeg4", "0"), ("mpeg4", "2"), ("libx264", "0"), ("mjpeg", "0")])
def test_empty_chunks_show_the_picture_before(tmp_path: Path, codec: str, behind: str) -> None:
    """As cameras write them that were late; with B-frames to the nearest picture."""
    places = [i for i in range(33) if i not in (5, 6, 20)]
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = films.film(
        tmp_path / "a.avi", FRAMES, times=places, units=films.RATE, codec=codec, pixels=pixels, gop=10, options={"bf": behind}
    )
    numbers = films.numbers(video.read(path)[0])
    right = np.searchsorted(places, range(33), side="right") - 1
    assert len(numbers) == 33 and np.abs(np.array(numbers) - right).max() <= (1 if int(behind) else 0)
    assert np.all(np.diff(numbers) >= 0) and set(numbers) == set(range(30)) and seeks(path, numbers)


def test_chunks_that_are_lost_are_no_empty_ones(tmp_path: Path) -> None:
    path = films.film(tmp_path / "a.avi", FRAMES)
    film = bytearray(path.read_bytes())
    at = film.index(b"00dc", film.index(b"movi") + 900)
    film[at : at + 4] = b"00xx"
    path.write_bytes(film)
    with path.open("rb") as file:
        assert lengths.chunks(file, 0) == []
    film[at : at + 4] = b"JUNK"
    path.write_bytes(film)
    with pytest.raises(Unreadable, match="30 frames are announced and 29 packets come"):
        video.read(path)


def recorded(path: Path, times: np.ndarray) -> Path:
    """A .webm as browsers record it: milliseconds, and neither a length nor a rate."""
    with av.open(str(path), "w", options={"live": "1"}) as container:
        stream = container.add_stream("libvpx", rate=30, options={"deadline": "realtime", "cpu-used": "8"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for at, picture in zip(times, films.numbered(len(times)), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(at), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    film = bytearray(path.read_bytes())
    at = film.index(b"\x23\xe3\x83")  # the length of a frame
    size = film[at + 3] & 127
    film[at : at + 4 + size] = bytes([0xEC, 0x80 | (size + 2), *bytes(size + 2)])
    path.write_bytes(film)
    return path


@pytest.mark.parametrize("rate", [30, 30000 / 1001, 60])
@pytest.mark.parametrize("jitter", [0, 2])
def test_what_browsers_record_is_read_and_what_they_lost_is_named(tmp_path: Path, rate: float, jitter: float) -> None:
    times = (np.arange(60) * 1000 / rate + np.random.default_rng(0).uniform(-jitter, jitter, 60)).clip(0)
    frames, read = video.read(recorded(tmp_path / "a.webm", times))
    assert films.numbers(frames) == list(range(60)) and read == pytest.approx(rate, rel=0.01)
    if not jitter:
        with pytest.raises(Unreadable, match="1 frames are missing between others"):
            video.read(recorded(tmp_path / "b.webm", np.delete(times, 20)))
