"""Print a complete, commented run file: `videodit config backbone > run.toml`."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path

from videodit import config, folders
from videodit.shapes import UserError

KINDS = ("image-autoencoder", "autoencoder", "backbone", "decoder")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a kind of run, or a run file; without it the kinds and the package's own are listed"
    )
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="settings to change")


def run(given: argparse.Namespace) -> None:
    if given.name is None:
        print("\n".join([*KINDS, *folders.runs()]))
        return
    if given.name not in KINDS:
        if not Path(given.name).suffix and not Path(given.name).exists() and given.name not in folders.runs():
            nearest = difflib.get_close_matches(given.name, [*KINDS, *folders.runs()], 1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(KINDS)}, or give the path of a TOML file."
            raise UserError(f"{given.name} is no kind of run; {hint}")
        config.text(folders.run_file(given.name))

    from videodit.train import recipes

    if given.name in KINDS:
        settings = recipes.TEMPLATES[given.name]
        print(config.write(config.parse(type(settings), config.write(settings), given.overrides, name=given.name)), end="")
    else:
        print(config.write(recipes.read(given.name, given.overrides)), end="")
