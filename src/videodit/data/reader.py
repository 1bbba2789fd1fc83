"""A file -> its frames as they are to be seen, and whether it keeps its own word. It runs in `worker`'s process, which may die of it.

Frame i is the picture that is shown i / rate seconds after the first: files of uneven rate are read by their timestamps. Pictures are
upright (rotation and mirroring), their pixels square, full-range RGB by the file's own matrix; what is transparent is black. A file that
contradicts itself, or that FFmpeg has to mend, is at fault.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.logging
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import Colorspace, VideoReformatter
from PIL import Image, ImageOps, UnidentifiedImageError

from videodit.data import containers
from videodit.data.item import Window, pictures
from videodit.data.probe import STILL, Fault, Probe, first_stream, opened, probe_stream

SHOT = 25.0  # the rate of a folder of pictures, which has none
LARGEST = 8192 * 8192  # pixels of a frame
WIDEST = 8  # a pixel's width to its height, or the reverse
FULL, LIMITED = 2, 1  # FFmpeg's numbers of colour ranges
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
_UNTRUE = (
    FFmpegError,
    UnidentifiedImageError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    OSError,
    SyntaxError,
    ValueError,
)


class Reader:
    """One file, open."""

    def __init__(self, path: str, at: int = 0, size: int | None = None) -> None:
        self.file: Any = None
        if Path(path).is_dir():
            self.made, self.probe = partial(_folder, Path(path)), _probe_folder(Path(path))
            return
        with _faults():
            plain = Path(path).open("rb")  # noqa: SIM115
            self.file = plain if size is None else Window(plain, at, size)
        kind = containers.kind(self.file.read(16))
        if kind is None:
            raise Fault("it begins like no format that is read here: .mp4 .mov .mkv .webm .avi .gif .webp .png .jpg .bmp")
        if said := containers.unended(self.file, kind):
            raise Fault(said)
        still = containers.FORMATS[kind] is None
        self.made = partial(_pictures if still else _decoded, self.file)
        with _faults():
            self.probe = (_probe_pictures if still else probe_stream)(self.file, kind)

    def frames(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames from `start` up to `stop`, each as often as it is shown."""
        shown = self.probe.shown[start:stop]
        back = [i for i in range(1, len(shown)) if shown[i] < shown[i - 1]]  # where edits show again what was shown before
        for first, behind in zip([0, *back], [*back, len(shown)], strict=True):
            yield from self._onwards(shown[first:behind])

    def _onwards(self, shown: tuple[int, ...]) -> Iterator[np.ndarray]:
        """Frames by number, none before another that stands behind it in the file."""
        if not shown:
            return
        with _faults():
            made = self.made(self.probe, shown[0], shown[-1])
            at, frame, extent = shown[0] - 1, None, None
            for wanted in shown:
                while at < wanted:
                    frame, at = next(made, None), at + 1
                    if frame is None:
                        raise Fault(f"{self.probe.decoded} frames are announced and {at} come")
                    extent = extent or frame.shape
                    if frame.shape != extent:
                        raise Fault(f"its frames change from {_extent(extent)} to {_extent(frame.shape)}")
                assert frame is not None
                yield frame
            if next(made, None) is not None:
                raise Fault(f"{self.probe.decoded} frames are announced and more come")

    def note(self) -> str:
        """The text that was kept in the file."""
        kind = self.probe.kind
        with _faults():
            if kind == "folder":
                return ""
            if kind in ("mp4", "matroska", "avi"):
                with opened(self.file, kind) as container:
                    return container.metadata.get("comment", "")
            with _picture(self.file, kind) as image:
                text = image.info.get("comment") or image.info.get("xmp") or ""
        return text.decode(errors="replace") if isinstance(text, bytes) else str(text)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


class _faults:
    """Whatever the libraries say of a file is a fault of it; so is what FFmpeg had to mend."""

    def __enter__(self) -> None:
        forget()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, MemoryError):
            raise Fault("it needs more memory than one file may have") from None
        if isinstance(error, _UNTRUE):
            raise Fault(" ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__) from None
        if error is None and (said := heard()):
            raise Fault(f"FFmpeg says: {said}")


def listen() -> None:
    """Errors of FFmpeg go to a file in memory in place of this process's standard error; only the worker's process does so."""
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)
    _HEARD.append(os.memfd_create("said"))
    os.dup2(_HEARD[0], 2)


def forget() -> None:
    if _HEARD:
        os.ftruncate(_HEARD[0], 0)
        os.lseek(_HEARD[0], 0, os.SEEK_SET)


def heard() -> str:
    """The first line that FFmpeg said since, but that it may not decode sound, of which nothing is wanted."""
    text = os.pread(_HEARD[0], 1 << 16, 0).decode(errors="replace") if _HEARD else ""
    lines = [line for line in text.strip().splitlines() if "not on whitelist" not in line]
    return " ".join((lines or [""])[0].split("] ", 1)[-1].split())[:2000]


_HEARD: list[int] = []


# --- Streams ---


def _decoded(file: BinaryIO, probe: Probe, first: int, last: int) -> Iterator[np.ndarray]:
    """Decoded frames from number `first`: found by the key frame before it, or else counted from the beginning.

    What FFmpeg says behind a jump may be of frames before it, to which those of an open GOP refer: it counts where it is said again.
    """
    with opened(file, probe.kind, probe.cut) as container:
        stream = first_stream(container)
        stream.thread_type, stream.thread_count = "AUTO", min(8, len(os.sched_getaffinity(0)))
        before = [key for key in probe.keys if key <= first]
        jump = bool(probe.times and before and before[-1] > 0)
        if jump:
            container.seek(probe.times[before[-1]], stream=stream, backward=True)
        number = None if jump else 0
        for frame in _frames(container, stream):
            if number is None:
                number = probe.times.index(frame.pts) if frame.pts in probe.times else last + 1
            if number > first or (jump and heard()):
                break
            if (frame.height, frame.width) != probe.size:
                raise Fault(f"its frames of {_extent(probe.size)} come as {frame.height}x{frame.width}")
            if number == first:
                yield _seen(frame, stream)
                first += 1
            number += 1
            if number > last and last + 1 < probe.decoded:
                break
    if jump and (first <= last or heard()):
        forget()
        yield from _decoded(file, probe._replace(keys=()), first, last)


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """All frames; those of VP8 and VP9 with transparency by the decoder that knows it."""
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name) if stream.metadata.get("alpha_mode") == "1" else None
    if name is None:
        yield from container.decode(stream)
        return
    decoder: Any = av.CodecContext.create(name, "r")
    decoder.extradata = stream.codec_context.extradata
    for packet in container.demux(stream):
        yield from decoder.decode(packet if packet.size else None)


_REFORMATTER = VideoReformatter()


def _seen(frame: Any, stream: Any) -> np.ndarray:
    """A frame as it is to be seen: h w 3."""
    rows, columns = frame.height, frame.width
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if aspect <= 0:
        aspect = Fraction(1)
    if not Fraction(1, WIDEST) <= aspect <= WIDEST:
        raise Fault(f"its pixels are {float(aspect):g} times as wide as high")
    wide = max(1, round(columns * aspect))
    if rows * wide > LARGEST:
        raise Fault(f"its frames of {rows}x{wide} are too large")
    clear = any(c.is_alpha for c in frame.format.components) or frame.format.name == "pal8"
    # Who says nothing means what players take it for: BT.709 where it is high definition.
    matrix = _MATRICES.get(int(frame.colorspace), Colorspace.ITU709 if rows > 576 or columns >= 1280 else Colorspace.ITU601)
    whole = FULL if frame.format.is_rgb or frame.format.name.startswith("yuvj") or int(frame.color_range) == FULL else LIMITED
    made = _REFORMATTER.reformat(
        frame,
        width=wide,
        format="rgba" if clear else "rgb24",
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=whole,
        dst_color_range=FULL,
        interpolation="BILINEAR" if wide == columns else "BICUBIC",
    )
    return _turned(_opaque(made.to_ndarray()), frame)


def _opaque(picture: np.ndarray) -> np.ndarray:
    """What is transparent is black."""
    if picture.shape[-1] == 3:
        return picture
    alpha = picture[..., 3:].astype(np.uint16)
    return picture[..., :3] if alpha.min() == 255 else ((picture[..., :3] * alpha + 127) // 255).astype(np.uint8)


def _turned(picture: np.ndarray, frame: Any) -> np.ndarray:
    """Telephones store a frame on its side or mirrored, with a matrix that sets it right."""
    matrix = next((np.frombuffer(bytes(data), np.int32) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return picture
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
    if a * d - b * c < 0:  # mirrored, then turned
        picture, a, b = picture[:, ::-1], -a, -b
    quarters = round(np.degrees(np.arctan2(-b, a)) / 90) % 4
    return np.rot90(picture, quarters)


# --- Pictures ---


def _picture(file: BinaryIO, kind: str) -> Image.Image:
    file.seek(0)
    return Image.open(file, formats=[kind.upper()])


def _probe_pictures(file: BinaryIO, kind: str) -> Probe:
    """A picture, or the pictures of an animation, which stores one that is shown again as one shown longer."""
    with _picture(file, kind) as image:
        times = []
        if image.width * image.height > LARGEST:
            raise Fault(f"its picture of {image.height}x{image.width} is too large")
        count = getattr(image, "n_frames", 1)
        for index in range(count):
            image.seek(index)
            image.load()
            times.append(image.info.get("duration", 0) / 1000)
        image.seek(0)
        columns, rows = ImageOps.exif_transpose(image).size
    if min(times) <= 0:
        return Probe(kind, (rows, columns), STILL, tuple(range(count)), decoded=count)
    once = float(np.mean([time for time in times if time < 1.5 * min(times)]))
    counts = [round(time / once) for time in times]
    if sum(counts) > 100 * count + 1000:
        raise Fault(f"its {count} pictures last {sum(times):.0f} s")
    return Probe(kind, (rows, columns), sum(counts) / sum(times), tuple(np.repeat(np.arange(count), counts).tolist()), decoded=count)


def _pictures(file: BinaryIO, probe: Probe, first: int, last: int) -> Iterator[np.ndarray]:
    with _picture(file, probe.kind) as image:
        for index in range(first, last + 1):
            image.seek(index)
            seen = _eight(ImageOps.exif_transpose(image))
            yield _opaque(np.asarray(seen.convert("RGBA" if seen.has_transparency_data else "RGB")))


def _eight(image: Image.Image) -> Image.Image:
    """A picture of 16 bits a pixel, as microscopes and depth cameras write, in 8: Pillow's own conversion is white from 256 on."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I") else image


def _probe_folder(folder: Path) -> Probe:
    count = len(pictures(folder))
    if not count:
        raise Fault("it is a folder without pictures")
    return Probe("folder", (0, 0), SHOT, tuple(range(count)), decoded=count)


def _folder(folder: Path, probe: Probe, first: int, last: int) -> Iterator[np.ndarray]:
    """The pictures of a folder, one a frame."""
    for path in pictures(folder)[first : last + 1]:
        with path.open("rb") as file:
            kind = containers.kind(file.read(16))
            if kind is None or containers.FORMATS[kind] is not None:
                raise Fault(f"{path.name} is no picture")
            yield from _pictures(file, probe._replace(kind=kind), 0, 0)


def _extent(shape: Any) -> str:
    return f"{shape[0]}x{shape[1]}"
