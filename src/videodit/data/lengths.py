"""How long the heads of .mp4 and .avi files say that these are, held against their frames; FFmpeg takes lengths from the frames alone.

Edits may show less of what is stored, sound may last longer than pictures, the frames of a fragmented .mp4 are told of behind its head too,
and a chunk of an .avi may be empty: only what none of these explains is a contradiction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

BOXES = 20_000  # of a file that are looked at
ENTRIES = 5_000_000  # of a table
LONGEST = 2**31 - 1  # units of a frame; what is above counts as one unit, as FFmpeg does
SLACK = (0.05, 0.25)  # part, and seconds, by which a film's or track's length may differ: they are rounded, and of whole tracks
Part = tuple[int, int]  # from which byte to which


class Cut(NamedTuple):
    """What one edit shows, in the track's own units."""

    start: int  # -1: nothing, which is a pause
    length: int


class Track(NamedTuple):
    """Seconds; None where nothing is said."""

    moves: bool
    number: int = 0
    stored: int = 0  # frames that the head tells of
    cuts: tuple[Cut, ...] = ()
    shown: float | None = None  # its own length (tkhd)
    media: float | None = None  # that of what is stored (mdhd)
    frames: float = 0.0  # of all frames together (stts)
    slack: float = 0.0  # by which the times that they are shown at may differ
    edits: tuple[float, ...] = ()  # how long each lasts; below 0: that of a pause
    open: bool = False  # whether an edit goes on at a rate of its own

    @property
    def lasts(self) -> float | None:
        """As its frames and edits say."""
        return (
            None if self.open else sum(abs(edit) if edit < 0 else min(edit, self.frames + self.slack) for edit in self.edits) or self.frames
        )


class Film(NamedTuple):
    length: float | None  # mvhd
    fragments: float | None  # mehd
    fragmented: bool
    tracks: tuple[Track, ...]


def film(file: BinaryIO) -> Film | None:
    """What the head of an .mp4 says; None where it has none that can be read."""
    whole = file.seek(0, 2)
    try:
        moov = next((part for name, part in _boxes(file, (0, whole), [BOXES]) if name == b"moov"), None)
        return None if moov is None else _film(file, moov)
    except (IndexError, ValueError):
        return None


def _film(file: BinaryIO, moov: Part) -> Film:
    left, scale, length, fragments, fragmented, tracks = [BOXES], 0, None, None, False, []
    inside = list(_boxes(file, moov, left))
    for name, part in inside:
        if name == b"mvhd":
            scale, length = _clock(_read(file, part, 32))
        if name == b"mvex":
            fragmented = True
            if mehd := _find(file, part, b"mehd", left):
                data = _read(file, mehd, 12)
                fragments = _known(data[4:12] if data[0] else data[4:8])
    for name, part in inside:
        if name == b"trak" and scale:
            tracks.append(_track(file, part, scale, left))
    return Film(length, fragments / scale if fragments and scale else None, fragmented, tuple(tracks))


def _track(file: BinaryIO, trak: Part, scale: int, left: list[int]) -> Track:
    mdia, edts, tkhd = (_find(file, trak, name, left) for name in (b"mdia", b"edts", b"tkhd"))
    if mdia is None or (mdhd := _find(file, mdia, b"mdhd", left)) is None:
        return Track(False)
    hdlr = _find(file, mdia, b"hdlr", left)
    units, media = _clock(_read(file, mdhd, 32))
    made = Track(hdlr is not None and _read(file, hdlr, 12)[8:12] == b"vide", media=media)
    if tkhd:
        data = _read(file, tkhd, 36)
        said = _known(data[28:36] if data[0] else data[20:24])
        made = made._replace(shown=said and said / scale, number=int.from_bytes(data[20:24] if data[0] else data[12:16], "big"))
    if edts and (elst := _find(file, edts, b"elst", left)):
        edits, rest, every = _edits(_read(file, elst, 8 + 20 * BOXES))
        cuts = tuple(Cut(start, (2 * length * units + scale) // (2 * scale)) for start, length in every)  # rounded as FFmpeg does
        made = made._replace(edits=tuple(edit / scale for edit in edits), open=rest, cuts=cuts)
    minf = _find(file, mdia, b"minf", left)
    stbl = minf and _find(file, minf, b"stbl", left)
    if stbl and (sizes := _find(file, stbl, b"stsz", left) or _find(file, stbl, b"stz2", left)):
        made = made._replace(stored=int.from_bytes(_read(file, sizes, 12)[8:12], "big"))
    if stbl and units and (stts := _find(file, stbl, b"stts", left)):
        counts, steps = _table(_read(file, stts, 8 + 8 * ENTRIES), ">u4")
        steps = np.where(steps > LONGEST, 1, steps)
        slack = 2 * float(steps.max(initial=0))
        if ctts := _find(file, stbl, b"ctts", left):
            _, late = _table(_read(file, ctts, 8 + 8 * ENTRIES), ">i4")
            slack += float(np.ptp(late)) if len(late) else 0.0
        made = made._replace(frames=float(counts @ steps) / units, slack=slack / units)
    return made


def _edits(data: bytes) -> tuple[list[float], bool, list[Cut]]:
    """Lengths in the film's units, those of pauses below 0, until one cannot be told; whether there is such a one; and all edits."""
    wide, count, every = data[0] == 1, int.from_bytes(data[4:8], "big"), list[Cut]()
    size = 20 if wide else 12
    half, plain = (size - 4) // 2, list[bool]()
    for at in range(8, min(8 + count * size, len(data) - size + 1), size):
        length, start = int.from_bytes(data[at : at + half], "big"), int.from_bytes(data[at + half : at + 2 * half], "big", signed=True)
        every.append(Cut(start, length))
        plain.append(data[at + 2 * half : at + size] == b"\0\1\0\0")
    told = plain.index(False) if False in plain else len(plain)
    return [float(-cut.length if cut.start == -1 else cut.length) for cut in every[:told]], told < len(plain), every


def _table(data: bytes, kind: str) -> tuple[np.ndarray, np.ndarray]:
    count = min(int.from_bytes(data[4:8], "big"), (len(data) - 8) // 8)
    pairs = np.frombuffer(data, kind, 2 * count, 8).reshape(count, 2).astype(np.float64)
    return pairs[:, 0], pairs[:, 1]


def _clock(data: bytes) -> tuple[int, float | None]:
    """Units in a second, and a length in seconds (mvhd, mdhd)."""
    at = 20 if data[0] else 12
    units, length = int.from_bytes(data[at : at + 4], "big"), _known(data[at + 4 : at + (12 if data[0] else 8)])
    return units, length / units if length and units else None


def _known(data: bytes) -> int | None:
    """A length; 0, or nothing but ones, is none."""
    return None if not any(data) or not data.strip(b"\xff") else int.from_bytes(data, "big")


def _find(file: BinaryIO, part: Part, wanted: bytes, left: list[int]) -> Part | None:
    return next((found for name, found in _boxes(file, part, left) if name == wanted), None)


def _boxes(file: BinaryIO, part: Part, left: list[int]) -> Iterator[tuple[bytes, Part]]:
    """The boxes in a part of a file, until one does not fit into it; of all calls together so many as are `left`."""
    at, stop = part
    while at + 8 <= stop and left[0] > 0:
        left[0] -= 1
        file.seek(at)
        head = file.read(16)
        size, begins = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, begins = int.from_bytes(head[8:16], "big"), 16
        size = stop - at if size == 0 else size
        if size < begins or at + size > stop:
            return
        yield head[4:8], (at + begins, at + size)
        at += size


def _read(file: BinaryIO, part: Part, most: int) -> bytes:
    file.seek(part[0])
    data = file.read(min(part[1] - part[0], most))
    if len(data) < 8:
        raise ValueError("a box ends within its head")
    return data


def contradiction(said: Film, ends: float) -> str:
    """Where an .mp4 whose packets end at so many seconds says something else; empty where all is well."""
    moving = [track for track in said.tracks if track.moves]
    if said.fragmented:
        told = [said.length, said.fragments, *(length for track in moving for length in (track.media, track.shown))]
        return next((_says(length, ends) for length in told if length and length > _most(ends)), "")
    for track in (track for track in moving if track.frames):
        if track.media and abs(track.media - track.frames) > track.slack + 0.01 * track.frames:
            return _says(track.media, track.frames)
        for edit in track.edits:
            if edit > _most(track.frames + track.slack):
                return _says(edit, track.frames)
        if track.shown and track.lasts and not _alike(track.shown, track.lasts, track.slack):
            return _says(track.shown, track.lasts)
    lasting = [(track.moves, track.lasts) for track in said.tracks]
    if said.length and lasting and all(lasts is not None for _, lasts in lasting):
        longest = max(lasts or 0.0 for _, lasts in lasting)
        shown = max((lasts or 0.0 for moves, lasts in lasting if moves), default=0.0)
        slack = max(track.slack for track in said.tracks)
        if said.length > _most(longest) + slack or shown > _most(said.length) + slack:
            return _says(said.length, longest)
    return ""


def _most(seconds: float) -> float:
    return seconds * (1 + SLACK[0]) + SLACK[1]


def _alike(one: float, other: float, slack: float) -> bool:
    return max(one, other) <= _most(min(one, other)) + slack


def _says(length: float, frames: float) -> str:
    return f"its head says {length:.3f} s and its frames last {frames:.3f} s"


def in_fragments(file: BinaryIO, number: int) -> int | None:
    """How many frames of a track the fragments of an .mp4 tell of; None where they cannot be followed to the end."""
    left, count, at = [ENTRIES], 0, 0
    whole = file.seek(0, 2)
    try:
        for name, part in _boxes(file, (0, whole), left):
            at = part[1]
            for _, traf in (box for box in (_boxes(file, part, left) if name == b"moof" else ()) if box[0] == b"traf"):
                inside = list(_boxes(file, traf, left))
                heads = [_read(file, box, 8) for kind, box in inside if kind == b"tfhd"]
                if [int.from_bytes(head[4:8], "big") for head in heads] == [number]:
                    count += sum(int.from_bytes(_read(file, box, 8)[4:8], "big") for kind, box in inside if kind == b"trun")
    except ValueError:
        return None
    return count if at == whole else None


def counted(file: BinaryIO) -> tuple[int, bool]:
    """How many frames the head of an .avi says there are, 0 where it says nothing; and whether others may follow in further chunks."""
    whole, at, most = file.seek(0, 2), 12, BOXES
    file.seek(4)
    first = 8 + int.from_bytes(file.read(4), "little")
    while at + 8 <= min(whole, first) and most:
        file.seek(at)
        head, most = file.read(32), most - 1
        if head[:4] == b"LIST" and head[8:12] == b"hdrl":
            at += 12
        elif head[:4] == b"avih":
            return int.from_bytes(head[24:28], "little"), whole > first + 8
        else:
            at += 8 + int.from_bytes(head[4:8], "little")
            at += at % 2
    return 0, False


def chunks(file: BinaryIO, stream: int) -> list[bool]:
    """Of each chunk of a stream of an .avi whether it holds a picture: an empty one shows the picture before it again.

    Nothing where they do not follow each other to the end of their lists.
    """
    whole, found, left = file.seek(0, 2), list[bool](), [ENTRIES]
    try:
        for name, part in _chunks(file, (0, whole), left):
            if name != b"RIFF":
                return []
            for inner, at in _chunks(file, (part[0] + 4, part[1]), left):
                if inner == b"LIST" and _read(file, at, 8)[:4] == b"movi":
                    _pictures(file, (at[0] + 4, at[1]), stream, found, left)
    except ValueError:
        return []
    return found


def _pictures(file: BinaryIO, movi: Part, stream: int, found: list[bool], left: list[int], deep: bool = False) -> None:
    """The chunks of a list, and of the lists in it, which hold what is to be read at once."""
    mine = b"%02d" % stream
    for name, part in _chunks(file, movi, left):
        if name == b"LIST" and not deep:
            _pictures(file, (part[0] + 4, part[1]), stream, found, left, True)
        elif name[:2] == mine and name[2:] in (b"dc", b"db"):
            found.append(part[1] > part[0])
        elif not (name[:2].isdigit() and name[:2] != mine) and name[:2] != b"ix" and name not in (b"JUNK", b"idx1"):
            raise ValueError("a chunk of no known name")


def _chunks(file: BinaryIO, part: Part, left: list[int]) -> Iterator[tuple[bytes, Part]]:
    """The chunks in a part of a file, each of which has to fit into it."""
    at, stop = part
    while at + 8 <= stop:
        file.seek(at)
        head, left[0] = file.read(8), left[0] - 1
        size = int.from_bytes(head[4:], "little")
        if at + 8 + size > stop or left[0] < 0:
            raise ValueError("a chunk does not fit")
        yield head[:4], (at + 8, at + 8 + size)
        at += 8 + size + size % 2
