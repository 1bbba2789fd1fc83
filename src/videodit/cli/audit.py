"""Say what every file of a data set becomes and why, before anything is trained: `videodit audit FOLDER`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from videodit import config, folders
from videodit.cli import terminal
from videodit.shapes import Size, UserError, parse_extent

if TYPE_CHECKING:
    from videodit.data.audit import Row
    from videodit.data.buckets import Buckets
    from videodit.data.sources import Filed
    from videodit.train.backbone import BackboneRun

SHOWN = 16  # files of a sheet


def arguments(parser: argparse.ArgumentParser) -> None:
    from videodit.data.layouts import Layout, Split

    parser.add_argument("source", metavar="SOURCE", help="a folder of videos and pictures, a list (.jsonl .csv .parquet), or shards (.tar)")
    parser.add_argument(
        "--labels", action="store_true", help="there are labels (of a folder: the folders in it), and captions are not needed"
    )
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="settings of the run to change, such as sizes.kind=buckets")
    parser.add_argument("--run", dest="run_file", metavar="RUN.toml", help="cut clips as this run of a transformer does")
    parser.add_argument("--layout", choices=get_args(Layout), help="SOURCE is the folder of this data set as it is published")
    parser.add_argument("--split", choices=get_args(Split), default="lavita", help="which part of it (default lavita)")
    parser.add_argument("--frames", type=int, metavar="N", help="frames of a clip (default 16)")
    parser.add_argument("--size", metavar="HxW", help="rows and columns of a clip (default 64x64)")
    parser.add_argument("--every", type=int, metavar="N", help="a clip takes every N-th frame (default 1; with --layout 3)")
    parser.add_argument("--most", type=int, metavar="N", help="clips of a file at most (default 16)")
    good = "write a list of what is good, cut at its shots, its black borders cropped"
    parser.add_argument("--fix", type=Path, metavar="OUT.jsonl", help=good)
    parser.add_argument("--sheet", type=Path, metavar="OUT.png", help=f"write the first clips of the first {SHOWN} good files as a picture")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(given: argparse.Namespace) -> None:
    terminal.check_ranges(given, ("frames", "every", "most"))
    extent = given.size and parse_extent(given.size)
    if extent and min(extent) < 1:
        raise UserError(f"--size takes rows and columns from 1, such as 64x64, not {given.size}.")
    if given.fix is not None and given.fix.suffix != ".jsonl":
        raise UserError(f"--fix writes JSON lines: name a file that ends in .jsonl, not {given.fix.name}.")
    if given.fix is not None:
        terminal.check_place(given.fix)
    if given.sheet is not None:
        from videodit.data.video import check_output

        check_output(given.sheet)

    from videodit.data import sources  # which names mistakes before anything larger is loaded

    settings = _settings(given)
    size, source = _size(given, settings), _source(given, settings)
    if given.fix is not None and source.kind == "shards":
        raise UserError("--fix lists files, and what is in shards has no path of its own: unpack them, or leave --fix out.")
    items = sources.entries(source)
    if given.fix is not None and any(item.path.is_dir() for item in items):
        raise UserError("--fix lists files, and these videos are folders of pictures: leave --fix out.")

    from videodit.data import audit
    from videodit.train.progress import counting

    sizes = _buckets(settings) or size
    count, rows = counting("files read", each="file"), []
    for row in audit.audited(items, sizes, source, worded=not (given.labels or given.layout)):
        rows.append(row)
        count(len(rows), len(items))
    if given.json:
        terminal.print_json({"totals": audit.totals(rows), "files": [_told(row) for row in rows]})
    else:
        _print(rows, audit.totals(rows))
    if (given.fix or given.sheet) and not any(row.clips for row in rows):
        raise UserError("No file is good, so there is nothing to list or to show: mend the files as it is said of each.")
    if given.fix is not None:
        given.fix.write_text(audit.fixed(rows, given.fix.parent), encoding="utf-8")
        terminal.say(f"{given.fix} lists what is good: train on it with data.kind=manifest data.path={given.fix}.")
    if given.sheet is not None:
        _sheet(given.sheet, rows, size, source)


def _settings(given: argparse.Namespace) -> BackboneRun | None:
    """Those of the run whose clips are asked for, if one is."""
    if given.run_file is None and not given.overrides:
        return None
    if given.run_file is not None:
        config.text(folders.run_file(given.run_file))  # which says what is wrong with it before anything is loaded

    from videodit.train import recipes
    from videodit.train.backbone import BackboneRun

    plain = 'kind = "backbone"\noutput = "out/audit"\nautoencoder = "toybox"\ndata.kind = "folder"\ndata.path = "."'
    read = recipes.read_text(plain, given.overrides) if given.run_file is None else recipes.read(given.run_file, given.overrides)
    if not isinstance(read, BackboneRun):
        raise UserError(f"{given.run_file} trains an autoencoder, which has no clips of files: name a run file of a transformer.")
    return read


def _size(given: argparse.Namespace, settings: BackboneRun | None) -> Size:
    plain = Size(16, 64, 64) if settings is None else settings.size
    return Size(given.frames or plain.frames, *(parse_extent(given.size) if given.size else plain[1:]))


def _buckets(settings: BackboneRun | None) -> Buckets | None:
    if settings is None or settings.sizes.kind == "one":
        return None
    import torch

    from videodit import models
    from videodit.train import pools

    with torch.device("meta"):
        return pools.table(settings, models.describe(settings.autoencoder).build())


def _source(given: argparse.Namespace, settings: BackboneRun | None) -> Filed:
    from videodit.data import shards
    from videodit.data.sources import DataSet, Files, Folder, Labelled, Manifest, Shards

    run = settings.data if given.run_file is not None and settings is not None and isinstance(settings.data, Files) else None
    said = {name: getattr(given, name) or getattr(run, name, None) for name in ("every", "most")}
    how: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    if given.layout is not None:
        return DataSet(path=Path(given.source), layout=given.layout, split=given.split, **how)
    if shards.packed(given.source):
        return Shards(path=given.source, **how)
    path = Path(given.source)
    if not path.is_dir():
        return Manifest(path=path, **how)
    return (Labelled if given.labels else Folder)(path=path, **how)


def _told(row: Row) -> dict[str, Any]:
    return {
        "path": str(row.item.path),
        "why": row.why,
        "said": row.said,
        "frames": row.frames,
        "fps": round(row.fps, 3),
        "size": list(row.extent),
        "crop": str(row.crop or ""),
        "bucket": list(row.bucket or ()),
        "shots": row.shots,
        "clips": row.clips,
        "used": row.used,
        "dropped": row.dropped,
        "captions": len(row.item.captions),
    }


def _print(rows: Sequence[Row], totals: dict[str, int]) -> None:
    head = ("file", "frames", "fps", "size", "crop", "bucket", "shots", "clips", "used", "dropped", "why")
    table: list[tuple[str, ...]] = [head]
    for row in rows:
        why = f"{row.why}: {row.said}" if row.why else ""
        size, bucket = ("x".join(map(str, extent)) for extent in (row.extent, row.bucket or ()))
        numbers = (row.frames, f"{row.fps:g}", size, row.crop or "", bucket, row.shots, row.clips, row.used, row.dropped)
        table.append((row.item.path.name, *map(str, numbers), why))
    terminal.print_table(table)
    print()
    print(", ".join(f"{name} {value}" for name, value in totals.items()))


def _sheet(path: Path, rows: Sequence[Row], size: Size, source: Filed) -> None:
    """Eight frames of the first clip of each file, a file a row."""
    import numpy as np

    from videodit.data import cuts, video

    parts = []
    for row in [row for row in rows if row.clips][:SHOWN]:
        extent = row.bucket or (size if row.item.moves else size._replace(frames=1))
        clip = next(cuts.clips(row.item, cuts.cut(cuts.look(row.item, source), extent, source), extent, source))
        clip = video.fitted(clip, size.rows, size.columns)
        parts.append(clip[np.linspace(0, len(clip) - 1, 8).round().astype(int)])
    video.write(path, video.contact_sheet(np.concatenate(parts), columns=8)[None], 1)
