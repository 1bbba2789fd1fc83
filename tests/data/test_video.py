"""Files give back the frames that were written, and nothing half-written stays."""

import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videodit.data import toybox, video
from videodit.shapes import Size, UserError

CLIP = toybox.render(toybox.scene(0, 3), Size(16, 64, 64))


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return 10 * np.log10(255**2 / error) if error else np.inf


@pytest.mark.parametrize("rate", [8, 12.5, 24, 29.97, 50])
@pytest.mark.parametrize("suffix, tolerance, least", [(".mp4", 1e-6, 28), (".gif", 0.02, 45), (".webp", 0.002, np.inf)])
def test_round_trip(tmp_path, suffix, tolerance, least, rate):
    """Frame count and rate come back (.gif counts hundredths of a second, .webp thousandths), and the picture."""
    video.write(tmp_path / f"a{suffix}", CLIP, rate)
    frames, fps = video.read(tmp_path / f"a{suffix}")
    assert frames.shape == CLIP.shape and frames.dtype == np.uint8
    assert fps == pytest.approx(rate, rel=tolerance)
    assert psnr(frames, CLIP) >= least


@pytest.mark.parametrize("rate, count", [(8, 16), (8, 2), (12.5, 5), (16, 4), (24, 6), (30, 12), (100, 3), (0.1, 1)])
def test_a_gif_that_lasts_whole_hundredths_of_a_second_has_its_rate_exactly(tmp_path, rate, count):
    """Delays are whole hundredths, 12 and 13 in turns at 8 a second, that of the last frame too."""
    video.write(tmp_path / "a.gif", CLIP[:count], rate)
    frames, fps = video.read(tmp_path / "a.gif")
    assert len(frames) == count and fps == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_frames_that_repeat_are_counted(tmp_path, suffix):
    clip = np.concatenate([CLIP, np.repeat(CLIP[-1:], 9, axis=0), CLIP[::-1]])
    video.write(tmp_path / f"a{suffix}", clip, 24)
    frames, _ = video.read(tmp_path / f"a{suffix}")
    assert len(frames) == len(clip)
    assert psnr(frames, clip) > 28


@pytest.mark.parametrize("colour", [(226, 40, 36), (40, 180, 70), (45, 95, 240), (255, 255, 255), (0, 0, 0)])
def test_colours_survive_the_trip_through_4_2_0(tmp_path, colour):
    video.write(tmp_path / "a.mp4", np.full((4, 32, 32, 3), colour, np.uint8), 8)
    assert np.abs(video.read(tmp_path / "a.mp4")[0].astype(int) - colour).max() <= 3


@pytest.mark.parametrize("suffix, shape", [(".mp4", (64, 46)), (".gif", (63, 45)), (".webp", (63, 45)), (".png", (63, 45))])
def test_odd_sizes(tmp_path, suffix, shape):
    """Only 4:2:0 needs even sides: it repeats the last row and column."""
    clip = CLIP[:1, :63, :45]
    video.write(tmp_path / f"a{suffix}", clip, 8)
    frames, _ = video.read(tmp_path / f"a{suffix}")
    assert frames.shape[1:3] == shape
    assert psnr(frames[:, :63, :45], clip) > 28


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ".png"])
def test_the_same_frames_give_the_same_bytes(tmp_path, suffix):
    for name in "ab":
        video.write(tmp_path / f"{name}{suffix}", CLIP, 8)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ".png"])
def test_parts_give_the_bytes_of_the_whole(tmp_path, suffix):
    clip = CLIP[:, :63, :45]
    video.write(tmp_path / f"whole{suffix}", clip, 8, note="a")
    video.write_parts(tmp_path / f"parts{suffix}", iter([clip[:1], clip[1:9], clip[9:]]), 8, note="a")
    assert (tmp_path / f"parts{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize(
    "parts", [[], [CLIP, CLIP[:, :32]], [CLIP, CLIP[:0]], [CLIP, CLIP.astype(float)]], ids=["none", "extent", "empty", "float"]
)
def test_parts_that_are_no_video_leave_nothing(tmp_path, suffix, parts):
    with pytest.raises(ValueError, match="frames"):
        video.write_parts(tmp_path / f"a{suffix}", parts, 8)
    assert not list(tmp_path.iterdir())


def test_an_mp4_takes_each_part_as_it_comes(tmp_path):
    """Nothing is there before the first, and no part is kept until the next is made."""
    seen, kept = [], []

    def parts():
        for _ in range(12):
            seen.append(sum(one() is not None for one in kept))
            part = CLIP[:8, :32, :32].copy()
            kept.append(weakref.ref(part))
            yield part
            del part

    made = parts()
    seen.append(len(list(tmp_path.iterdir())))
    video.write_parts(tmp_path / "a.mp4", made, 8)
    assert max(seen) <= 2 and len(video.read(tmp_path / "a.mp4")[0]) == 12 * 8


@pytest.mark.parametrize("suffix", [".mp4", ".webp"])
def test_quality_costs_bytes_and_buys_likeness(tmp_path, suffix):
    sizes, likeness = [], []
    for quality in (0, 50, 100):
        video.write(tmp_path / f"a{suffix}", CLIP, 8, quality)
        sizes.append((tmp_path / f"a{suffix}").stat().st_size)
        likeness.append(psnr(video.read(tmp_path / f"a{suffix}")[0], CLIP))
    assert sizes == sorted(set(sizes)) and likeness == sorted(set(likeness))


def test_reading_stops_after_so_many_frames(tmp_path):
    for name in ("a.mp4", "a.gif", "a.webp"):
        video.write(tmp_path / name, CLIP, 8)
        assert len(video.read(tmp_path / name, frames=5)[0]) == 5


def test_one_frame_is_the_picture_and_more_a_contact_sheet(tmp_path):
    video.write(tmp_path / "one.png", CLIP[:1], 8)
    assert (video.read(tmp_path / "one.png")[0] == CLIP[:1]).all()
    video.write(tmp_path / "all.png", CLIP, 8)
    assert (video.read(tmp_path / "all.png")[0][0] == video.contact_sheet(CLIP)).all()


@pytest.mark.parametrize("columns", [None, 1, 3, 16, 20])
def test_a_contact_sheet_shows_every_frame_once(columns):
    sheet = video.contact_sheet(CLIP, columns)
    across = columns or 8
    for index, frame in enumerate(CLIP):
        top, left = index // across * 66, index % across * 66
        assert (sheet[top : top + 64, left : left + 64] == frame).all()


def test_a_photograph_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    Image.fromarray(CLIP[0, :, :40]).save(tmp_path / "a.jpg", exif=exif)
    frames, _ = video.read(tmp_path / "a.jpg")
    assert frames.shape == (1, 40, 64, 3)
    assert psnr(frames[0], np.rot90(CLIP[0, :, :40], -1)) > 25


@pytest.mark.parametrize(
    "name, content", [("gone.mp4", None), ("empty.mp4", b""), ("text.mp4", b"hello " * 99), ("text.png", b"hello"), ("cut.gif", b"GIF89a")]
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as told:
        video.read(tmp_path / name)
    assert name in str(told.value) and "\n" not in str(told.value) and str(told.value).endswith(".")


def test_a_directory_and_a_sound_are_no_video(tmp_path):
    import wave

    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))
    for path in (tmp_path, tmp_path / "a.wav"):
        with pytest.raises(UserError, match="name a"):
            video.read(path)


def test_outputs_that_cannot_be_are_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "folder.mp4").mkdir()
    for name, words in [("a.avi", ".mp4 .gif .webp .png"), ("a", ".mp4"), ("no/a.mp4", "no directory"), ("folder.mp4", "is a directory")]:
        with pytest.raises(UserError, match=words):
            video.check_output(tmp_path / name)
    assert video.check_output(str(tmp_path / "A.MP4")) == tmp_path / "A.MP4"
    (tmp_path / "old.mp4").touch()
    monkeypatch.setattr(video.os, "access", lambda path, mode: Path(path) == tmp_path)
    with pytest.raises(UserError, match="cannot be overwritten"):
        video.check_output(tmp_path / "old.mp4")
    monkeypatch.setattr(video.os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="cannot be written to"):
        video.check_output(tmp_path / "new.mp4")


def test_a_gif_faster_than_it_can_say_is_as_fast_as_it_can(tmp_path):
    video.write(tmp_path / "a.gif", CLIP, 240)
    frames, fps = video.read(tmp_path / "a.gif")
    assert len(frames) == len(CLIP) and fps == 100


@pytest.mark.parametrize("fps, quality", [(0, None), (-8, None), (float("nan"), None), (8, 101), (8, -1)])
def test_rates_and_qualities_that_do_not_exist(tmp_path, fps, quality):
    with pytest.raises(UserError, match="use"):
        video.write(tmp_path / "a.mp4", CLIP, fps, quality)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    def fails(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "a.mp4").write_bytes(b"old")
    monkeypatch.setitem(video._WRITERS, ".mp4", fails)
    with pytest.raises(UserError, match="No space left on device"):
        video.write(tmp_path / "a.mp4", CLIP, 8)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
