"""Make a video from a prompt: `videodit generate "a red circle moves right" -o out.mp4`."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videodit.cli import terminal
from videodit.shapes import Size, UserError, parse_extent

if TYPE_CHECKING:
    from videodit.generate import Generator

SUFFIXES = (".mp4", ".gif", ".webp", ".png")
EXAMPLE = "a red circle moves right"
BATCH = 8  # clips that are made at once
LATER = {
    "like": "this version generates from text: describe the clip in a prompt",
    "image": "this version generates from text alone: leave it out",
    "last": "this version generates from text alone: leave it out",
    "video": "this version generates from text alone: leave it out",
    "task": "this version knows t2v alone: leave it out, or use --frames 1 for an image",
}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be made: one file for each prompt and number."""

    prompts: list[str]
    files: list[Path]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help=f"what the video shows, such as {EXAMPLE!r}")
    parser.add_argument("-o", "--out", required=True, metavar="OUT", type=Path, help=f"the file to write: {' '.join(SUFFIXES)}")
    parser.add_argument("--model", default="toybox", metavar="M", help="a model folder (default: toybox, the bundled model)")
    parser.add_argument("--label", metavar="NAME", help="for a model that takes labels: the name of one")
    parser.add_argument("--num", type=int, default=1, metavar="N", help="videos of each prompt, as OUT-000.mp4, OUT-001.mp4, ...")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="a text file with one prompt a line")
    parser.add_argument("--frames", type=int, metavar="N", help="frames; 1 makes an image")
    parser.add_argument("--size", metavar="HxW", help="rows and columns, such as 64x64")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of the sampler")
    parser.add_argument("--guidance", type=float, metavar="G", help="how closely the prompt is followed; 1 is without guidance")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed makes another video (default 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object that says what was made")
    for name in LATER:
        parser.add_argument(f"--{name}", metavar=name.upper(), help="(not in this version yet)")


def run(given: argparse.Namespace) -> None:
    for name, instead in LATER.items():
        if getattr(given, name) is not None:
            raise UserError(f"--{name} is not in this version yet; {instead}.")
    order = _order(given)
    extent = parse_extent(given.size) if given.size else None

    import videodit

    start = time.perf_counter()
    model = videodit.load(given.model)
    if given.label is not None and model.takes != "label":
        raise UserError(f"--label is for models that take labels; this one takes {model.takes}.")
    size = Size(given.frames or model.size.frames, *(extent or model.size[1:]))
    _warn(model, order.prompts)
    try:
        _make(model, order, size, given)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise UserError(f"{size} does not fit into memory: use a smaller --size or fewer --frames.") from error
        raise
    seconds = round(time.perf_counter() - start, 3)
    if given.json:
        terminal.print_json(_result(order, given.seed, size, model.fps, seconds))
    else:
        terminal.say(f"{_named(order.files)}: {size}, {seconds:.1f} s.")


def _make(model: Generator, order: Order, size: Size, given: argparse.Namespace) -> None:
    from videodit.data.video import write

    total = len(order.files)
    for first in range(0, total, BATCH):
        part = slice(first, first + BATCH)
        many = f"{first + 1} to {min(first + BATCH, total)} of {total}, " if total > 1 else ""
        videos = model.generate(
            order.prompts[part],
            size=size,
            seed=given.seed,
            steps=given.steps,
            guidance=given.guidance,
            first=first,
            progress=terminal.counter(f"{many}step"),
        )
        for path, frames in zip(order.files[part], videos, strict=True):
            write(path, frames, model.fps)


def _warn(model: Generator, prompts: list[str]) -> None:
    unknown = list(dict.fromkeys(word for prompt in prompts for word in model.unknown_words(prompt)))
    if unknown:
        words = ", ".join(unknown[:8]) + (", ..." if len(unknown) > 8 else "")
        terminal.say(
            f"Note: this model never read the words {words}, so expect little of them. "
            f"The bundled model knows simple shapes that move, as in: {EXAMPLE}."
        )


def _result(order: Order, seed: int, size: Size, fps: float, seconds: float) -> dict[str, Any]:
    prompts = list(dict.fromkeys(order.prompts))
    return {
        "files": [str(path) for path in order.files],
        "prompt": prompts[0] if len(prompts) == 1 else order.prompts,
        "seed": seed,
        "size": list(size),
        "fps": fps,
        "seconds": seconds,
    }


def _named(files: list[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} to {files[-1].name}"


# --- What can be known to be wrong before a model is loaded ---


def _order(given: argparse.Namespace) -> Order:
    terminal.check_ranges(given, ("num", "frames", "steps", "guidance", "seed"))
    prompts = [prompt for prompt in _prompts(given) for _ in range(given.num)]
    return Order(prompts=prompts, files=_files(given.out, len(prompts)))


def _prompts(given: argparse.Namespace) -> list[str]:
    said = [name for name in ("prompt", "prompts", "label") if getattr(given, name) is not None]
    if not said and given.model != "toybox":  # which may be told nothing
        return [""]
    if len(said) != 1:
        what = "A prompt, --prompts and --label exclude each other" if said else "Nothing says what to generate"
        raise UserError(f'{what}: give one prompt, such as "{EXAMPLE}", or --prompts FILE.')
    prompts = _lines(given.prompts) if given.prompts is not None else [given.label or given.prompt or ""]
    for prompt in prompts:
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise UserError(f'The prompt {prompt!r} is not UTF-8 text: type it anew, such as "{EXAMPLE}".') from None
        if not prompt.strip():
            raise UserError(f'The prompt is empty: say what moves and how, such as "{EXAMPLE}".')
    return prompts


def _lines(path: Path) -> list[str]:
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"--prompts {path} cannot be read ({reason}): give a text file with one prompt a line.") from None
    if not prompts:
        raise UserError(f"--prompts {path} has no prompt in it: write one a line.")
    return prompts


def _files(out: Path, number: int) -> list[Path]:
    from videodit.data.video import check_output

    files = [out] if number == 1 else [out.with_name(f"{out.stem}-{i:03d}{out.suffix}") for i in range(number)]
    for path in files:
        check_output(path)  # raises what is wrong
    return files
