"""`videodit VERB ...`: what a user got wrong is one sentence and exit status 2, never a traceback."""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

from videodit.cli import audit, config, convert, doctor, evaluate, generate, plan, prepare, terminal, train
from videodit.shapes import UserError

VERBS: dict[str, tuple[ModuleType, str]] = {
    "generate": (generate, "make a video from a prompt"),
    "train": (train, "train a run file, or take up an interrupted run"),
    "config": (config, "print a complete, commented run file"),
    "plan": (plan, "say what a run will hold and handle before anything is loaded"),
    "prepare": (prepare, "encode once, by content, all that a run will read"),
    "audit": (audit, "say what every file of a data set becomes, and why"),
    "convert": (convert, "turn an image model into a video model"),
    "evaluate": (evaluate, "measure a model"),
    "doctor": (doctor, "try what this machine can run"),
}
LATER: dict[str, tuple[str, str]] = {
    "serve": ("an HTTP API and a web studio", "`videodit generate` makes videos on the command line"),
}


class Parser(argparse.ArgumentParser):
    """Mistakes on the command line are a `UserError` like all others."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **given})

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.rstrip('.')}; `{self.prog} --help` shows what can be typed.")


class Version(argparse.Action):
    """Prints the version; it is looked up only when asked for, because that takes a while."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("videodit")
        except PackageNotFoundError:
            number = "(not installed, run from its source)"
        print(f"videodit {number}")
        parser.exit()


def parser() -> Parser:
    """The whole command line."""
    whole = Parser(prog="videodit", description="Turns an image diffusion transformer into a video generator.")
    whole.add_argument("--version", action=Version, nargs=0, help="print the version")
    whole.add_argument("--debug", action="store_true", help="show where an error comes from")
    verbs = whole.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    for name, (module, what) in VERBS.items():
        verb = verbs.add_parser(name, help=what, description=module.__doc__)
        verb.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error comes from")
        module.arguments(verb)
        verb.set_defaults(run=module.run)
    for name, (what, _) in LATER.items():
        verbs.add_parser(name, help=f"{what} (not in this version yet)", add_help=False)
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0, 1 for a fault of ours, 2 for a mistake, 130 for Ctrl-C; docs/train.md has more."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        return _run(arguments)
    except UserError as error:
        return _failed(str(error), getattr(error, "status", 2), debug)
    except BrokenPipeError:  # whoever read our output stopped, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as error:
        return _failed(str(error) or "Stopped.", getattr(error, "status", 130), debug)
    except OSError as error:  # a full disk, a forbidden folder, too long a name
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}: choose another place, or mend this one.", 2, debug)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        return _failed(f"Something went wrong ({what:.300}): the same command with --debug shows where.", 1, debug)


def _run(arguments: list[str]) -> int:
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    if verb in LATER:
        raise UserError(f"{verb} is not in this version yet; {LATER[verb][1]}.")
    whole = parser()
    parsed, left = whole.parse_known_args(arguments)
    settings = getattr(parsed, "overrides", None)
    if left and (settings is None or not all(re.fullmatch(r"[\w.]+=.*", word, re.DOTALL) for word in left)):
        whole.error(f"unrecognized arguments: {' '.join(left)}")
    if left:  # settings that stand behind options
        parsed.overrides = [*parsed.overrides, *left]
    parsed.run(parsed)
    sys.stdout.flush()
    return 0


def _failed(sentence: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    terminal.say(f"videodit: {' '.join(sentence.split())}")
    return status


if __name__ == "__main__":
    sys.exit(main())
