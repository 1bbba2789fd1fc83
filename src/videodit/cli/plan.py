"""Say what a run will hold and handle, before anything is loaded: `videodit plan RUN.toml`."""

from __future__ import annotations

import argparse
from typing import Any

from videodit import config, folders
from videodit.cli import terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_file", metavar="RUN.toml", help="a run file, or the name of one of the package's (videodit config lists them)")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="settings to change")
    parser.add_argument("--shapes", action="store_true", help="shapes and counts alone, in a moment: no memory, no time")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(given: argparse.Namespace) -> None:
    config.text(folders.run_file(given.run_file))  # which says what is wrong with it before anything is loaded

    from videodit.train import recipes
    from videodit.train.planning import plan as planned
    from videodit.train.stages import stages

    plans = [planned(run, whole=not given.shapes) for run in stages(recipes.read(given.run_file, given.overrides), ahead=True)]
    if given.json:
        terminal.print_json(plans[0] if len(plans) == 1 else {"stages": plans})
        return
    for number, plan in enumerate(plans, 1):
        rows = [(name.removesuffix("_bytes").replace("_", " "), _amount(name, value)) for name, value in plan.items()]
        heading = "how much" if len(plans) == 1 else f"stage {number} of {len(plans)}"
        terminal.print_table([("what", heading), *rows])


def _amount(name: str, value: Any) -> str:
    from videodit.train.progress import span

    if value is None:
        return "not known"
    if isinstance(value, (list, tuple)):
        numbers = all(isinstance(item, int) for item in value)
        return (" x " if numbers else "; ").join(map(str, value)) or "nothing"
    if isinstance(value, float):
        return span(value) if name.endswith("seconds") else f"{value:.3g}"
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    return terminal.amount(value, binary=name.endswith("_bytes"))
