"""What is read is what is to be seen, at the time it is to be seen; whatever goes wrong is one exception."""

from __future__ import annotations

import io
import os
import signal
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import films
from videodit.data import quarantine, reader, video, worker
from videodit.data.item import Item
from videodit.data.quarantine import Place, Quarantine
from videodit.data.video import Unreadable

FRAMES = films.numbered(40)


def close(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("angle, turns", [(90, 1), (180, 2), (-90, 3)])
def test_rotation(tmp_path: Path, angle: int, turns: int) -> None:
    path = films.film(tmp_path / "a.mp4", FRAMES[:3], rotation=angle)
    frames, _ = video.read(path)
    assert frames.shape[1:3] == ((64, 48) if turns % 2 else (48, 64))
    assert close(frames[1], np.rot90(FRAMES[1], turns)) < 6 < close(frames[1], np.rot90(FRAMES[1], turns + 2))


@pytest.mark.parametrize("aspect, columns", [(Fraction(2), 128), (Fraction(1, 2), 32), (Fraction(1), 64)])
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, columns: int) -> None:
    frames, _ = video.read(films.film(tmp_path / "a.mp4", FRAMES[:4], aspect=aspect))
    assert frames.shape == (4, 48, columns, 3) and films.numbers(frames) == [0, 1, 2, 3]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_an_uneven_rate_is_read_by_its_timestamps(tmp_path: Path, suffix: str) -> None:
    """Frame i is what is shown i / rate seconds after the first."""
    times = np.cumsum([0, *np.random.default_rng(0).choice([2, 4, 12], 39)])
    frames, fps = video.read(films.film(tmp_path / f"a{suffix}", FRAMES, times=times.tolist()))
    shown = films.numbers(frames)
    right = [int(np.searchsorted(times, 100 * (i + 0.5) / fps, side="right")) - 1 for i in range(len(shown))]
    assert shown == right and len(set(shown)) > 20 and len(shown) / fps == pytest.approx((times[-1] + 4) / 100, abs=0.13)


@pytest.mark.parametrize("whole", [False, True])
def test_colour_range(tmp_path: Path, whole: bool) -> None:
    levels = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, None, :, None], (2, 48, 1, 3))
    frames, _ = video.read(films.film(tmp_path / "a.mp4", levels, whole=whole, options={"crf": "1"}))
    assert close(frames, levels) < 1.5


def clear(rows: int = 48, columns: int = 64) -> np.ndarray:
    """White on the left; on the right red that is not to be seen."""
    frames = np.full((4, rows, columns, 4), 255, np.uint8)
    frames[:, :, columns // 2 :] = (255, 0, 0, 0)
    return frames


@pytest.mark.parametrize(
    "name, codec, pixels", [("a.webm", "libvpx-vp9", "yuva420p"), ("a.mov", "qtrle", "argb"), ("a.mov", "png", "rgba")]
)
def test_what_is_transparent_in_a_video_is_black(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    frames, _ = video.read(films.film(tmp_path / name, clear(), codec=codec, pixels=pixels))
    assert len(frames) == 4 and frames[:, :, :24].min() > 240 and frames[:, :, 40:].max() < 12


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif"])
def test_what_is_transparent_in_a_picture_is_black(tmp_path: Path, suffix: str) -> None:
    picture = Image.fromarray(clear()[0])
    picture.save(tmp_path / f"a{suffix}", **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    frames, _ = video.read(tmp_path / f"a{suffix}")
    assert frames[0, :, :24].min() > 240 and frames[0, :, 40:].max() < 12


def test_a_picture_of_16_bits_keeps_its_greys(tmp_path: Path) -> None:
    slope = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(8, 0)
    Image.fromarray(slope).save(tmp_path / "a.png")
    seen = video.read(tmp_path / "a.png")[0][0]
    assert np.array_equal(seen, np.arange(256, dtype=np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".gif"])
def test_seeks_are_exact(tmp_path: Path, suffix: str) -> None:
    path = films.film(tmp_path / f"a{suffix}", FRAMES, gop=12)
    assert video.probe(path).frames == 40 == len(video.read(path)[0])
    for start in (0, 1, 11, 12, 13, 23, 37):
        assert films.numbers(video.read(path, start=start, frames=3)[0]) == [start, start + 1, start + 2]
    with pytest.raises(Unreadable, match="it has no frame 40"):
        video.read(path, start=40)


@pytest.mark.parametrize("kind", ["open-gop=1:scenecut=0", "intra-refresh=1"])
def test_what_refers_to_frames_before_a_jump_is_no_fault(tmp_path: Path, kind: str) -> None:
    """There FFmpeg says "mmco: unref short failure", which of a film read from its beginning it does not."""
    path = films.film(tmp_path / "a.mp4", FRAMES, gop=12, options={"bf": "3", "x264-params": kind})
    whole, _ = video.read(path)
    assert films.numbers(whole) == list(range(40))
    for start in range(0, 36, 3):
        assert np.array_equal(video.read(path, start=start, frames=4)[0], whole[start : start + 4])


def test_damage_behind_a_jump_is_a_fault(tmp_path: Path) -> None:
    path = films.film(tmp_path / "a.mp4", FRAMES, gop=10, options={"x264-params": "scenecut=0"})
    with av.open(str(path)) as container:
        places = [(packet.pos + packet.size // 2, packet.pos + packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for start, stop in places[33:36]:
        data[start:stop] = bytes(byte ^ 0x5A for byte in data[start:stop])
    path.write_bytes(data)
    with pytest.raises(Unreadable, match="FFmpeg says"):
        video.read(path, start=31, frames=8)


def test_a_stream_comes_in_pieces_and_may_be_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = films.film(tmp_path / "a.mp4", FRAMES)
    monkeypatch.setattr(worker, "PIECE", 3 * FRAMES[0].nbytes)
    assert films.numbers(np.stack(list(video.stream(path)))) == list(range(40))
    two = zip(video.stream(path, start=5), video.stream(path), strict=False)
    assert [films.numbers(np.stack(next(two))) for _ in range(7)] == [[i + 5, i] for i in range(7)]
    assert len(video.read(path)[0]) == 40


def test_a_time_limit(tmp_path: Path) -> None:
    path = films.film(tmp_path / "a.mp4", films.numbered(40, 480, 640))
    with pytest.raises(Unreadable, match="it takes longer than"):
        video.read(path, seconds=0.001)
    assert len(video.read(path)[0]) == 40


def test_frames_stay_what_they_are_while_others_are_read(tmp_path: Path) -> None:
    first, second = (films.film(tmp_path / name, frames) for name, frames in (("a.mp4", FRAMES), ("b.mp4", FRAMES[::-1])))
    kept = video.read(first)[0][3:5]
    before = kept.copy()
    for path in (second, first, second):
        video.read(path)
    assert np.array_equal(kept, before) and films.numbers(kept) == [3, 4]
    assert films.numbers(video.read(second, frames=2)[0]) == [39, 38]


def test_a_decoder_that_dies_takes_nothing_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = films.film(tmp_path / "a.mp4", FRAMES)
    monkeypatch.setattr(worker, "PIECE", FRAMES[0].nbytes)
    monkeypatch.setattr(worker, "_IDLE", [worker.Worker()])
    (mine,) = worker._IDLE
    frames = video.stream(path)
    next(frames)
    os.kill(mine.process.pid, signal.SIGSEGV)
    with pytest.raises(Unreadable, match="its decoder died of SIGSEGV"):
        list(frames)
    assert len(video.read(path)[0]) == 40 and mine not in worker._IDLE
    worker._IDLE[0].process.kill()  # one that died while nobody asked is not asked
    worker._IDLE[0].process.wait()
    assert len(video.read(path)[0]) == 40


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = io.BytesIO()
    Image.new("1", (8192, 8193)).save(head, "PNG")
    (tmp_path / "a.png").write_bytes(head.getvalue())
    with pytest.raises(Unreadable, match="too large"):
        video.read(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.m3u8"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#EXTM3U\n",
        b"ffconcat version 1.0\nfile b.mp4\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
        b"%!PS-Adobe\n" * 9,
        b"RIFF\0\0\0\0WAVE",
        bytes(64),
    ],
)
def test_only_what_begins_like_a_video_is_opened(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unreadable, match="it begins like no format that is read here"):
        video.read(tmp_path / name)


def test_a_codec_that_is_not_listed_is_not_run(tmp_path: Path) -> None:
    path = films.film(tmp_path / "a.avi", FRAMES[:3], codec="snow", options={"strict": "-2"})
    with pytest.raises(Unreadable):
        video.read(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".gif"])
@pytest.mark.parametrize("left", [0.3, 0.6, 0.95])
def test_what_ends_too_early_says_so(tmp_path: Path, suffix: str, left: float) -> None:
    path = films.film(tmp_path / f"a{suffix}", FRAMES, gop=12)
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    with pytest.raises(Unreadable):
        video.read(path)
    with pytest.raises(Unreadable):
        list(video.stream(path))


def test_a_box_that_never_ends_is_not_read_for_ever(tmp_path: Path) -> None:
    """As cameras leave a film that they could not finish: a length of 64 bits, which is still 0."""
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\1mdat" + bytes(99))
    with pytest.raises(Unreadable) as told:
        video.probe(tmp_path / "a.mp4", seconds=20.0)
    assert "takes longer" not in told.value.reason


def test_frames_that_change_their_size_are_at_fault(tmp_path: Path) -> None:
    for i, rows in enumerate((48, 64)):
        Image.fromarray(np.zeros((rows, 64, 3), np.uint8)).save(tmp_path / f"{i}.png")
    file = reader.Reader(str(tmp_path))
    with pytest.raises(reader.Fault, match="its frames change from 48x64 to 64x64"):
        list(file.frames(0, 2))


def test_a_quarantined_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "quarantine.jsonl"
    place = Place("ab" * 32, 1.0, None)
    Quarantine(kept, 60).add(place, Path("x/broken.mp4"), "it has no end mark")
    with kept.open("a") as file:
        file.write('{"digest": "half')
    assert Quarantine(kept, 60).reasons == {place: "it has no end mark"} and Quarantine(None, 60).reasons == {}
    assert not Quarantine(kept, 600).reasons, "what took too long has more time"
    kept.write_text(kept.read_text().replace("FFmpeg", "another FFmpeg"))
    assert not Quarantine(kept, 60).reasons


def test_what_pillow_reads_names_it_and_no_film_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frames").mkdir()
    names = ("a.mp4", "a.mkv", "a.gif", "a.png", "a.jpg", "a.webp", "frames")
    before = [quarantine.reader(Item(tmp_path / name)) for name in names]
    assert before[:3] == [quarantine.READER] * 3
    monkeypatch.setattr(quarantine, "pillow", "another")
    assert [quarantine.reader(Item(tmp_path / name)) == said for name, said in zip(names, before, strict=True)] == [True] * 3 + [False] * 4


def test_a_thread_that_ends_takes_no_decoder_of_another_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = films.film(tmp_path / "a.mp4", FRAMES)
    monkeypatch.setattr(worker, "PIECE", FRAMES[0].nbytes)
    monkeypatch.setattr(worker, "_IDLE", [])
    read, leave = threading.Event(), threading.Event()

    def other() -> None:
        video.read(path)
        read.set()
        leave.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert read.wait(60) and len(worker._IDLE) == 1
    frames = video.stream(path)
    next(frames)
    leave.set()
    thread.join()
    assert films.numbers(np.stack(list(frames))) == list(range(1, 40))
    worker._IDLE[0].process.wait(10)  # the system ends it with its thread
    assert len(video.read(path)[0]) == 40 and len(worker._IDLE) == 1


def test_a_decoder_that_needed_much_memory_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = films.film(tmp_path / "a.mp4", FRAMES)
    monkeypatch.setattr(worker, "_IDLE", [])
    video.read(path)
    assert len(worker._IDLE) == 1
    monkeypatch.setattr(worker, "KEPT", FRAMES[0].nbytes // 3)  # a frame is three times that
    video.read(path)
    assert not worker._IDLE


def test_a_long_note_comes_back_as_far_as_it_goes(tmp_path: Path) -> None:
    for text in ("é" * 20_000, '"\n' * 10_000):
        video.write(tmp_path / "a.png", FRAMES[:1], 8, note=text)
        assert video.read_note(tmp_path / "a.png") == text
    video.write(tmp_path / "a.png", FRAMES[:1], 8, note="é" * 100_000)
    assert video.read_note(tmp_path / "a.png") == "é" * (worker.NOTE // 2)
