"""What a file of frames says of itself, and what its packets say against that, before anything is decoded."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np

from videodit.data import containers, lengths

STILL = 1.0  # the rate of a file that holds one picture
MOST = 5_000_000  # frames of a file


class Fault(Exception):
    """Why a file cannot be used."""


class Probe(NamedTuple):
    """What a file says of itself and what its packets say: `shown` has for each frame that is read the number of the one decoded."""

    kind: str
    size: tuple[int, int]  # rows and columns as they are stored
    fps: float
    shown: tuple[int, ...]
    times: tuple[int, ...] = ()  # of the decoded frames, in the stream's own unit; empty where packets have none
    keys: tuple[int, ...] = ()
    decoded: int = 0


def opened(file: BinaryIO, kind: str) -> Any:
    """By its own demuxer alone, from an open file: FFmpeg gets no name, and whatever else it asks for is refused."""
    file.seek(0)
    guard = {"protocol_whitelist": "none", "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"}
    guard |= {"codec_whitelist": ",".join(containers.CODECS)}
    name = containers.FORMATS[kind]
    return av.open(file, format=name, container_options=guard, io_open=_refused, metadata_errors="replace", buffer_size=1 << 18)


def _refused(url: str, *_: Any) -> Any:
    raise PermissionError(f"it asks for {url}")


def first_stream(container: Any) -> Any:
    streams = [s for s in container.streams.video if "attached_pic" not in str(s.disposition)] or list(container.streams.video)
    if not streams:
        raise Fault("it holds no picture")
    stream = streams[0]
    name = stream.codec_context.name if stream.codec_context else "unknown"
    if name not in containers.CODECS:
        raise Fault(f"its codec {name} is not read here")
    return stream


def probe_stream(file: BinaryIO, kind: str) -> Probe:
    """All packets, none decoded but the first frame: how many there are, when each is shown, and what contradicts that."""
    with opened(file, kind) as container:
        stream = first_stream(container)
        times: list[tuple[int | None, bool]] = []
        ends, packets, last = 0.0, 0, 0
        for packet in container.demux():
            if packet.size and packet.pts is not None and packet.time_base:
                ends = max(ends, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index or not packet.size:
                continue
            packets += 1
            if packet.is_corrupt:
                raise Fault(f"packet {packets} is damaged")
            if packet.is_discard or (stream.codec_context.name == "vp8" and not bytes(packet)[0] & 16):
                continue  # cut away by an edit list, or a picture that is never shown
            times.append((packet.pts, packet.is_keyframe))
            last = packet.duration or last
            if len(times) > MOST:
                raise Fault(f"it has more than {MOST} frames")
        if not times:
            raise Fault("it holds no picture")
        if said := _contradiction(container, stream, packets, times, ends) or _head(file, kind, container, packets, ends):
            raise Fault(said)
        return _timed(kind, stream, times, last)


def _contradiction(container: Any, stream: Any, packets: int, times: list[tuple[int | None, bool]], ends: float) -> str:
    """The container's own count and duration against its packets."""
    if stream.frames and stream.frames != packets:
        return f"{stream.frames} frames are announced and {packets} packets come"
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    slack = 1.5 / rate + 0.002
    said = stream.metadata.get("DURATION") or stream.metadata.get("DURATION-eng")
    if "matroska" not in container.format.name:
        return ""
    shown = sorted(time for time, _ in times if time is not None)
    if len(shown) != len(times) or len(set(shown)) < len(shown):
        return "its frames have no times, or share them"
    if said or container.duration:
        length = _seconds(said) if said else container.duration / 1e6
        mine = float((shown[-1] + 0) * stream.time_base) + 1 / rate if said else ends
        if abs(length - mine) > slack:
            return f"it says {length:.3f} s and its frames end at {mine:.3f} s"
    steps = np.diff(shown) * float(stream.time_base)
    lost = np.rint(steps * rate) - 1
    even = np.abs(steps * rate - 1) < 0.25 + 0.001 * rate
    if len(steps) and 0.8 < even.mean() < 1 and lost[~even].sum() >= 1 and stream.average_rate:
        return f"{int(lost[~even].sum())} frames are missing between others"
    return ""


def _head(file: BinaryIO, kind: str, container: Any, packets: int, ends: float) -> str:
    """What a head says and FFmpeg does not hold against anything."""
    if kind == "mp4" and (film := lengths.film(file)):
        return lengths.contradiction(film, ends)
    if kind == "avi" and len(container.streams.video) == 1:
        count, more = lengths.counted(file)
        if count and (count > packets or (count < packets and not more)):
            return f"{count} frames are announced and {packets} packets come"
    return ""


def _seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def _timed(kind: str, stream: Any, times: list[tuple[int | None, bool]], last: int) -> Probe:
    """Which decoded frame is shown at each place of an even rate."""
    size = (stream.codec_context.height, stream.codec_context.width)
    stated = stream.average_rate or stream.guessed_rate
    known = sorted((time, key) for time, key in times if time is not None)
    shown = np.array([time for time, _ in known], np.int64)
    count = len(times)
    if len(known) < count or (count > 1 and (np.diff(shown) <= 0).any()):  # .avi has none: an even rate by its definition
        return Probe(kind, size, float(stated or STILL), tuple(range(count)), (), (), count)
    base = stream.time_base
    span = int(shown[-1] - shown[0]) + (last or (int(shown[-1] - shown[0]) // max(count - 1, 1)))
    mean = Fraction(count) / (span * base) if span > 0 else Fraction(stated or 1)
    rate = mean
    if stated and kind != "gif" and abs(stated / mean - 1) < min(0.01, 1.5 / count):
        rate = Fraction(stated)
    places = np.rint((shown - shown[0]) * float(base * rate)).astype(np.int64)
    whole = max(int(np.rint(span * float(base * rate))), int(places[-1]) + 1)
    if whole > 100 * count + 1000:
        raise Fault(f"its {count} frames last {whole / float(rate):.0f} s")
    drift = np.abs((shown - shown[0]) * float(base * rate) - np.arange(count)).max()
    order = np.arange(count) if drift < 0.6 else np.searchsorted(places, np.arange(whole), side="right") - 1
    keys = tuple(i for i, (_, key) in enumerate(known) if key)
    return Probe(kind, size, float(rate), tuple(order.tolist()), tuple(shown.tolist()), keys, count)
