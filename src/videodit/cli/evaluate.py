"""Measure a model: `videodit evaluate toybox --prompts held-out --count 200`."""

from __future__ import annotations

import argparse
from typing import Any

from videodit.cli import terminal
from videodit.shapes import UserError

LATER = ("reconstruction", "fvd", "fid", "is", "kvd", "kid", "alignment", "motion", "report", "compare")
RATES = ("shape", "colour", "motion", "all")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("toybox", *LATER), metavar="WHAT", help=f"toybox (not in this version yet: {', '.join(LATER)})")
    parser.add_argument("rest", nargs="*", metavar="...", help="what the measure compares (not in this version yet)")
    parser.add_argument("--prompts", choices=("held-out", "seen", "two"), default="held-out", help="which scenes are asked for")
    parser.add_argument("--count", type=int, default=200, metavar="N", help="how many (default 200)")
    parser.add_argument("--model", default="toybox", metavar="M", help="a model folder (default: toybox, the bundled model)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of the sampler")
    parser.add_argument("--guidance", type=float, metavar="G", help="how closely the prompt is followed")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the noise (default 0)")
    parser.add_argument("--task", metavar="T", help="(not in this version yet)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(given: argparse.Namespace) -> None:
    if given.what in LATER:
        raise UserError(f"evaluate {given.what} is not in this version yet; evaluate toybox is.")
    if given.rest:
        raise UserError(f"evaluate toybox takes no {given.rest[0]!r}: give a model by --model.")
    if given.task is not None:
        raise UserError("--task is not in this version yet; leave it out to measure text to video.")
    terminal.check_ranges(given, ("count", "steps", "guidance", "seed"))

    import videodit
    from videodit.evaluate import suite

    result = suite.toybox_table(
        videodit.load(given.model),
        prompts=given.prompts,
        count=given.count,
        seed=given.seed,
        steps=given.steps,
        guidance=given.guidance,
        progress=terminal.counter("clips"),
    )
    if given.json:
        terminal.print_json(result)
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    rows = [(name, *(f"{100 * result[name][rate]:.1f} %" for rate in RATES)) for name in ("model", "truth", "shuffled")]
    terminal.print_table([(f"{result['count']} clips", *RATES), *rows])
