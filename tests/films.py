"""Small films in many containers, and what may befall their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 25
CODECS = {".mp4": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9", ".avi": "mpeg4", ".mov": "mpeg4"}


def numbered(count: int, rows: int = 48, columns: int = 64) -> np.ndarray:
    """Frames that tell their number: a bar for each bit, over a slope."""
    frames = np.zeros((count, rows, columns, 3), np.uint8)
    frames += (np.arange(columns) * 100 // columns).astype(np.uint8)[None, None, :, None]
    for bit in range(8):
        bar = slice(bit * columns // 8, (bit + 1) * columns // 8)
        frames[(np.arange(count) >> bit) % 2 == 1, rows // 2 :, bar] = 230
    return frames


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers that frames tell."""
    _, rows, columns, _ = frames.shape
    lower = frames[:, 3 * rows // 4, columns // 16 :: columns // 8].mean(-1) > 150
    return (lower[:, :8] * 2 ** np.arange(8)).sum(1).tolist()


def film(
    path: Path,
    frames: np.ndarray,
    *,
    times: Sequence[int] | None = None,
    gop: int = 250,
    pixels: str = "yuv420p",
    codec: str | None = None,
    options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    rotation: int = 0,
    whole: bool = False,
) -> Path:
    """Written as it is told; `times` in hundredths of a second, `whole`: full-range colours."""
    if path.suffix == ".gif":
        from videodit.data import video

        video.write(path, frames, RATE)
        return path
    with av.open(str(path), "w") as container:
        name = codec or CODECS[path.suffix]
        stream: Any = container.add_stream(name, rate=RATE, options={"g": str(gop), "threads": "1", **(options or {})})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        stream.codec_context.bit_rate = 2_000_000
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if whole:
            stream.codec_context.color_range = 2
        if rotation:
            stream.set_display_rotation(rotation)
        for number, picture in enumerate(frames):
            clear = picture.shape[-1] == 4
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgba" if clear else "rgb24")
            frame = frame.reformat(format=pixels, dst_color_range=2 if whole else 1, dst_colorspace="ITU601")
            frame.pts, frame.time_base = (number, Fraction(1, RATE)) if times is None else (times[number], Fraction(1, 100))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes turned, cut off, cut out, doubled, filled with zeros, or put elsewhere."""
    whole = bytearray(data)
    kind = rng.integers(6)
    at = int(rng.integers(len(whole)))
    span = int(min(len(whole) - at, 2 ** rng.integers(1, 13)))
    if kind == 0:
        for place in rng.integers(len(whole), size=2 ** rng.integers(0, 7)):
            whole[place] ^= 1 << rng.integers(8)
    elif kind == 1:
        del whole[at:]
    elif kind == 2:
        del whole[at : at + span]
    elif kind == 3:
        whole[at:at] = whole[at : at + span]
    elif kind == 4:
        whole[at : at + span] = bytes(span)
    else:
        part = whole[at : at + span]
        del whole[at : at + span]
        other = int(rng.integers(len(whole) + 1))
        whole[other:other] = part
    return bytes(whole)
