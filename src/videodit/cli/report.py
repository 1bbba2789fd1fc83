"""Show runs, scores and videos side by side: `videodit evaluate report RUN ... -o report.html`."""

from __future__ import annotations

import argparse
from pathlib import Path

from videodit.cli import terminal
from videodit.shapes import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    what = "folders of runs, score files (.json), videos, or folders of videos"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=what)
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), metavar="FILE", help="the page (default report.html)")
    parser.add_argument("--title", default="", help="what stands above it")


def run(given: argparse.Namespace) -> None:
    from videodit.evaluate import report

    if given.output.suffix != ".html":
        raise UserError(f"A report is a page: use a name that ends in .html, not {given.output}.")
    terminal.check_place(given.output)
    columns = report.columns(given.runs)
    report.written(given.output, report.page(given.title or ", ".join(column.name for column in columns), columns))
    if given.json:
        held = {what: sum(len(getattr(column, what)) for column in columns) for what in ("curves", "scores", "videos")}
        terminal.print_json({"report": str(given.output), **held})
    else:
        terminal.say(f"The report is in {given.output}: open it in a browser.")
