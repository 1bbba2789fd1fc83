"""Everything that a transformer's run reads, encoded before it starts: into the cache where the run looks for it, under the same keys."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from typing import NamedTuple

import torch

from videodit import backbone, models
from videodit.backbone import DiT
from videodit.data.cache import collect, noted
from videodit.data.labels import Labels
from videodit.data.sources import Drawn
from videodit.shapes import UserError
from videodit.train import pools, words
from videodit.train.backbone import BackboneRun
from videodit.train.launch import there
from videodit.train.looks import held
from videodit.train.starting import starting


class Prepared(NamedTuple):
    """What a run will find: `new` entries were made now."""

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
    """Encode what is missing; `clean`: remove the entries of the cache that this run does not use."""
    there(settings.device)
    folder = pools.cache(settings)
    before = set(folder.glob("*.safetensors"))
    if processes > 1 and not isinstance(settings.data, Drawn):
        pools.check(settings, _takes(settings), settings.joint.kinds)
        _spread(settings, processes)
    with noted() as used:
        found = _whole(settings)
    gone, freed = collect(folder, used) if clean else (0, 0)
    report = settings.output / "unreadable.jsonl"
    lost = len(report.read_text(encoding="utf-8").splitlines()) if report.is_file() else 0
    kept = {path for path in used if path.is_file()}
    return Prepared(*found, len(kept), len(kept - before), gone, freed, lost, str(folder))


def share(settings: BackboneRun, rank: int, size: int, parent: int = 0) -> None:
    """One process's part of the files; `parent`: whose end is its end, however that comes."""
    if parent:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            return
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
    autoencoder = models.load_autoencoder(settings.autoencoder, settings.device)
    for kind in settings.joint.kinds:
        pools.encode(settings, autoencoder, kind, slice(rank, None, size))


def _spread(settings: BackboneRun, processes: int) -> None:
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=share, args=(settings, rank, processes, os.getpid())) for rank in range(processes)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    if died := [process.exitcode for process in running if process.exitcode]:
        raise UserError(f"{len(died)} of {processes} processes ended with {died[0]}: the same command goes on where they stopped.")


def _takes(settings: BackboneRun) -> str:
    """What the run's model is told, without its weights."""
    if settings.start is None:
        wanted = settings.backbone or backbone.PRESETS.get(settings.preset)
        return "text" if not isinstance(wanted, DiT) else "label" if wanted.labels else "nothing"
    return models.read(settings.start, models.ModelFolder)[1].takes


def _whole(settings: BackboneRun) -> tuple[int, int, int]:
    """What the run itself does when it starts: all entries are read, and verified, or made."""
    autoencoder = models.load_autoencoder(settings.autoencoder, settings.device)
    text = starting(settings, autoencoder)["text"]
    found = pools.pools(settings, autoencoder, str(text.takes), settings.joint.kinds)
    captions: set[str] = set()
    if settings.start and not isinstance(text, Labels):
        for pool in found.values():
            words.read(settings, text, pool.captions)  # type: ignore[arg-type]
            captions.update(pool.captions)
    if settings.looks.every:
        held(settings, autoencoder, str(text.takes))
    counts = [len(found[kind].latents) if kind in found else 0 for kind in (True, False)]
    return counts[0], counts[1], len(captions)
