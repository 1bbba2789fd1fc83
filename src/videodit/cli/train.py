"""Train a run file, or take up an interrupted run by the same command: `videodit train RUN.toml steps=2000`."""

from __future__ import annotations

import argparse
import time

from videodit import config, folders
from videodit.cli import terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_file", metavar="RUN.toml", help="a run file, or the name of one of the package's (videodit config lists them)")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="settings to change: TOML, or else a text")
    parser.add_argument("--json", action="store_true", help="print one JSON object when finished")


def run(given: argparse.Namespace) -> None:
    config.text(folders.run_file(given.run_file))  # which says what is wrong with it before anything is loaded

    from videodit.train import recipes
    from videodit.train.progress import Progress
    from videodit.train.stages import stages

    settings = recipes.read(given.run_file, given.overrides)
    start = time.perf_counter()
    with Progress() as progress:
        history = recipes.train(settings, progress=progress)
    model, seconds = settings.output / "model", round(time.perf_counter() - start, 1)
    steps = sum(run.steps for run in stages(settings))
    if given.json:
        last = history[-1] if history else {}
        terminal.print_json({"model": str(model), "steps": steps, "steps_now": len(history), "seconds": seconds, "figures": last})
    else:
        done = f"{steps} steps are done ({len(history)} of them now, {seconds:.0f} s)"
        page = settings.output / "report.html"
        terminal.say(f"{done}; the model is in {model}{f', and {page} shows how it went' if page.is_file() else ''}.")
