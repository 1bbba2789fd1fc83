"""Everything that a transformer's run reads, encoded before it starts: into the cache where the run looks for it, under the same keys."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import torch
from torch import nn

from videodit import models
from videodit.autoencoder import PerFrame
from videodit.data.cache import collect, noted
from videodit.data.labels import Labels
from videodit.data.sources import Drawn
from videodit.shapes import UserError
from videodit.train import pools, words
from videodit.train.backbone import BackboneRun, Conversion
from videodit.train.launch import there
from videodit.train.looks import held
from videodit.train.stages import stages
from videodit.train.starting import starting


class Prepared(NamedTuple):
    """What a run will find, all its stages together: `new` entries were made now."""

    clips: int
    pictures: int
    captions: int
    entries: int
    new: int
    collected: int
    collected_bytes: int
    unreadable: int
    cache: str


def prepare(settings: BackboneRun, *, processes: int = 1, clean: bool = False) -> Prepared:
    """Encode what is missing for all stages; `clean`: remove the entries of the cache that this run does not use."""
    there(settings.device)
    folder = pools.cache(settings)
    before = set(folder.glob("*.safetensors"))
    clips, pictures, captions, lost = 0, 0, set[str](), set[str]()
    with noted() as used:
        for run in stages(settings, ahead=True):
            if settings.start is None:  # whose text encoder is still to be trained, so words are left for then
                run = replace(run, start=None, conversion=Conversion(), lora=None)
            autoencoder = models.load_autoencoder(run.autoencoder, run.device)
            text = starting(run, autoencoder)["text"]
            if processes > 1 and not isinstance(run.data, Drawn):
                _spread(run, processes)
            found, said = _whole(run, autoencoder, text)
            clips, pictures, captions = clips + found[True], pictures + found[False], captions | said
            report = run.output / "unreadable.jsonl"
            lost.update(report.read_text(encoding="utf-8").splitlines() if report.is_file() else ())
    gone, freed = collect(folder, used) if clean else (0, 0)
    kept = {path for path in used if path.is_file()}
    return Prepared(clips, pictures, len(captions), len(kept), len(kept - before), gone, freed, len(lost), str(folder))


def share(settings: BackboneRun, rank: int, size: int) -> None:
    """One process's part of the files."""
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
    autoencoder = models.load_autoencoder(settings.autoencoder, settings.device)
    for kind in settings.joint.kinds:
        pools.encode(settings, autoencoder, kind, slice(rank, None, size))


def _spread(settings: BackboneRun, processes: int) -> None:
    """Processes that share the files; what stops one of them stops all."""
    context = multiprocessing.get_context("spawn")
    running: dict[Any, BaseProcess] = {}
    try:
        with _unheard():
            for rank in range(processes):
                hears, says = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(settings, rank, processes, os.getpid(), says), daemon=True)
                process.start()
                says.close()
                running[hears] = process
        left = set(running)
        while left:
            for hears in connection.wait(left):
                left.discard(hears)
                _heard(hears, running[hears])
    finally:
        for process in running.values():
            process.terminate()
            process.join()


@contextmanager
def _unheard() -> Iterator[None]:
    """In here Ctrl-C waits; who is started in here never hears of it, and is ended by whom it is for."""
    resource_tracker.ensure_running()  # which would let it through when the first process starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _heard(hears: Any, process: BaseProcess) -> None:
    """What a process says that fails, or that it ended."""
    try:
        raise hears.recv()
    except EOFError:
        process.join()
    if process.exitcode:
        raise UserError(f"A process ended with {process.exitcode}: the same command goes on where it stopped.")


def _child(settings: BackboneRun, rank: int, size: int, parent: int, says: Any) -> None:
    """In the process: it ends with `parent`, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        return
    try:
        share(settings, rank, size)
    except Exception as error:
        says.send(_carried(error))


def _carried(error: Exception) -> Exception:
    """The same as another process can raise it."""
    if isinstance(error, UserError):
        said: Exception = UserError(str(error))
    elif isinstance(error, OSError):
        said = OSError(error.errno, error.strerror or str(error), error.filename)
    else:
        said = RuntimeError(f"{type(error).__name__}: {error}")
    said.add_note(traceback.format_exc())
    return said


def _whole(settings: BackboneRun, autoencoder: PerFrame, text: nn.Module) -> tuple[dict[bool, int], set[str]]:
    """What the run itself does when it starts: all entries are read, and verified, or made."""
    found = pools.pools(settings, autoencoder, str(text.takes), settings.joint.kinds)
    captions: set[str] = set()
    for pool in found.values():
        pool.verify()
    if settings.start and not isinstance(text, Labels):
        for pool in found.values():
            words.read(settings, text, pool.captions).rows.verify()  # type: ignore[arg-type]
            captions.update(pool.captions)
    if settings.looks.every:
        held(settings, autoencoder, str(text.takes))
    return {kind: len(found[kind].latents) if kind in found else 0 for kind in (True, False)}, captions
