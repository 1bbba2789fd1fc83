"""Files to frames and back: PyAV for streams, Pillow for pictures.

Frames are uint8, f h w c, RGB. A file is written under another name beside its own and then renamed, so nothing half-written
stays and an old file is lost only to a whole new one. The same frames give the same bytes on any number of cores, in .mp4 as long as
rows and columns are multiples of 8, which every model's are: at 66 columns x264's assembly now and then gave other bytes.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.filter import Graph
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from videodit.shapes import UserError

Frames = UInt8[np.ndarray, "f h w 3"]
Picture = UInt8[np.ndarray, "h w 3"]
Sheet = UInt8[np.ndarray, "y x 3"]

NOTHING = np.zeros((0, 1, 1, 3), np.uint8)
STILL = 1.0  # the rate of a file that holds one picture
_PICTURES = (".png", ".webp", ".jpg", ".jpeg", ".bmp")  # what Pillow reads; FFmpeg, inside PyAV, reads everything else
_BT709 = 1  # FFmpeg's number for it: the colours are stated in the file, because players guess them by size


# --- Reading ---


def read(path: str | Path, *, frames: int | None = None) -> tuple[Frames, float]:
    """The frames of a video or picture and its rate in frames a second; `frames` stops after so many."""
    path = Path(path)
    with _said(path):
        reader = _read_pictures if path.suffix.lower() in _PICTURES else _read_stream
        video, fps = reader(path, frames)
    if not len(video):
        raise UserError(f"{path} holds no picture: name a file with a video stream, such as an .mp4.")
    return video, fps


def stream(path: str | Path) -> Iterator[np.ndarray]:
    """The frames (h w 3) of a video one by one, for files that memory does not hold."""
    path = Path(path)
    with _said(path), av.open(str(path)) as container:
        if container.streams.video:
            container.streams.video[0].thread_type = "AUTO"
            yield from map(_upright, container.decode(container.streams.video[0]))


def read_note(path: str | Path) -> str:
    """The text that `write` kept in a file; empty where there is none."""
    path = Path(path)
    with _said(path):
        if path.suffix.lower() not in (".png", ".webp", ".gif"):
            with av.open(str(path)) as container:
                return container.metadata.get("comment", "")
        with Image.open(path) as image:
            text = image.info.get("comment") or image.info.get("xmp") or ""
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def fitted(frames: Frames, rows: int, columns: int) -> UInt8[np.ndarray, "f y x 3"]:
    """Frames resized, and cropped around their middle where their shape is another."""
    _, height, width, _ = frames.shape
    if (height, width) == (rows, columns):
        return frames
    scale = max(rows / height, columns / width)
    box = ((width - columns / scale) / 2, (height - rows / scale) / 2, (width + columns / scale) / 2, (height + rows / scale) / 2)
    return np.stack([np.asarray(Image.fromarray(frame).resize((columns, rows), Image.Resampling.LANCZOS, box)) for frame in frames])


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """What keeps a file from being read, in one sentence."""
    if path.is_dir() or not path.exists():
        raise UserError(f"{path} is {'a directory' if path.is_dir() else 'not there'}: name a video or picture that exists.")
    try:
        yield
    except (FFmpegError, UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a video or picture ({_one_line(error)}): name another, such as an .mp4.") from error


def _read_stream(path: Path, frames: int | None) -> tuple[Frames, float]:
    with av.open(str(path)) as container:
        if not container.streams.video:
            return NOTHING, STILL
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = stream.average_rate or stream.guessed_rate
        decoded = list(islice(container.decode(stream), frames))
        if container.format.name == "gif" and decoded:  # its header has no rate, only a time for each frame
            seconds = sum(frame.duration * (frame.time_base or 0) for frame in decoded)
            rate = len(decoded) / seconds if seconds else None
    return np.stack([_upright(frame) for frame in decoded]) if decoded else NOTHING, float(rate or STILL)


def _upright(frame: av.VideoFrame) -> Picture:
    """A frame as it is to be seen: telephones store it lying on its side, with an angle."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)


def _read_pictures(path: Path, frames: int | None) -> tuple[Frames, float]:
    """A picture, or the pictures of an animation, which stores one that is shown again as one shown longer."""
    with Image.open(path) as image:
        pictures, times = [], []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            pictures.append(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
            times.append(image.info.get("duration", 0) / 1000)
    if min(times) <= 0:
        return np.stack(pictures)[:frames], STILL
    once = np.mean([time for time in times if time < 1.5 * min(times)])
    counts = [round(time / once) for time in times]
    return np.repeat(np.stack(pictures), counts, axis=0)[:frames], sum(counts) / sum(times)


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


# --- Writing ---


def write(path: str | Path, frames: Frames, fps: float | int, quality: int | None = None, *, note: str = "") -> None:
    """Write a video; the suffix says as what. `quality`, 0 to 100, is for .mp4 (64 unless told) and .webp (lossless unless told).

    `note`: text that is kept in the file, beside the pictures.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"frames are uint8, f h w 3, and not empty; these are {frames.dtype} {frames.shape}")
    if not fps > 0:
        raise UserError(f"A video of {fps} frames a second cannot be shown: use a number above 0, such as 8.")
    if quality is not None and not 0 <= quality <= 100:
        raise UserError(f"A quality of {quality} does not exist: use 0 (small) to 100 (good).")
    path = check_output(path)
    part = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix.lower()}")
    try:
        _WRITERS[path.suffix.lower()](part, np.ascontiguousarray(frames), fps, quality, note)
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({_one_line(error)}): name another place.") from error
    finally:
        part.unlink(missing_ok=True)


def check_output(path: str | Path) -> Path:
    """The path, if a video can be written there; asked before the work, so that the work is not lost."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a directory: name a file in it, such as {path / 'video.mp4'}.")
    if path.suffix.lower() not in _WRITERS:
        raise UserError(f"{path} has no suffix that can be written: use one of {' '.join(_WRITERS)}.")
    if not path.parent.is_dir():
        raise UserError(f"There is no directory {path.parent} to write {path.name} in: make it first, or name one that exists.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"The directory {path.parent} cannot be written to: name another place.")
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"{path} is there and cannot be overwritten: name another file.")
    return path


def contact_sheet(frames: Frames, columns: int | None = None) -> Sheet:
    """All frames in one picture, row by row, at most 8 in a row unless told."""
    count, height, width, _ = frames.shape
    across = columns or min(count, 8)
    gap, rows = 2, math.ceil(count / across)
    sheet = np.full((rows * (height + gap) - gap, across * (width + gap) - gap, 3), 128, np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // across * (height + gap), index % across * (width + gap)
        sheet[top : top + height, left : left + width] = frame
    return sheet


def _write_mp4(path: Path, frames: Frames, fps: float | int, quality: int | None, note: str) -> None:
    """H.264 in 4:2:0, which every player shows; an odd height or width is made even by repeating its last line."""
    _, height, width, _ = frames.shape
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    crf = max(1, round((100 - (64 if quality is None else quality)) / 2))  # 0 is x264's lossless mode, which few players know
    # One thread: how x264 divides its work over threads shows in its bytes.
    options = {"crf": str(crf), "preset": "medium", "threads": "1"}
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        if note:
            container.metadata["comment"] = note
        stream: Any = container.add_stream("libx264", rate=_rate(fps), options=options)
        stream.height, stream.width, stream.pix_fmt = even.shape[1], even.shape[2], "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        for picture in even:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p", dst_colorspace="ITU709")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_gif(path: Path, frames: Frames, fps: float | int, quality: int | None, note: str) -> None:
    """A palette of 255 colours for the whole clip; times are hundredths of a second."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("gif", rate=_rate(fps))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "pal8"
        for frame in _with_palette(frames, fps):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if note:  # FFmpeg writes no comments: theirs is a block of parts of at most 255 bytes, behind the header and its palette
        text, whole = note.encode(), path.read_bytes()
        start = 13 + (3 * 2 ** (whole[10] % 8 + 1) if whole[10] & 128 else 0)
        parts = b"".join(bytes([len(part)]) + part for part in (text[i : i + 255] for i in range(0, len(text), 255)))
        path.write_bytes(whole[:start] + b"!\xfe" + parts + b"\0" + whole[start:])


def _with_palette(frames: Frames, fps: float | int) -> Iterator[av.VideoFrame]:
    _, height, width, _ = frames.shape
    graph = Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=1 / _rate(fps))
    split, palette, use, sink = (graph.add(name) for name in ("split", "palettegen", "paletteuse", "buffersink"))
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    for index, picture in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = index, 1 / _rate(fps)
        graph.push(frame)
    graph.push(None)
    for _ in frames:
        yield graph.vpull()


def _write_webp(path: Path, frames: Frames, fps: float | int, quality: int | None, note: str) -> None:
    ends = np.rint(np.arange(len(frames) + 1) * 1000 / fps).astype(int)  # milliseconds, rounded so that they add up
    first, *rest = (Image.fromarray(frame) for frame in frames)
    animation = {"save_all": True, "append_images": rest, "duration": np.diff(ends).tolist(), "loop": 0} if rest else {}
    options: dict[str, Any] = {**animation, **({"xmp": note.encode()} if note else {})}
    first.save(path, lossless=quality is None, quality=100 if quality is None else quality, **options)


def _write_png(path: Path, frames: Frames, fps: float | int, quality: int | None, note: str) -> None:
    """One frame is the picture; more are a contact sheet."""
    kept = PngInfo()
    if note:
        kept.add_itxt("comment", note)
    Image.fromarray(frames[0] if len(frames) == 1 else contact_sheet(frames)).save(path, pnginfo=kept)


_WRITERS: dict[str, Callable[[Path, Frames, float, int | None, str], None]] = {
    ".mp4": _write_mp4,
    ".gif": _write_gif,
    ".webp": _write_webp,
    ".png": _write_png,
}


def _rate(fps: float | int) -> Fraction:
    """The rate as FFmpeg counts it, which finds 30000/1001 behind 29.97."""
    return Fraction(fps).limit_denominator(1001)
