"""What every file of a source becomes, and why, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from videodit.data import cuts
from videodit.data.buckets import Buckets
from videodit.data.item import Crop, Item
from videodit.data.quarantine import Place
from videodit.data.sources import Filed, Files
from videodit.data.video import Unreadable
from videodit.shapes import Size

Why = Literal["", "bad entry", "unreadable", "duplicate", "too short", "too small", "static", "no caption"]


class Row(NamedTuple):
    """One file: its frames are those used and those dropped."""

    item: Item
    why: Why
    said: str
    frames: int = 0
    fps: float = 0.0
    extent: tuple[int, int] = (0, 0)
    clips: int = 0
    used: int = 0
    spans: tuple[tuple[int, int], ...] = ()  # of its shots, in frames from `first` on
    first: int = 0  # the frame of the file where its entry begins
    least: int = 1  # frames of a shot that gives a clip
    crop: Crop | None = None  # what its list says of each frame is read; else what is left between black borders, which are read too
    bucket: Size | None = None  # the extent of its clips, where each file has its own

    @property
    def shots(self) -> int:
        return len(self.spans)

    @property
    def dropped(self) -> int:
        return self.frames - self.used


def audited(items: Sequence[Item], size: Size | Buckets, files: Filed, *, worded: bool) -> Iterator[Row]:
    """A row for each item as it is read; `worded`: whether each needs a caption. `size`: of every clip, or a table of what there is."""
    seen: dict[Place, Path] = {}
    for item in items:
        if item.wrong:
            yield Row(item, "bad entry", item.wrong)
            continue
        try:
            content = Place(cuts.verified(item), item.start, item.end, item.crop)
        except Unreadable as error:
            yield Row(item, "unreadable", error.reason)
            continue
        if content in seen:
            yield Row(item, "duplicate", f"the same as {seen[content].name}")
            continue
        if item.captions or not worded:  # one without words takes no place from one that has them
            seen[content] = item.path
        yield _row(item, size, files, worded=worded)


def bucket(seen: cuts.Look, item: Item, table: Buckets, files: Files) -> Size | None:
    """Where a file goes; a video only to a picture's where there are no others."""
    found = table.of(cuts.filled(seen, files))
    return None if found and found.frames == 1 and item.moves and max(table.lengths) > 1 else found


def _row(item: Item, sizes: Size | Buckets, files: Filed, *, worded: bool) -> Row:
    try:
        seen = cuts.look(item, files)
    except Unreadable as error:
        return Row(item, "unreadable", error.reason)
    if not seen.frames:
        return Row(item, "too short", "its start stands behind its end")
    own = bucket(seen, item, sizes, files) if isinstance(sizes, Buckets) else None
    size = own or (sizes if isinstance(sizes, Size) else Size(1, 1, 1))
    size = size if item.moves else size._replace(frames=1)
    found = cuts.cut(seen, size, files)
    least = (size.frames - 1) * files.every + 1
    plain = Row(
        item,
        "",
        "",
        found.frames,
        found.fps,
        found.extent,
        len(found.starts),
        found.used,
        found.spans,
        found.first,
        least,
        item.crop or seen.crop,
        own,
    )
    if isinstance(sizes, Buckets) and own is None:
        return plain._replace(why="too small", said="it fills no bucket", clips=0, used=0)
    if worded and not item.captions:
        return plain._replace(why="no caption", said=_wordless(item, files), clips=0, used=0)
    if not found.starts:
        return plain._replace(why="too short", said=f"no shot lasts {least} frames")
    if size.frames > 1 and cuts.still(item, seen):
        return plain._replace(why="static", said="nothing moves", clips=0, used=0)
    return plain


def _wordless(item: Item, files: Filed) -> str:
    if files.kind == "manifest":
        return "its entry has no caption"
    if files.kind == "shards":
        return "no member of its name has words: .txt, or .json with a caption"
    words = item.path.with_suffix(".txt")
    return f"{words.name} is {'empty' if words.exists() else 'not there'}"


def totals(rows: Sequence[Row]) -> dict[str, int]:
    """Sums that have to agree: frames are those used and those dropped, files those that give clips and those that give none."""
    named: dict[str, int] = {"files": len(rows), "good": sum(row.clips > 0 for row in rows)}
    for row in rows:
        if row.why:
            named[row.why] = named.get(row.why, 0) + 1
    sums = {name: sum(getattr(row, name) for row in rows) for name in ("clips", "frames", "used", "dropped")}
    return named | sums


def fixed(rows: Sequence[Row], beside: Path) -> str:
    """A manifest (JSON lines) of what is good, shot by shot, without black borders; shots of a file weigh together what it weighed."""
    lines = []
    for row in rows:
        if not row.clips:
            continue
        cut = row.item.moves and row.shots > 1
        spans = [span for span in row.spans if span[1] - span[0] >= row.least] if cut else [(0, row.frames)]
        for start, stop in spans:
            entry: dict[str, object] = {
                "path": _relative(row.item.path, beside),
                "caption": list(row.item.captions),
                "label": row.item.label,
                "digest": row.item.digest,
                "crop": str(row.crop or ""),
            }
            if row.item.moves and (cut or row.item.start or row.item.end):
                entry |= {"start": (row.first + start) / row.fps, "end": (row.first + stop) / row.fps}
            if (weight := row.item.weight / len(spans)) != 1:
                entry["weight"] = weight
            lines.append(json.dumps({key: value for key, value in entry.items() if value not in ("", [])}))
    return "".join(f"{line}\n" for line in lines)


def _relative(path: Path, beside: Path) -> str:
    whole, folder = path.absolute(), beside.absolute()  # of links their own names: what they lead to may be called anything
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else str(whole)
