"""What a file of frames says of itself, and what its packets say against that, before anything is decoded.

Of an .mp4 with edits those frames are shown that begin within one. FFmpeg leaves edits to us, as it drops and doubles frames where there
are several; but of fragments behind a head that holds no frames it shows all, and so do we.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np

from videodit.data import containers, lengths

STILL = 1.0  # the rate of a file that holds one picture
MOST = 5_000_000  # frames of a file
LONGEST = 2**61  # units that an edit may last


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
    cut: bool = False  # whether edits decided what is shown, and times are those of what is stored


class Packet(NamedTuple):
    """Of one frame, in the stream's own unit."""

    at: int | None
    key: bool
    lasts: int
    turn: int | None  # when it is decoded


def opened(file: BinaryIO, kind: str, cut: bool = False) -> Any:
    """By its own demuxer alone, from an open file: FFmpeg gets no name, and whatever else it asks for is refused.

    `cut`: it knows nothing of edits.
    """
    file.seek(0)
    guard = {"protocol_whitelist": "none", "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"}
    guard |= {"codec_whitelist": ",".join(containers.CODECS)}
    guard |= {"ignore_editlist": "1"} if cut else {}
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
    film = lengths.film(file) if kind == "mp4" else None
    cut = film is not None and any(track.moves and track.cuts and (track.stored or not film.fragmented) for track in film.tracks)
    with opened(file, kind, cut) as container:
        stream = first_stream(container)
        times: list[Packet] = []
        ends, packets = 0.0, 0
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
            times.append(Packet(packet.pts, packet.is_keyframe, packet.duration or 0, packet.dts))
            if len(times) > MOST:
                raise Fault(f"it has more than {MOST} frames")
        if not times:
            raise Fault("it holds no picture")
        chunks = lengths.chunks(file, stream.index) if kind == "avi" and (stream.frames or 0) > packets else []
        said = _miscounted(file, kind, container, stream, film, packets, chunks)
        said = said or (film and film.fragmented and _torn(film, stream, times))
        if said := said or _contradiction(container, stream, times, ends) or (film and lengths.contradiction(film, ends)):
            raise Fault(said)
        if chunks:
            return _repeated(kind, stream, times, chunks)
        return _timed(kind, stream, times, _cuts(film, stream) if film and cut else ())


def _miscounted(file: BinaryIO, kind: str, container: Any, stream: Any, film: lengths.Film | None, packets: int, chunks: list[bool]) -> str:
    """A container's own counts against its packets; `chunks` of an .avi may be empty, and count."""
    stored = len(chunks) if chunks and sum(chunks) == packets else packets
    said = stream.frames or 0
    if film and film.fragmented and (more := lengths.in_fragments(file, stream.id)) is not None:
        said += more
    if said and said != stored:
        return f"{said} frames are announced and {packets} packets come"
    if kind == "avi" and len(container.streams.video) == 1:
        count, more = lengths.counted(file)
        if count not in (0, packets, stored) and (count > stored or not more):
            return f"{count} frames are announced and {packets} packets come"
    return ""


def _torn(film: lengths.Film, stream: Any, times: list[Packet]) -> str:
    """Where fragments that follow frames of the head do not begin when what stands before them ends."""
    if stream.frames:
        for number, (one, other) in enumerate(pairwise(times), 1):
            if one.turn is not None and other.turn is not None and abs(other.turn - one.turn - one.lasts) > max(one.lasts, other.lasts):
                return f"fragments are missing behind frame {number}, or come twice"
        return ""
    media = next((track.media for track in film.tracks if track.number == stream.id and not track.stored), None)
    begins = None if times[0].turn is None else float(times[0].turn * stream.time_base)
    return f"the first {media:.3f} s are missing" if media and begins is not None and abs(begins - media) < 0.002 else ""


def _contradiction(container: Any, stream: Any, times: list[Packet], ends: float) -> str:
    """A Matroska file's own duration and rate against its packets."""
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    slack = 1.5 / rate + 0.002
    said = stream.metadata.get("DURATION") or stream.metadata.get("DURATION-eng")
    if "matroska" not in container.format.name:
        return ""
    shown = sorted(packet.at for packet in times if packet.at is not None)
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


def _seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def _cuts(film: lengths.Film, stream: Any) -> tuple[lengths.Cut, ...]:
    """The edits of a stream; where fragments go on behind the head only the beginning is cut, as nothing says what a length there is of."""
    tracks = [track for track in film.tracks if track.number == stream.id]
    if len(tracks) != 1:
        raise Fault(f"{len(tracks)} tracks of its head have the number {stream.id}")
    cuts = tracks[0].cuts
    if tracks[0].open and sum(cut.start != -1 for cut in cuts) > 1:
        raise Fault("its edits are shown at rates of their own")
    first = next((cut for cut in cuts if cut.start >= 0), None)
    if not film.fragmented or first is None:
        return cuts
    return (*cuts[: cuts.index(first)], first._replace(length=LONGEST))


def _shown(stored: np.ndarray, cuts: tuple[lengths.Cut, ...]) -> tuple[np.ndarray, np.ndarray, int]:
    """When which of the frames are shown that begin within an edit, and how long the pauses between them last together."""
    if not cuts:
        return stored, np.arange(len(stored)), 0
    at, which, begins, pauses, paused = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0, 0, 0
    for start, length in cuts:
        if begins + length > 2 * LONGEST or abs(start) > LONGEST or sum(map(len, at)) > MOST:
            raise Fault("its edits show more than a film may hold")
        first, behind = np.searchsorted(stored, [start, start + length]) if start != -1 else (0, 0)
        if first < behind:
            at.append(begins + stored[first:behind] - start)
            which.append(np.arange(first, behind))
            paused = pauses
        pauses += length if start == -1 and len(at) > 1 else 0
        begins += length
    return np.concatenate(at), np.concatenate(which), paused


def _timed(kind: str, stream: Any, times: list[Packet], cuts: tuple[lengths.Cut, ...]) -> Probe:
    """Which decoded frame is shown at each place of an even rate."""
    size = (stream.codec_context.height, stream.codec_context.width)
    stated = stream.average_rate or stream.guessed_rate
    known = sorted((packet.at, packet.key) for packet in times if packet.at is not None)
    stored = np.array([time for time, _ in known], np.int64)
    if len(known) < len(times) or (len(times) > 1 and (np.diff(stored) <= 0).any()):  # .avi has none: an even rate by its definition
        numbers = _shown(stored, cuts)[1] if cuts else np.arange(len(times))
        if len(numbers) != len(times):
            raise Fault("its edits are of frames that share their times")
        return Probe(kind, size, float(stated or STILL), tuple(numbers.tolist()), (), (), len(times), bool(cuts))
    shown, which, paused = _shown(stored, cuts)
    count = len(shown)
    if not count:
        raise Fault("its edits show none of its frames")
    seen = set(stored[which].tolist())
    last = next((packet.lasts for packet in reversed(times) if packet.lasts and packet.at in seen), 0)
    base = stream.time_base
    span = int(shown[-1] - shown[0]) + (last or (int(shown[-1] - shown[0]) // max(count - 1, 1)))
    mean = Fraction(count) / ((span - paused) * base) if span > paused else Fraction(stated or 1)
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
    return Probe(kind, size, float(rate), tuple(which[order].tolist()), tuple(stored.tolist()), keys, len(times), bool(cuts))


def _repeated(kind: str, stream: Any, times: list[Packet], chunks: list[bool]) -> Probe:
    """A chunk is a place of an even rate; one that is empty shows the picture before it again."""
    known = _timed(kind, stream, times, ())
    order = np.cumsum(chunks) - 1
    return known._replace(fps=float(stream.average_rate or stream.guessed_rate or STILL), shown=tuple(order[order >= 0].tolist()))
