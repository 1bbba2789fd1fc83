"""Make a video from a prompt: `videodit generate "a red circle moves right" -o out.mp4`, and from whatever is given beside it."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videodit import folders
from videodit.cli import terminal
from videodit.shapes import UserError, parse_extent

if TYPE_CHECKING:
    from videodit.generate import Frames, Generator
    from videodit.request import Request

SUFFIXES = (".mp4", ".gif", ".webp", ".png")
EXAMPLE = "a red circle moves right"
TOLD = ("prompt", "prompts", "label")
NUMBERS = ("frames", "steps", "guidance", "seed", "fps", "strength", "softened")
PLAIN = (*NUMBERS, "negative", "sampler", "shift", "keep", "before", "by", "upscale")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help=f"what the video shows, such as {EXAMPLE!r}")
    parser.add_argument("-o", "--out", required=True, metavar="OUT", type=Path, help=f"the file to write: {' '.join(SUFFIXES)}")
    parser.add_argument("--model", metavar="M", help="a model folder (default: toybox, the bundled model)")
    parser.add_argument("--upscale", metavar="M", help="a second model, which makes the clip larger than the first one's")
    parser.add_argument("--lora", action="append", metavar="PATH[=SCALE]", help="adapters to merge into the model; may be repeated")
    parser.add_argument("--label", metavar="NAME", help="for a model that takes labels: the name of one")
    parser.add_argument("--num", type=int, default=1, metavar="N", help="videos of each prompt, as OUT-000.mp4, OUT-001.mp4, ...")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="a text file with one prompt a line")
    parser.add_argument("--negative", metavar="TEXT", help="what the video does not show")
    _shape(parser)
    _inputs(parser)
    parser.add_argument("--like", type=Path, metavar="CLIP", help="make a clip of ours again; other options change what they name")
    parser.add_argument("--deterministic", action="store_true", help="the fixed kernels, whatever VIDEODIT_KERNELS or --like's clip says")
    parser.add_argument("--preview", type=int, metavar="N", help="every N steps, write what is expected as OUT-preview.png")
    parser.add_argument("--json", action="store_true", help="print one JSON object that says what was made")


def _shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=int, metavar="N", help="frames; 1 makes an image")
    parser.add_argument("--round", action="store_true", help="make the nearest number of frames that fits, and say so")
    parser.add_argument("--size", metavar="HxW", help="rows and columns, such as 64x64")
    parser.add_argument("--fps", type=float, metavar="F", help="frames a second of the file (default: the model's)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of the sampler")
    parser.add_argument("--guidance", type=float, metavar="G", help="how closely the prompt is followed; 1 is without guidance")
    parser.add_argument(
        "--sampler", metavar="NAME", help="euler, heun, rf-solver, ..., or a scheduler of diffusers, such as UniPCMultistep"
    )
    parser.add_argument("--shift", type=float, metavar="S", help="another shift of times than the model (the first one) was trained with")
    parser.add_argument("--seed", type=int, metavar="S", help="another seed makes another video (default 0)")


def _inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task",
        metavar="T",
        help="t2v, t2i, i2v, interpolate, predict, complete, extend, infill, edit or upscale; else what is given says it",
    )
    parser.add_argument(
        "--by",
        metavar="WAY",
        help="how a video is extended: chunks, one after the other (default); windows, all at once, where the prompts of --then blend; "
        "cascade, key frames and then those between; queue, frame after frame, by a model whose frames were trained at times of their own",
    )
    parser.add_argument("--image", type=Path, metavar="F", help="the first frame")
    parser.add_argument("--last", type=Path, metavar="F", help="the last frame")
    parser.add_argument("--video", type=Path, metavar="F", help="a video to go on from, to complete, to fill, to edit or to make larger")
    parser.add_argument("--keep", metavar="FRAMES", help="which frames of --video are given, such as 0-3,12-15")
    parser.add_argument("--then", action="append", metavar="PROMPT", help="what an extended video shows afterwards; may be repeated")
    parser.add_argument("--strength", type=float, metavar="X", help="how much an edit changes: above 0, up to 1")
    parser.add_argument("--softened", type=float, metavar="X", help="how much of a clip that is made larger is hidden by noise")
    parser.add_argument("--region", type=Path, metavar="F", help="an edit's picture or video, white where something may change")
    parser.add_argument("--before", metavar="PROMPT", help="what --video shows: an edit then keeps its motion by leading it back to noise")


def run(given: argparse.Namespace) -> None:
    terminal.check_ranges(given, ("num", "preview", *NUMBERS))
    _there(given)
    asked, name = _asked(given)
    files = _files(given.out, len(asked))

    from videodit import fitting
    from videodit import request as requests

    requests.check(asked[0])  # they differ in words alone
    start = time.perf_counter()
    model = asked[0].load(name)
    second = asked[0].second(model)
    if given.label is not None and model.takes != "label":
        raise UserError(f"--label is for models that take labels; this one takes {model.takes}.")
    for one in asked:
        one.check_words(model, second)  # the last as well, before the first is made
    asked = [fitting.paced(_fitted(one, model, round_up=given.round), model) for one in asked]
    _notes(given, asked, model, name)
    for number, (one, path) in enumerate(zip(asked, files, strict=True), start=1):
        many = f"{number} of {len(files)}, " if len(files) > 1 else ""
        made = _make(one, model, second, name, path, given.preview, many)
    seconds = round(time.perf_counter() - start, 3)
    for row in made.drift:
        terminal.say("  ".join(f"{name} {value:g}" for name, value in row.items()))
    if given.json:
        terminal.print_json(_result(asked, files, made, asked[0].fps or model.fps, seconds))
    else:
        extent = f"{made.frames} frame{'s' * (made.frames > 1)} of {made.rows}x{made.columns}"
        terminal.say(f"{_named(files)}: {extent}, {seconds:.1f} s.")


@dataclass
class Made:
    """What is known of a clip that went by: its extent, and of a longer one what changes with the place."""

    frames: int = 0
    rows: int = 0
    columns: int = 0
    drift: list[dict[str, float]] = field(default_factory=list)

    def watched(self, parts: Iterable[Frames]) -> Iterator[Frames]:
        for part in parts:
            self.frames, (self.rows, self.columns) = self.frames + len(part), part.shape[1:3]
            yield part


def _make(one: Request, model: Generator, second: Generator | None, name: str, path: Path, every: int | None, many: str) -> Made:
    """One clip, whose frames go into its file as they come; warnings become notes."""
    from videodit.data.video import write, write_parts
    from videodit.extend import drifting
    from videodit.record import record
    from videodit.train.progress import counting

    def preview(step: int, look: Callable[[], Frames]) -> None:
        if every and step % every == 0:
            write(path.with_name(f"{path.stem}-preview.png"), look()[0], 1)

    made = Made()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            count = counting(f"{many}{one.counts}s", each=one.counts)
            parts = made.watched(one.parts(model, count, preview if every else None, second))
            parts = drifting(parts, model.size.frames, made.drift) if one.task in ("extend", "infill") else parts
            write_parts(path, parts, one.fps or model.fps, note=record(one, name, path.suffix))
        for note in dict.fromkeys(str(warning.message) for warning in said):
            terminal.say(f"Note: {note}")
        return made
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise UserError(f"{one.size(model)} does not fit into memory: use a smaller --size or fewer --frames.") from error
        raise


def _fitted(one: Request, model: Generator, *, round_up: bool) -> Request:
    from videodit.data.video import probe
    from videodit.fitting import fitting

    if not round_up:
        return one
    fits = fitting(one, model)
    if fits.frames != one.frames:
        there = one.frames or (probe(one.video).frames if one.video else model.size.frames)
        terminal.say(f"Note: {there} frames do not fit; {fits.frames} are made.")
    return fits


def _notes(given: argparse.Namespace, asked: list[Request], model: Generator, name: str) -> None:
    """What a user should know before waiting."""
    from videodit import record as records

    prompts = [prompt for one in asked for prompt in (one.prompt, *one.then)] if model.takes == "text" else []
    unknown = list(dict.fromkeys(word for prompt in prompts for word in model.unknown_words(prompt)))
    if unknown:
        words = ", ".join(unknown[:8]) + (", ..." if len(unknown) > 8 else "")
        terminal.say(
            f"Note: this model never read the words {words}, so expect little of them. "
            f"The bundled model knows simple shapes that move, as in: {EXAMPLE}."
        )
    if given.like is not None:
        others = records.differences(records.read_record(given.like), asked[0], name)
        if others:
            terminal.say(f"Note: the clip may differ from {given.like}: {'; '.join(others)}.")


def _result(asked: list[Request], files: list[Path], made: Made, fps: float, seconds: float) -> dict[str, Any]:
    prompts = list(dict.fromkeys(one.prompt for one in asked))
    return {
        "files": [str(path) for path in files],
        "prompt": prompts[0] if len(prompts) == 1 else [one.prompt for one in asked],
        "task": asked[0].task,
        "seed": asked[0].seed,
        "size": [made.frames, made.rows, made.columns],
        "fps": fps,
        "seconds": seconds,
    } | ({"drift": made.drift} if made.drift else {})


def _named(files: list[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} to {files[-1].name}"


# --- What can be known to be wrong before a model is loaded ---


def _there(given: argparse.Namespace) -> None:
    """Refuse what is not there at all before anything that takes long is imported."""
    for model in (given.model, given.upscale):
        if model is not None:
            folders.locate(model)
    for name in ("image", "last", "video", "region"):
        path = getattr(given, name)
        if path is not None and not path.exists():
            raise UserError(f"--{name} {path} is not there: name a picture or video that exists.")


def _asked(given: argparse.Namespace) -> tuple[list[Request], str]:
    """A request for each clip, and the model's name."""
    said = [name for name in TOLD if getattr(given, name) is not None]
    told_nothing = given.model not in (None, "toybox")
    if len(said) > 1 or not (said or given.like or told_nothing):  # another model may be told nothing
        what = "A prompt, --prompts and --label exclude each other" if said else "Nothing says what to generate"
        raise UserError(f'{what}: give one prompt, such as "{EXAMPLE}", or --prompts FILE.')
    prompts = _prompts(given) if said else []
    extent = parse_extent(given.size) if given.size is not None else None
    if given.before is not None and not given.before.strip():
        raise UserError("--before is empty: say what the video shows now.")
    if not all(words.strip() for words in given.then or ()):
        raise UserError("--then is empty: say what the video shows afterwards.")
    for words in (given.negative, given.before, *(given.then or ())):
        _written(words or "")

    from videodit import kernels
    from videodit import record as records
    from videodit import request as requests

    record = None if given.like is None else records.read_record(given.like)
    base = records.asked_by(record, given.like) if record and given.like else requests.Request()
    name = given.model if given.model is not None else records.model_of(record, given.like) if record and given.like else "toybox"
    prompts, (rows, columns) = prompts or [base.prompt], extent or (base.rows, base.columns)
    changes = {key: getattr(given, key) for key in (*PLAIN, *requests.INPUTS) if getattr(given, key) is not None}
    changes |= {key: tuple(getattr(given, key)) for key in ("then", "lora") if getattr(given, key)}
    if record and given.like and given.upscale is None:
        changes["upscale"] = records.second_of(record, given.like)
    asked_for = {} if given.deterministic else kernels.told()
    changes["kernels"] = base.kernels if asked_for is None else asked_for
    one = replace(base, rows=rows, columns=columns, **changes)
    terminal.check_ranges(argparse.Namespace(**vars(one)), NUMBERS)
    one = replace(one, task=given.task or (base.task if record else "t2i" if one.frames == 1 else requests.task_of(one)))
    if one.before and given.num > 1:
        raise UserError("An edit by --before draws no noise, so all would be alike: leave --num out.")
    numbers = range(base.number, base.number + given.num * len(prompts))
    told = [prompt for prompt in prompts for _ in range(given.num)]
    return [replace(one, prompt=prompt, number=number) for prompt, number in zip(told, numbers, strict=True)], name


def _prompts(given: argparse.Namespace) -> list[str]:
    prompts = _lines(given.prompts) if given.prompts is not None else [given.label or given.prompt or ""]
    for prompt in prompts:
        _written(prompt)
        if not prompt.strip():
            raise UserError(f'The prompt is empty: say what moves and how, such as "{EXAMPLE}".')
    return prompts


def _written(words: str) -> None:
    try:
        words.encode()
    except UnicodeEncodeError:
        raise UserError(f'The prompt {words!r} is not UTF-8 text: type it anew, such as "{EXAMPLE}".') from None


def _lines(path: Path) -> list[str]:
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
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
