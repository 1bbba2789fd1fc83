"""Files to frames and back: PyAV for streams, Pillow for pictures; files are read in a process of its own (`worker`).

Frames are uint8, f h w c, RGB. A file is written under another name beside its own and then renamed, so nothing half-written
stays and an old file is lost only to a whole new one. The same frames give the same bytes on any number of cores, in .mp4 as long as
rows and columns are multiples of 8, which every model's are: at 66 columns x264's assembly now and then gave other bytes.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.filter import Graph
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from videodit.data import worker
from videodit.data.item import Crop, Item, at_hand
from videodit.shapes import UserError

Frames = UInt8[np.ndarray, "f h w 3"]
Picture = UInt8[np.ndarray, "h w 3"]
Sheet = UInt8[np.ndarray, "y x 3"]
Place = str | Path | Item  # a file, or what a source names

MOST = 8 << 30  # bytes of frames that are read at once
_BT709 = 1  # FFmpeg's number for it: the colours are stated in the file, because players guess them by size


# --- Reading ---


class Unreadable(UserError):
    """What keeps a file from being read, whatever it was: the one exception of all files."""

    def __init__(self, path: Path, reason: str, said: str = "") -> None:
        super().__init__(said or f"{path} cannot be read as a video or picture ({reason}): name another, such as an .mp4.")
        self.path, self.reason = path, reason


def read(path: Place, *, frames: int | None = None, start: int = 0, seconds: float | None = None) -> tuple[Frames, float]:
    """The frames of a video or picture from `start` on, and its rate in frames a second; `frames` stops after so many.

    `seconds`: of work that a file may take.
    """
    item = _item(path)
    stop = None if frames is None else start + frames
    answers = _asked(path, {"what": "frames", "start": start, "stop": stop}, seconds)
    told = next(answers)[0]
    count, at = min(told["frames"], told["frames"] if stop is None else stop) - start, 0
    if count < 1:
        raise Unreadable(item.path, f"it has no frame {start}")
    whole: Frames | None = None
    for part in (part for _, part in answers if part is not None):
        if count * part[0].nbytes > MOST:
            raise Unreadable(item.path, "it needs more memory than one file may have")
        whole = np.empty((count, *part.shape[1:]), np.uint8) if whole is None else whole
        if part.shape[1:] != whole.shape[1:] or at + len(part) > count:
            raise Unreadable(item.path, "its decoder gave other frames than it announced")
        whole[at : at + len(part)], at = part, at + len(part)
    if whole is None or at < count:
        raise Unreadable(item.path, "its decoder gave fewer frames than it announced")
    return whole, told["fps"]


def stream(path: Place, *, start: int = 0, stop: int | None = None, seconds: float | None = None) -> Iterator[np.ndarray]:
    """The frames (h w 3) of a video one by one, for files that memory does not hold."""
    for _, part in _asked(path, {"what": "frames", "start": start, "stop": stop}, seconds):
        yield from () if part is None else part.copy()


class Told(NamedTuple):
    """What the packets of a file say: frames that are read, rate, rows and columns as they are stored, container."""

    frames: int
    fps: float
    size: tuple[int, int]
    kind: str


def probe(path: Place, *, seconds: float | None = None) -> Told:
    """What a file will give, without decoding it."""
    ((answer, _),) = _asked(path, {"what": "probe"}, seconds)
    return Told(answer["frames"], answer["fps"], tuple(answer["size"]), answer["kind"])


def read_note(path: str | Path) -> str:
    """The text that `write` kept in a file; empty where there is none."""
    ((answer, _),) = _asked(path, {"what": "note"})
    return answer["note"]


def fitted(frames: Frames, rows: int, columns: int) -> UInt8[np.ndarray, "f y x 3"]:
    """Frames resized, and cropped around their middle where their shape is another."""
    _, height, width, _ = frames.shape
    if (height, width) == (rows, columns):
        return frames
    scale = max(rows / height, columns / width)
    box = ((width - columns / scale) / 2, (height - rows / scale) / 2, (width + columns / scale) / 2, (height + rows / scale) / 2)
    return np.stack([np.asarray(Image.fromarray(frame).resize((columns, rows), Image.Resampling.LANCZOS, box)) for frame in frames])


def _item(path: Place) -> Item:
    return path if isinstance(path, Item) else Item(Path(path))


def _asked(place: Place, request: dict[str, Any], seconds: float | None = None) -> Iterator[tuple[dict[str, Any], Frames | None]]:
    """The answers of the process that decodes."""
    item = _item(place)
    path = item.path
    if item.inside is None and (not path.exists() or (path.is_dir() and not isinstance(place, Item))):
        what = f"is {'a directory' if path.is_dir() else 'not there'}"
        raise Unreadable(path, f"it {what}", f"{path} {what}: name a video or picture that exists.")
    with at_hand(item) as (name, at, size):
        try:
            for answer, part in worker.asked({"path": name, "at": at, "size": size, **request}, seconds):
                yield answer, part if part is None or item.crop is None else _cropped(item, part, item.crop)
        except worker.Died as error:
            raise Unreadable(path, str(error)) from None


def _cropped(item: Item, frames: Frames, crop: Crop) -> UInt8[np.ndarray, "f y x 3"]:
    """What an entry of a list says is to be read of each frame."""
    rows, columns, top, left = crop
    if top + rows > frames.shape[1] or left + columns > frames.shape[2]:
        raise Unreadable(item.path, f"its list crops it to {crop}, and its frames are {frames.shape[1]}x{frames.shape[2]}")
    return frames[:, top : top + rows, left : left + columns]


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


# --- Writing ---


def write(path: str | Path, frames: Frames, fps: float | int, quality: int | None = None, *, note: str = "") -> None:
    """Write a video; the suffix says as what. `quality`, 0 to 100, is for .mp4 (64 unless told) and .webp (lossless unless told).

    `note`: text that is kept in the file, beside the pictures.
    """
    write_parts(path, [frames], fps, quality, note=note)


def write_parts(path: str | Path, parts: Iterable[np.ndarray], fps: float | int, quality: int | None = None, *, note: str = "") -> None:
    """The same of frames that come part by part. An .mp4 takes each as it comes; the others begin when all are there.

    Nothing is on disk before the first part is made.
    """
    if not fps > 0:
        raise UserError(f"A video of {fps} frames a second cannot be shown: use a number above 0, such as 8.")
    if quality is not None and not 0 <= quality <= 100:
        raise UserError(f"A quality of {quality} does not exist: use 0 (small) to 100 (good).")
    path = check_output(path)
    part = path.with_name(f".{uuid.uuid4().hex[:16]}{path.suffix.lower()}")  # short, however long the other is
    try:
        _WRITERS[path.suffix.lower()](part, _checked(parts), fps, quality, note)
        part.replace(path)
    except BrokenPipeError:  # of whoever read what is told while the parts are made, not of the file
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be written ({_one_line(error)}): name another place.") from error
    finally:
        part.unlink(missing_ok=True)


def _checked(parts: Iterable[np.ndarray]) -> Iterator[Frames]:
    extents: set[tuple[int, ...]] = set()
    for part in parts:
        extents.add(part.shape[1:])
        if part.dtype != np.uint8 or part.ndim != 4 or part.shape[-1] != 3 or not part.size or len(extents) > 1:
            raise ValueError(f"frames are uint8, f h w 3, not empty, and of one extent; these are {part.dtype} {part.shape}")
        yield np.ascontiguousarray(part)
    if not extents:
        raise ValueError("there are no frames to write")


def _whole(parts: Iterator[Frames]) -> Frames:
    """For formats that begin with what all frames need: a palette, a sheet, all pictures at once."""
    some = list(parts)
    return some[0] if len(some) == 1 else np.concatenate(some)


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


def _write_mp4(path: Path, parts: Iterator[Frames], fps: float | int, quality: int | None, note: str) -> None:
    """H.264 in 4:2:0, which every player shows; an odd height or width is made even by repeating its last line."""
    first = next(parts)
    _, height, width, _ = first.shape
    crf = max(1, round((100 - (64 if quality is None else quality)) / 2))  # 0 is x264's lossless mode, which few players know
    # One thread: how x264 divides its work over threads shows in its bytes.
    options = {"crf": str(crf), "preset": "medium", "threads": "1"}
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        if note:
            container.metadata["comment"] = note
        stream: Any = container.add_stream("libx264", rate=_rate(fps), options=options)
        stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        for part in chain([first], parts):
            for picture in np.pad(part, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge"):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p", dst_colorspace="ITU709")
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_gif(path: Path, parts: Iterator[Frames], fps: float | int, quality: int | None, note: str) -> None:
    """A palette of 255 colours for the whole clip; times are hundredths of a second, so it shows 100 frames in one at most."""
    frames, fps = _whole(parts), min(fps, 100)
    ends = [int(100 * Fraction(end) / _rate(fps) + Fraction(1, 2)) for end in (len(frames) - 1, len(frames))]
    last = min(ends[1] - ends[0], 65535)  # FFmpeg would repeat the delay before, and 8 frames a second were 7.96
    with av.open(str(path), "w", options={"final_delay": str(last)}) as container:
        stream: Any = container.add_stream("gif", rate=_rate(fps))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "pal8"
        for frame in _with_palette(frames, fps):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if note:  # FFmpeg writes no comments: theirs is a block of parts of at most 255 bytes, behind the header and its palette
        text, whole = note.encode(), path.read_bytes()
        start = 13 + (3 * 2 ** (whole[10] % 8 + 1) if whole[10] & 128 else 0)
        blocks = b"".join(bytes([len(part)]) + part for part in (text[i : i + 255] for i in range(0, len(text), 255)))
        path.write_bytes(whole[:start] + b"!\xfe" + blocks + b"\0" + whole[start:])


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


def _write_webp(path: Path, parts: Iterator[Frames], fps: float | int, quality: int | None, note: str) -> None:
    frames = _whole(parts)
    ends = np.rint(np.arange(len(frames) + 1) * 1000 / fps).astype(int)  # milliseconds, rounded so that they add up
    first, *rest = (Image.fromarray(frame) for frame in frames)
    animation = {"save_all": True, "append_images": rest, "duration": np.diff(ends).tolist(), "loop": 0} if rest else {}
    options: dict[str, Any] = {**animation, **({"xmp": note.encode()} if note else {})}
    first.save(path, lossless=quality is None, quality=100 if quality is None else quality, **options)


def _write_png(path: Path, parts: Iterator[Frames], fps: float | int, quality: int | None, note: str) -> None:
    """One frame is the picture; more are a contact sheet."""
    frames, kept = _whole(parts), PngInfo()
    if note:
        kept.add_itxt("comment", note)
    Image.fromarray(frames[0] if len(frames) == 1 else contact_sheet(frames)).save(path, pnginfo=kept)


_WRITERS: dict[str, Callable[[Path, Iterator[Frames], float, int | None, str], None]] = {
    ".mp4": _write_mp4,
    ".gif": _write_gif,
    ".webp": _write_webp,
    ".png": _write_png,
}


def _rate(fps: float | int) -> Fraction:
    """The rate as FFmpeg counts it, which finds 30000/1001 behind 29.97."""
    return Fraction(fps).limit_denominator(1001)
