"""Runs, score files and videos side by side on one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from videodit.data import video
from videodit.evaluate.compare import loaded
from videodit.evaluate.plots import plot
from videodit.shapes import UserError

MOVING = {".mp4": "video/mp4", ".webm": "video/webm", ".webp": "image/webp", ".gif": "image/gif", ".png": "image/png"}
DECODED = ("image/webp", "image/gif")
PATIENCE = 60.0  # seconds that one of these may take to be read
MOST = 48  # videos of one column
LARGEST = 64 * 2**20  # bytes of all videos on a page
Curves = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Shown:
    """One column of a report: a run, a score file, or videos."""

    name: str
    curves: Curves = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)  # file -> its figures, flat
    videos: dict[str, Path] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def columns(paths: Sequence[Path]) -> list[Shown]:
    """What each path shows, under its name, or under the whole path where two have one name."""
    found = [looked_at(path) for path in paths]
    names = [shown.name for shown in found]
    return [replace(shown, name=str(path)) if names.count(shown.name) > 1 else shown for shown, path in zip(found, paths, strict=True)]


def looked_at(path: Path) -> Shown:
    """What there is to show of a run's folder, a score file, a video or a folder of videos."""
    if path.suffix == ".json" and path.is_file():
        return Shown(path.stem, scores={path.stem: scores(path)})
    if path.suffix in MOVING and path.is_file():
        return Shown(path.stem, videos={path.stem: path})
    if path.is_file():
        raise UserError(f"{path} is nothing that a page shows: name folders of runs, score files (.json), or videos ({', '.join(MOVING)}).")
    if not path.is_dir():
        raise UserError(f"There is no {path}: name folders of runs, score files (.json), videos, or folders of videos.")
    folder = next(there for there in (path / "samples", path) if there.is_dir())
    latest = max((part for part in folder.iterdir() if part.is_dir() and part.name.startswith("step-")), default=folder)
    shown = Shown(
        path.resolve().name,
        curves=curves(path / "log.jsonl"),
        scores=_scored([*path.glob("*.json"), *path.glob("scores/*.json")], path),
        videos=_named([file for file in sorted(latest.iterdir()) if file.suffix in MOVING]),
        settings=_settings(path / "run.toml"),
    )
    if not (shown.curves or shown.scores or shown.videos):
        raise UserError(f"{path} has nothing to show: a run leaves log.jsonl, and videos and score files (.json) may stand in it too.")
    return shown


def _scored(files: Sequence[Path], folder: Path) -> dict[str, dict[str, Any]]:
    """The figures of those that are score files, by their names, with where they stand where that alone tells them apart."""
    found, stems = {}, [file.stem for file in files]
    for file in sorted(files):
        name = file.stem if stems.count(file.stem) == 1 else file.relative_to(folder).with_suffix("").as_posix()
        with suppress(UserError):
            found |= {name: scores(file)} if file.stem != "kernels" else {}
    return found


def _named(files: Sequence[Path]) -> dict[str, Path]:
    """Videos by their names, with what they end in where that alone tells them apart."""
    stems = [file.stem for file in files]
    return {file.name if stems.count(file.stem) > 1 else file.stem: file for file in files}


def curves(log: Path) -> Curves:
    """What a run's log says, by name, over steps; a line that a kill cut short is left out."""
    found: Curves = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else ():
        try:
            figures = json.loads(line)
            step = float(figures.pop("step"))
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
        for name, value in figures.items():
            if name != "time" and isinstance(value, float | int) and abs(value) < 1e300:  # so that it is finite
                found.setdefault(name, []).append((step, float(value)))
    return found


def scores(path: Path) -> dict[str, Any]:
    """The figures of a score file under dotted names; lists are left to the file."""
    try:
        held = loaded(path)
        found = _spanned(dict(_flat(held)), held)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path} is not a score file ({why}): name one that `videodit evaluate ... --json > FILE` wrote.") from None
    if not found:
        raise UserError(f"{path} is not a score file (it holds no figures): name one that `videodit evaluate ... --json > FILE` wrote.")
    return found


def _flat(value: Any, name: str = "", *, lists: bool = False) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, part in value.items() for pair in _flat(part, f"{name}.{key}" if name else str(key), lists=lists)]
    return [] if (isinstance(value, list) and not lists) or value is None else [(name, value)]


def _spanned(found: dict[str, Any], held: Any) -> dict[str, Any]:
    """The figures with their intervals behind them; those of a score of several stand once, where they stand by themselves."""
    table = held.get("figures") if isinstance(held, dict) else None
    figures = {name: figure for name, figure in (table if isinstance(table, dict) else {}).items() if isinstance(figure, dict)}
    spans = {name: figure.get("interval") for name, figure in figures.items() if name in found}
    spans["value"] = held.get("interval") if isinstance(held, dict) else None
    inside = tuple(f"figures.{name}." for name in figures if name in found)
    found = {name: value for name, value in found.items() if not name.startswith(inside)}
    for name, span in spans.items():
        if name in found and isinstance(span, list) and len(span) == 2 and all(isinstance(end, int | float) for end in span):
            found[name] = f"{_figure(found[name])} ({span[0]:.5g} to {span[1]:.5g})"
    return found


def _settings(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return dict(_flat(tomllib.loads(path.read_text(encoding="utf-8")), lists=True))
    except (OSError, ValueError):
        return {}


# --- The page ---


def page(title: str, columns: Sequence[Shown]) -> str:
    """One file: tables, plots and videos are all inside."""
    parts = [_differences(columns), _scores(columns), _plots(columns), _videos(columns)]
    held = {"@title": escape(title), "@body": "\n".join(part for part in parts if part)}
    return re.sub("@title|@body", lambda found: held[found[0]], _PAGE)


def _differences(columns: Sequence[Shown]) -> str:
    """The settings in which runs differ; of one run, all."""
    runs = [column for column in columns if column.settings]
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    unlike = [name for name in names if len(runs) == 1 or len({str(run.settings.get(name, "-")) for run in runs}) > 1]
    if not unlike:
        return ""
    rows = [[name, *(str(run.settings.get(name, "-")) for run in runs)] for name in unlike]
    title = "Settings" if len(runs) == 1 else "Settings that differ"
    return f"<details><summary><h2>{title}</h2></summary>{_table(['', *(run.name for run in runs)], rows)}</details>"


def _scores(columns: Sequence[Shown]) -> str:
    kinds = list(dict.fromkeys(kind for column in columns for kind in column.scores))
    alone = all(len(column.scores) <= 1 for column in columns)  # score files that were named: a column each, whatever they are called
    tables = []
    for kind in ["Scores"] if alone and kinds else kinds:
        held = {
            column.name: next(iter(column.scores.values())) if alone else column.scores.get(kind) for column in columns if column.scores
        }
        some = {name: figures for name, figures in held.items() if figures}
        names = list(dict.fromkeys(name for figures in some.values() for name in figures))
        rows = [[name, *(_figure(figures.get(name)) for figures in some.values())] for name in names]
        tables.append(f"<h2>{escape(kind)}</h2>{_table(['', *some], rows)}")
    return "\n".join(tables)


def _figure(value: Any) -> str:
    return "-" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{top}</tr>{body}</table></div>"


def _plots(columns: Sequence[Shown]) -> str:
    """A panel a figure, a line a run; of one run, figures that belong together share a panel."""
    runs = {column.name: column.curves for column in columns if column.curves}
    names = list(dict.fromkeys(name for held in runs.values() for name in held))
    if len(runs) == 1:
        ((_, held),) = runs.items()
        together: dict[str, Curves] = {}
        for name in names:
            together.setdefault(_family(name), {})[name] = held[name]
        panels = [plot(family, lines) for family, lines in together.items()]
    else:
        panels = [plot(name, {run: held[name] for run, held in runs.items() if name in held}) for name in names]
    return f"<h2>Curves</h2><div class=panels>{''.join(panels)}</div>" if panels else ""


def _family(name: str) -> str:
    """What stands before the bracket: 'loss [t 0.25-0.5]' is of the loss's panel by t, 'judged [shape]' of the judge's."""
    stem, _, rest = name.partition(" [")
    return f"{stem} by t" if rest.startswith("t ") else stem


def _videos(columns: Sequence[Shown]) -> str:
    shown = [column for column in columns if column.videos]
    if not shown:
        return ""
    every = list(dict.fromkeys(name for column in shown for name in column.videos))
    alone = all(len(column.videos) == 1 for column in shown)  # videos that were named: beside each other
    rows = {"": [next(iter(column.videos.values())) for column in shown]} if alone else {}
    rows = rows or {name: [column.videos.get(name) for column in shown] for name in every[:MOST]}
    names, body, total = [], "", 0
    for name, files in rows.items():
        cells = [_moving(file) for file in files]
        total += sum(map(len, cells)) * 3 // 4  # base64 takes four letters for three bytes
        if total > LARGEST:
            break
        body += f"<tr><th>{escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        names.append(name)
    if not names:
        raise UserError(f"The videos take {total / 2**20:.0f} MiB, and a page holds {LARGEST // 2**20}: name fewer, or smaller ones.")
    names = every if alone else names
    head = "".join(f"<th>{escape(column.name)}</th>" for column in shown)
    left_out = f"<p>The first {len(names)} of {len(every)} names.</p>" if len(names) < len(every) else ""
    return f"<h2>Videos</h2>{left_out}{_BAR}<div class=wide><table class=videos><tr><th></th>{head}</tr>{body}</table></div>"


def _moving(path: Path | None) -> str:
    if path is None:
        return "-"
    kind = MOVING[path.suffix]
    if kind in DECODED and path.stat().st_size <= LARGEST and (film := _film(path)):
        return film
    inside = _inside(kind, path.read_bytes())
    return f'<video src="{inside}" muted loop playsinline></video>' if kind.startswith("video") else f'<img src="{inside}" alt="">'


def _film(path: Path) -> str:
    """The frames of an animation, which a page cannot stop by itself, each as a picture that it can show; empty where there is but one."""
    try:
        frames, fps = video.read(path, seconds=PATIENCE)
    except UserError:  # which a browser may yet know how to read
        return ""
    if len(frames) < 2:
        return ""
    pictures = []
    for frame in frames:
        Image.fromarray(frame).save(held := BytesIO(), "png")
        pictures.append(f'<img src="{_inside("image/png", held.getvalue())}" alt=""{" hidden" if pictures else ""}>')
    return f"<span class=film data-fps={fps:g}>{''.join(pictures)}</span>"


def _inside(kind: str, held: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(held).decode()}"


def written(path: Path, text: str) -> None:
    """A whole page or none."""
    aside = path.with_name(f".{path.name}.writing")
    try:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")  # a name may be of bytes that are no text
        aside.rename(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another place by -o.") from error


_BAR = (
    "<p><button id=play>Pause</button> <input id=time type=range min=0 max=1000 value=0> "
    "<label>speed <select id=speed><option>0.25<option>0.5<option selected>1<option>2</select></label></p>"
)

_PAGE = """<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width"><title>@title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 96rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; display: inline-block; margin: 1.2rem 0 .4rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; text-align: left; border-bottom: 1px solid #ddd }
.wide { overflow-x: auto } .panels { display: flex; flex-wrap: wrap; gap: .6rem } .videos th { font-weight: normal; max-width: 16rem }
video, .videos img { width: 160px; image-rendering: pixelated; display: block } .film img[hidden] { display: none } #time { width: 20rem }
</style>
<h1>@title</h1>
@body
<script>
const videos = [...document.querySelectorAll("video")], play = document.getElementById("play")
const films = [...document.querySelectorAll(".film")].map(f => ({ frames: [...f.children], fps: +f.dataset.fps }))
if (play && videos.length + films.length) {
  const time = document.getElementById("time"), speed = document.getElementById("speed")
  let playing = true, at = 0, before = null
  const longest = () => Math.max(...videos.map(v => v.duration || 0), ...films.map(f => f.frames.length / f.fps), 0.001)
  const show = () => {
    videos.forEach(v => { if (v.readyState > 0) v.currentTime = Math.min(at, (v.duration || 0) - 0.001) })
    films.forEach(f => {
      const now = Math.min(Math.floor(at * f.fps + 0.001), f.frames.length - 1)
      f.frames.forEach((frame, number) => { frame.hidden = number !== now })
    })
  }
  play.onclick = () => { playing = !playing; play.textContent = playing ? "Pause" : "Play"; before = null }
  time.oninput = () => { at = time.value / 1000 * longest(); show() }
  const tick = now => {
    if (playing && before !== null) {
      at = (at + (now - before) / 1000 * speed.value) % longest()
      time.value = at / longest() * 1000
      show()
    }
    before = playing ? now : null
    setTimeout(() => requestAnimationFrame(tick), 40)
  }
  requestAnimationFrame(tick)
}
</script>
</html>
"""
