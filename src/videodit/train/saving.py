"""Saving beside the training: a thread writes what was copied, and which checkpoints stay is decided by digests."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

from safetensors import SafetensorError

from videodit.shapes import UserError
from videodit.train import checkpoint
from videodit.train.checkpoint import Damaged, Snapshot
from videodit.train.faults import Aborted
from videodit.train.log import Log
from videodit.train.progress import note


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint; damaged ones after it are named and set aside. None where there are none at all."""
    damaged: list[tuple[Path, str]] = []
    for path in reversed(checkpoint.found(folder)):
        try:
            checkpoint.verified(path)
        except Damaged as why:
            damaged.append((path, str(why)))
            continue
        for bad, reason in damaged:
            note(f"{bad} is damaged ({reason}): it is set aside, and the run goes on from {path.name}.")
            set_aside(bad)
        return path
    if damaged:
        path, reason = damaged[0]
        before = " nor is one before it whole," if len(damaged) > 1 else ""
        raise UserError(
            f"The checkpoint {path} cannot be read ({reason}),{before} and nothing is lost but steps; remove that folder to begin anew."
        )
    return None


def set_aside(path: Path) -> None:
    """Out of the way of all that looks for checkpoints, but there for whoever wants to know why."""
    there = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(there, ignore_errors=True)
    path.rename(there)


class Saver:
    """Writes checkpoints in a thread, one at a time. A disk that refuses one costs that one; the run goes on."""

    def __init__(self, folder: Path, keep: int, facts: dict[str, Any], log: Log) -> None:
        self.folder, self.keep, self.facts, self.log = folder, keep, facts, log
        self.whole: set[Path] = set()  # written or verified by this run
        self.saved: int | None = None  # the step of the last one written
        self._thread: Thread | None = None
        self._fault: BaseException | None = None
        for left in (*folder.glob(".writing-*"), *folder.glob(".old-*")):  # by a kill
            shutil.rmtree(left, ignore_errors=True)

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not isinstance(error, Aborted):
            self.wait()
        if error is None and self.saved is None and len(checkpoint.found(self.folder)) > self.keep:
            self._clear()  # a kill came between the last save and this

    def save(self, taken: Snapshot) -> None:
        """Begin to write; `wait` first, so that one copy at most is in memory."""
        self._thread = Thread(target=self._write, args=(taken,), daemon=True, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Until what was begun is written."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._fault:
            fault, self._fault = self._fault, None
            raise fault

    def _write(self, taken: Snapshot) -> None:
        step = taken.position.step
        try:
            self.log.sync()
            self.whole.add(checkpoint.write(self.folder, taken, self.facts))
            self.saved = step
            self._clear()
        except (OSError, SafetensorError) as error:
            shutil.rmtree(self.folder / f".writing-{step:08d}", ignore_errors=True)
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            last = checkpoint.found(self.folder)
            stays = f"{last[-1].name} stays the last" if last else "there is none yet"
            note(f"The checkpoint of step {step} could not be written ({reason}): {stays}, and the run goes on.")
        except BaseException as error:  # told to the training thread
            self._fault = error

    def _clear(self) -> None:
        try:
            self._remove_old()
        except OSError as error:
            note(f"Old checkpoints in {self.folder} could not be removed ({error.strerror}): the newest is good, and the run goes on.")

    def _remove_old(self) -> None:
        """All but the newest that are whole."""
        kept = 0
        for path in reversed(checkpoint.found(self.folder)):
            if kept >= self.keep:
                checkpoint.remove(path)
            elif path in self.whole or self._is_whole(path):
                kept += 1
            else:
                set_aside(path)

    def _is_whole(self, path: Path) -> bool:
        try:
            checkpoint.verified(path)
        except Damaged as why:
            note(f"{path} is damaged ({why}): it is set aside.")
            return False
        self.whole.add(path)
        return True
