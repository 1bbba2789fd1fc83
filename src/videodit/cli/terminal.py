"""What verbs print and what numbers they take: results go to standard output, everything else to standard error."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videodit.shapes import UserError

RANGES = {
    "num": (1, 100_000),
    "count": (1, 1_000_000),
    "frames": (1, 100_000),
    "windows": (1, 100_000),
    "tiles": (5, 100_000),  # neighbours share 4
    "time": (1, 64),
    "every": (1, 1000),
    "most": (1, 1_000_000),
    "fps": (0.1, 1000),
    "preview": (1, 10_000),
    "strength": (0.01, 1),
    "softened": (0, 1),
    "steps": (1, 10_000),
    "guidance": (0, 100),
    "seed": (0, 2**63 - 1),  # what the noise's generator takes
}


def check_ranges(given: argparse.Namespace, names: Sequence[str]) -> None:
    """Refuse a number that is out of range."""
    for name in names:
        value, (low, high) = getattr(given, name), RANGES[name]
        if value is not None and not low <= value <= high:
            raise UserError(f"--{name} takes {low} to {high}, not {value}.")


def check_place(path: Path) -> None:
    """Refuse a file that could not be written, before any work for it."""
    parent = path.absolute().parent
    if not parent.is_dir():
        raise UserError(f"There is no directory {path.parent} to write {path.name} in: make it first, or name one that exists.")
    if path.is_dir():
        raise UserError(f"{path} is a directory: name a file in it, or another.")
    if not os.access(parent, os.W_OK):
        raise UserError(f"{path.parent} may not be written to: choose another place for {path.name}.")


def say(line: str) -> None:
    """A line for people, on standard error."""
    print(line, file=sys.stderr, flush=True)


def print_json(result: Any) -> None:
    """The one JSON object of `--json`, which has no word for what is no number: that is null."""
    print(json.dumps(finite(result)))


def finite(value: Any) -> Any:
    """The same with null for what is no number."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; a line under the first row. Names of files may have bytes that are no UTF-8."""
    rows = [[cell.encode(errors="backslashreplace").decode() for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width for width in widths]
    for row in (rows[0], rule, *rows[1:]):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def amount(value: int | float, *, binary: bool = False) -> str:
    """1234567 -> '1.23 M'; of bytes, '1.18 MiB'."""
    step, suffix = (1024, "iB") if binary else (1000, "")
    for unit in ("", "K", "M", "G", "T"):
        if abs(value) < step or unit == "T":
            break
        value /= step
    if not unit:
        return f"{value:g} bytes" if binary else f"{value:g}"
    return f"{value:.3g} {unit}{suffix}" if abs(value) < 1000 else f"{value:.0f} {unit}{suffix}"
