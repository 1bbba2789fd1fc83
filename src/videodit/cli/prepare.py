"""Encode once, by content, all that a run will read: `videodit prepare RUN.toml`, or `videodit prepare LIST OUT --model M`."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from videodit import config, folders
from videodit.cli import terminal
from videodit.shapes import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN.toml | LIST", help="a run file; or a folder, a list or shards")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value | OUT", help="settings to change; behind a list first a folder")
    parser.add_argument("--model", metavar="M", help="behind a list: the model to encode for (default toybox)")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes that share the files (default 1)")
    parser.add_argument("--collect", action="store_true", help="then remove all entries of the cache that this run does not use")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(given: argparse.Namespace) -> None:
    if not 1 <= given.processes <= 256:
        raise UserError(f"--processes takes 1 to 256, not {given.processes}.")
    overrides = list(given.overrides)
    listed = not given.source.endswith(".toml") and (Path(given.source).is_file() or given.source not in folders.runs())
    if listed:
        overrides = _changes(given, overrides)
    elif given.model is not None:
        raise UserError(f"--model is for a list, and {given.source} is a run file: set start={given.model} autoencoder={given.model}.")
    else:
        config.text(folders.run_file(given.source))

    from videodit.train import prepare, recipes
    from videodit.train.backbone import BackboneRun

    settings = recipes.read_text('kind = "backbone"', overrides) if listed else recipes.read(given.source, overrides)
    if not isinstance(settings, BackboneRun):
        raise UserError(f"{given.source} trains an autoencoder, which reads pixels: prepare is for run files of transformers.")
    start = time.perf_counter()
    found = prepare.prepare(settings, processes=given.processes, clean=given.collect)._asdict()
    found["seconds"] = round(time.perf_counter() - start, 1)
    if given.json:
        terminal.print_json(found)
    else:
        terminal.print_table([("what", "how much"), *((name.replace("_", " "), str(value)) for name, value in found.items())])


def _changes(given: argparse.Namespace, overrides: list[str]) -> list[str]:
    """The settings of a run on a list, whose mistakes are said before anything is loaded."""
    from videodit.data import shards, sources

    if not overrides or "=" in overrides[0]:
        raise UserError(f"{given.source} needs a folder for what is encoded: videodit prepare {given.source} OUT.")
    out, *changes = overrides
    if Path(out).exists() and not Path(out).is_dir():
        raise UserError(f"{out} is a file: name a folder for what is encoded, which is made where it is not there.")
    packed = shards.packed(given.source)
    kind = "shards" if packed else "folder" if Path(given.source).is_dir() else "manifest"
    if packed:
        shards.there(given.source)
    else:
        path = Path(given.source)
        sources.items(sources.Folder(path=path) if kind == "folder" else sources.Manifest(path=path))
    model = given.model or "toybox"
    folders.locate(model)
    same = {"output": f"{out}/run", "autoencoder": model, "start": model, "data.kind": kind, "data.path": given.source}
    return [*(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in same.items()), *changes]  # 2024 is a folder here
