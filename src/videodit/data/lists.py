"""Manifests: JSON lines, CSV or Parquet -> items."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from videodit.data.item import Item
from videodit.shapes import UserError

COLUMNS = ("path", "caption", "label", "start", "end", "weight", "digest")
ROWS = 4096  # of a .parquet, read at a time


def listed(path: Path) -> Iterator[Item]:
    """The items of a list."""
    if not path.is_file() or path.suffix.lower() not in _READERS:
        raise UserError(f"{path} is no list that is there: name a folder, a .jsonl, a .csv, a .parquet or a .tar.")
    number = 0
    try:
        for row in _READERS[path.suffix.lower()](path):
            number += 1
            yield item(row, path.parent)
    except (TypeError, ValueError, KeyError, RecursionError, csv.Error) as error:
        what = f"Entry {number or 1} of {path}, or the next, cannot be used ({error})"
        raise UserError(f"{what}: give {', '.join(COLUMNS)}, path at least.") from None


def item(row: Mapping[str, Any], beside: Path) -> Item:
    """An entry of a list."""
    if unknown := set(row) - set(COLUMNS):
        raise ValueError(f"{sorted(map(str, unknown))[0]} is no column")
    if not row["path"]:
        raise ValueError("path is empty")
    captions = row.get("caption") or ()
    captions = (captions,) if isinstance(captions, str) else tuple(map(str, captions))
    start, weight = float(row.get("start") or 0), row.get("weight")
    end = None if row.get("end") in (None, "") else float(row["end"])
    weight = 1.0 if weight in (None, "") else float(weight)
    "".join(captions).encode()
    if not all(map(math.isfinite, (start, end or 0.0, weight))) or start < 0 or (end is not None and end <= start) or not weight > 0:
        raise ValueError("start, end and weight have to be 0 <= start < end and weight > 0")
    content = str(row.get("digest") or "").lower().removeprefix("sha256:")
    if content and not re.fullmatch("[0-9a-f]{64}", content):
        raise ValueError("digest is no SHA-256")
    label = row.get("label")
    return Item(beside / str(row["path"]), captions, "" if label is None else str(label), start, end, weight, content)


def text(path: Path) -> str:
    """A text file, or the sentence why not."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({getattr(error, 'strerror', None) or 'it is not UTF-8 text'}): write it anew.") from None


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    for line in text(path).splitlines():
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"{line[:40]} is no object")
            yield row


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    """Only the columns that are used, some rows at a time; what others there are is left alone."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path} is read by pyarrow: pip install 'videodit[parquet]', or write the list as .jsonl.") from None
    try:
        with ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name in COLUMNS]
            for batch in file.iter_batches(ROWS, columns=names):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({' '.join(str(error).split())[:200]}): write it anew.") from None


_READERS: dict[str, Callable[[Path], Iterator[Mapping[str, Any]]]] = {
    ".jsonl": _json_lines,
    ".csv": lambda path: csv.DictReader(text(path).splitlines()),
    ".parquet": _parquet,
}
