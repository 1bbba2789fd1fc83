"""Say what a run will hold and handle, before anything is loaded: `videodit plan RUN.toml`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from videodit.cli import terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_file", type=Path, metavar="RUN.toml", help="a run file, such as videodit config NAME prints")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="settings to change")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(given: argparse.Namespace) -> None:
    from videodit.train import recipes

    plan = recipes.plan(recipes.read(given.run_file, given.overrides))
    if given.json:
        terminal.print_json(plan)
    else:
        rows = [(name.removesuffix("_bytes").replace("_", " "), _amount(name, value)) for name, value in plan.items()]
        terminal.print_table([("what", "how much"), *rows])


def _amount(name: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        numbers = all(isinstance(item, int) for item in value)
        return (" x " if numbers else ", ").join(map(str, value)) or "nothing"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return terminal.amount(value, binary=name.endswith("_bytes"))
