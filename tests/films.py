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
    units: int = 100,
    gop: int = 250,
    pixels: str = "yuv420p",
    codec: str | None = None,
    options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    rotation: int = 0,
    whole: bool = False,
    container: dict[str, str] | None = None,
) -> Path:
    """Written as it is told; `times` in so many `units` of a second, `whole`: full-range colours, `container`: its options."""
    if path.suffix == ".gif":
        from videodit.data import video

        video.write(path, frames, RATE)
        return path
    with av.open(str(path), "w", options=container or {}) as made:
        name = codec or CODECS[path.suffix]
        stream: Any = made.add_stream(name, rate=RATE, options={"g": str(gop), "threads": "1", **(options or {})})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        stream.codec_context.bit_rate = 2_000_000
        if times is not None:
            stream.codec_context.time_base = Fraction(1, units)
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
            frame.pts, frame.time_base = (number, Fraction(1, RATE)) if times is None else (times[number], Fraction(1, units))
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
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


def edited(film: bytes, edits: Sequence[tuple[int, int]]) -> bytes:
    """An .mp4 whose first track has these edits and no others: milliseconds that one lasts, and from which on (-1: a pause)."""
    made = bytearray(film)
    moov = made.index(b"moov") - 4
    trak = made.index(b"trak", moov) - 4
    header = made.index(b"tkhd", trak) - 4
    scale, units = (int.from_bytes(made[(at := made.index(name, moov) + 16) : at + 4], "big") for name in (b"mvhd", b"mdhd"))
    table = b"".join(
        round(lasts * scale / 1000).to_bytes(4, "big")
        + (start if start < 0 else round(start * units / 1000)).to_bytes(4, "big", signed=True)
        + b"\0\1\0\0"
        for lasts, start in edits
    )
    elst = boxed(b"elst", bytes(4) + len(edits).to_bytes(4, "big") + table)
    whole = round(sum(lasts for lasts, _ in edits) * scale / 1000).to_bytes(4, "big")
    if b"moof" not in film:  # where the head of a fragmented one does not say how long it is
        made[header + 28 : header + 32] = made[moov + 32 : moov + 36] = whole
    at = header + int.from_bytes(made[header : header + 4], "big")
    old = int.from_bytes(made[at : at + 4], "big") if made[at + 4 : at + 8] == b"edts" else 0
    made[at : at + old] = edts = boxed(b"edts", elst)
    for box in (moov, trak):
        made[box : box + 4] = (int.from_bytes(made[box : box + 4], "big") + len(edts) - old).to_bytes(4, "big")
    if made.find(b"mdat") > moov and (table_at := made.find(b"stco", moov)) > 0:
        for place in range(table_at + 12, table_at + 12 + 4 * int.from_bytes(made[table_at + 8 : table_at + 12], "big"), 4):
            made[place : place + 4] = (int.from_bytes(made[place : place + 4], "big") + len(edts) - old).to_bytes(4, "big")
    return bytes(made)


def boxed(name: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + name + content


def sounding(
    path: Path, frames: np.ndarray, options: dict[str, str], *, times: Sequence[int] | None = None, sound: float = 0.0, late: int = 0
) -> Path:
    """A film with B-frames; `times` in hundredths of a second, `sound`: seconds of it, `late`: frames after which the picture begins."""
    with av.open(str(path), "w", options=options) as container:
        stream: Any = container.add_stream(CODECS[path.suffix] if path.suffix == ".avi" else "libx264", rate=RATE)
        stream.options = {"g": "10", "bf": "3"} if path.suffix != ".avi" else {}
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE) if times is None else Fraction(1, 100)
        heard: Any = container.add_stream("aac" if path.suffix != ".avi" else "mp3", rate=48000, layout="mono") if sound else None
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number + late if times is None else times[number]
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for at in range(0, int(sound * 48000), 1024):
            sample = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sample.pts, sample.sample_rate, sample.time_base = at, 48000, Fraction(1, 48000)
            container.mux(heard.encode(sample))
        if heard:
            container.mux(heard.encode(None))
    return path
