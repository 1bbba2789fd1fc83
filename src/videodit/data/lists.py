"""Manifests: JSON lines, CSV or Parquet -> items."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from videodit.data.item import Item, crop
from videodit.shapes import UserError

COLUMNS = ("path", "caption", "label", "start", "end", "weight", "digest", "crop")
ROWS = 4096  # of a .parquet, read at a time


def listed(path: Path) -> Iterator[Item]:
    """The items of a list; an entry that cannot be used is one that says why."""
    if re.match(r"[a-z0-9]+:/", str(path)):
        raise UserError(f"{path} is an address, and lists stand on this machine: fetch it, or name shards (.tar), which may be elsewhere.")
    if path.is_file() and path.suffix.lower() not in _READERS:
        raise UserError(f"{path} is one file and no list by its name: name its folder, a .jsonl, a .csv, a .parquet or a .tar.")
    if not path.is_file():
        raise UserError(f"{path} is no list that is there: name a folder, a .jsonl, a .csv, a .parquet or a .tar.")
    for number, row in enumerate(_READERS[path.suffix.lower()](path), 1):
        try:
            yield item(row, path.parent)
        except ValueError as error:
            named = row.get("path") if isinstance(row, Mapping) else None
            yield Item(path.parent / named if isinstance(named, str) and named else path, wrong=f"entry {number} of {path.name}: {error}")


def item(row: Mapping[str, Any] | str, beside: Path) -> Item:
    """An entry of a list; of one that cannot be used, a ValueError in words of ours. A text says why there is no entry."""
    if isinstance(row, str):
        raise ValueError(row)
    if unknown := set(row) - set(COLUMNS):
        raise ValueError(f"{sorted(map(str, unknown))[0]} is no column; there are {', '.join(COLUMNS)}")
    path = row.get("path")
    if not isinstance(path, str) or not path:
        raise ValueError("it has no path")
    if "://" in path:
        raise ValueError("it names an address: fetch the file, or pack it into shards (.tar), which may be elsewhere")
    captions = row.get("caption") or ()
    captions = (captions,) if isinstance(captions, str) else captions
    if not isinstance(captions, list | tuple) or not all(isinstance(words, str) for words in captions):
        raise ValueError("caption takes a text or a list of texts")
    captions = tuple(stripped for words in captions if (stripped := words.strip()))
    if any("\ud800" <= letter <= "\udfff" for letter in "".join(captions)):  # in a path it stands for a byte that is no UTF-8
        raise ValueError("its caption has half a character, which no file can hold")
    start, weight = _number(row, "start", 0.0) or 0.0, _number(row, "weight", 1.0)
    end = _number(row, "end", None)
    if start < 0 or (end is not None and end <= start) or not weight or weight < 0:
        raise ValueError("start, end and weight have to be 0 <= start < end and weight > 0")
    content = str(row.get("digest") or "").lower().removeprefix("sha256:")
    if content and not re.fullmatch("[0-9a-f]{64}", content):
        raise ValueError("digest is no SHA-256")
    label, part = row.get("label"), crop(str(row["crop"])) if row.get("crop") else None
    return Item(beside / path, captions, "" if label is None else str(label), start, end, weight, content, crop=part)


def _number(row: Mapping[str, Any], name: str, default: float | None) -> float | None:
    value = row.get(name)
    if value in (None, ""):
        return default
    try:
        number = float("nan") if isinstance(value, bool | list | dict) else float(value)
    except (TypeError, ValueError, OverflowError):  # Parquet has times and durations
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} takes a number, not {json.dumps(value, default=str)[:40]}")
    return number


def text(path: Path) -> str:
    """A text file, or the sentence why not."""
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets and Notepad set a mark before it
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({getattr(error, 'strerror', None) or 'it is not UTF-8 text'}): write it anew.") from None


def _json_lines(path: Path) -> Iterator[Mapping[str, Any] | str]:
    for line in text(path).split("\n"):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield row if isinstance(row, dict) else f"{line.strip()[:40]} is no JSON object"


def _csv(path: Path) -> Iterator[Mapping[str, Any] | str]:
    rows = csv.DictReader(io.StringIO(text(path)), strict=True)  # a cell in quotes may have several lines
    while True:
        try:
            row = next(rows, None)
        except csv.Error:  # behind which rows cannot be told apart
            yield f"a cell is longer than {csv.field_size_limit()} characters, or its quotes do not end; what follows is not read"
            return
        if len(names := rows.fieldnames or ()) > len(set(names)):
            yield "its head names a column twice: several captions of a file are several rows, or a list in a .jsonl"
            return
        if row is None:
            return
        yield "it has more cells than the head has columns" if None in row else row


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


_READERS: dict[str, Callable[[Path], Iterator[Mapping[str, Any] | str]]] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
