"""OUTPUT/log.jsonl: one line a step, each once, whatever killed the run in between."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

from videodit.train.progress import note


class Log:
    """Opened at a step, it forgets what came after. What a full disk refuses is kept and written later."""

    def __init__(self, path: Path, done: int) -> None:
        kept = _until(path, done)
        if kept is not None:
            aside = path.with_suffix(".writing")
            aside.write_bytes(kept)
            aside.rename(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._pending = b""
        self._refused = False

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)

    def write(self, step: int, figures: dict[str, float], fault: str | None = None) -> None:
        numbers = {name: _short(value) if math.isfinite(value) else None for name, value in figures.items()}
        line = {"step": step, "time": round(time.time(), 2), **numbers, **({"fault": fault} if fault else {})}
        self._pending += (json.dumps(line) + "\n").encode()
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._file, self._pending) :]
            self._refused = False
        except OSError as error:
            if not self._refused:
                note(f"log.jsonl could not be written ({error.strerror}): its lines are kept until it can, and the run goes on.")
            self._refused = True

    def sync(self) -> None:
        """Have the disk hold every line, before a checkpoint says that its steps are done."""
        os.fsync(self._file)


def means(told: list[dict[str, float]]) -> dict[str, float]:
    """Figures of a step, from those of its passes that have them."""
    found: dict[str, list[float]] = {}
    for figures in told:
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


def _until(path: Path, done: int) -> bytes | None:
    """What a log says of the first `done` steps; None where it says nothing else."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    lines = text.splitlines(keepends=True)
    kept = b"".join(line for line in lines if _step(line) <= done)
    return None if kept == text else kept


def _short(value: float) -> float:
    """Six figures behind the point; of a small number, such as a rate, its first six."""
    return round(value, 6) if abs(value) >= 1 else float(f"{value:.6g}")


def _step(line: bytes) -> float:
    """Of a whole line; half a line is of no step that was done."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf
