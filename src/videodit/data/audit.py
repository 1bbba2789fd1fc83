"""What every file of a source becomes, and why, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from videodit.data import cuts
from videodit.data.item import Item
from videodit.data.sources import Files
from videodit.data.video import Unreadable
from videodit.shapes import Size

Why = Literal["", "bad entry", "unreadable", "duplicate", "too short", "static", "no caption"]


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
    spans: tuple[tuple[int, int], ...] = ()  # of its shots, in frames

    @property
    def shots(self) -> int:
        return len(self.spans)

    @property
    def dropped(self) -> int:
        return self.frames - self.used


def audited(items: Sequence[Item], size: Size, files: Files, *, worded: bool) -> Iterator[Row]:
    """A row for each item as it is read; `worded`: whether each needs a caption."""
    seen: dict[tuple[str, float, float | None], Path] = {}
    for item in items:
        if item.wrong:
            yield Row(item, "bad entry", item.wrong)
            continue
        try:
            content = (cuts.verified(item), item.start, item.end)
        except Unreadable as error:
            yield Row(item, "unreadable", error.reason)
            continue
        if content in seen:
            yield Row(item, "duplicate", f"the same as {seen[content].name}")
            continue
        seen[content] = item.path
        yield _row(item, size if item.moves else size._replace(frames=1), files, worded=worded)


def _row(item: Item, size: Size, files: Files, *, worded: bool) -> Row:
    try:
        seen = cuts.look(item, files)
    except Unreadable as error:
        return Row(item, "unreadable", error.reason)
    if not seen.frames:
        return Row(item, "too short", "its start stands behind its end")
    found = cuts.cut(seen, size, files)
    plain = Row(item, "", "", found.frames, found.fps, found.extent, len(found.starts), found.used, found.spans)
    if worded and not item.captions:
        return plain._replace(why="no caption", said=f"{item.path.with_suffix('.txt').name} is not there", clips=0, used=0)
    if not found.starts:
        span = (size.frames - 1) * files.every + 1
        return plain._replace(why="too short", said=f"no shot lasts {span} frames")
    if size.frames > 1 and cuts.still(item, seen):
        return plain._replace(why="static", said="nothing moves", clips=0, used=0)
    return plain


def totals(rows: Sequence[Row]) -> dict[str, int]:
    """Sums that have to agree: frames are those used and those dropped, files those that give clips and those that give none."""
    named: dict[str, int] = {"files": len(rows), "good": sum(row.clips > 0 for row in rows)}
    for row in rows:
        if row.why:
            named[row.why] = named.get(row.why, 0) + 1
    sums = {name: sum(getattr(row, name) for row in rows) for name in ("clips", "frames", "used", "dropped")}
    return named | sums


def fixed(rows: Sequence[Row], beside: Path) -> str:
    """A manifest (JSON lines) of what is good, shot by shot."""
    lines = []
    for row in rows:
        if not row.clips:
            continue
        spans = row.spans if row.item.moves and len(row.spans) > 1 else [(0, row.frames)]
        for start, stop in spans:
            entry: dict[str, object] = {
                "path": _relative(row.item.path, beside),
                "caption": list(row.item.captions),
                "label": row.item.label,
            }
            if row.item.moves and (len(spans) > 1 or row.item.start or row.item.end):
                entry |= {"start": row.item.start + start / row.fps, "end": row.item.start + stop / row.fps}
            lines.append(json.dumps({key: value for key, value in entry.items() if value not in ("", [])} | _weight(row.item)))
    return "".join(f"{line}\n" for line in lines)


def _weight(item: Item) -> dict[str, float]:
    return {} if item.weight == 1 else {"weight": item.weight}


def _relative(path: Path, beside: Path) -> str:
    whole, folder = path.resolve(), beside.resolve()
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else str(whole)
