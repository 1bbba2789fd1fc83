"""Scores of two sets of videos, `videodit evaluate fvd REAL FAKE`, and two scores side by side, `videodit evaluate compare A B`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videodit.cli import terminal
from videodit.evaluate.asked import DRAWN, KERNELS, NAMED
from videodit.shapes import UserError, parse_extent

if TYPE_CHECKING:
    from videodit.evaluate.extractors import Extractor
    from videodit.evaluate.protocol import Estimator, Protocol, Score

# What looks unless --extractor says otherwise, and what the help says.
VERBS: dict[str, tuple[str, str]] = {
    "fvd": ("i3d", "Frechet distance of clips, as I3D sees them"),
    "fid": ("inception-v3", "Frechet distance of frames, as Inception sees them"),
    "kvd": ("i3d", "kernel distance of clips"),
    "kid": ("inception-v3", "kernel distance of frames"),
    "is": ("inception-v3", "inception score: how sure and how varied a classifier's answers are"),
    "motion": ("flow", "Frechet distance of how clips move, by optical flow"),
    "alignment": ("clip", "how well frames fit their words, by CLIP"),
}


def options(parser: argparse.ArgumentParser, *, verb: str) -> None:
    sets = "a folder of videos, a list (.jsonl, .csv), or toybox for held-out scenes"
    parser.add_argument("real", metavar="REAL", help=sets)
    parser.add_argument("fake", metavar="FAKE", help="what is measured: the same kinds")
    parser.add_argument("--protocol", choices=NAMED, default="own", help="what is taken of both sets (default own: as the options say)")
    parser.add_argument("--count", type=int, metavar="N", help="clips of each set (default 2048); fewer are an error")
    parser.add_argument("--frames", type=int, metavar="N", help="frames of a clip (default 16)")
    parser.add_argument("--every", type=int, metavar="N", help="a clip of REAL takes every N-th frame (default 1); one of FAKE every frame")
    parser.add_argument("--most", type=int, metavar="N", help="clips of a file at most (default 1)")
    parser.add_argument("--size", metavar="HxW", help="rows and columns that frames are resized to cover, then cropped to their middle")
    parser.add_argument("--resize", choices=KERNELS, help="the kernel of that, antialiased (default bicubic)")
    parser.add_argument("--seed", type=int, metavar="S", help="which files, where clips begin, what is drawn again (default 0)")
    if verb != "motion":
        what = "" if verb == "alignment" else ", such as random-3d or flow, which need no weights"
        parser.add_argument("--extractor", default=VERBS[verb][0], metavar="NAME", help=f"what looks (default {VERBS[verb][0]}){what}")
        parser.add_argument("--weights", type=Path, metavar="FILE", help="its weights; nothing is fetched")
        parser.add_argument("--sha256", metavar="HEX", help="the digest that they must have, where none is known")
        parser.add_argument("--pickle", action="store_true", help="open a .pt or .pth, so that only tensors are built")
    if verb in ("kvd", "kid"):
        parser.add_argument("--subsets", type=int, default=100, metavar="N", help="subsets that the score is the mean of (default 100)")
        parser.add_argument("--subset-size", type=int, default=1000, metavar="N", help="rows of each (default 1000)")
    if verb == "is":
        parser.add_argument("--splits", type=int, default=10, metavar="N", help="parts that the score is the mean of (default 10)")
    parser.add_argument("--state", type=Path, metavar="DIR", help="keep what was gathered there: an interrupted command goes on")
    keeping(parser, 100)


def keeping(parser: argparse.ArgumentParser, resamples: int) -> None:
    """The options of every score: how sure it is, and where it is kept."""
    parser.add_argument(
        "--resamples", type=int, default=resamples, metavar="N", help=f"draws for the interval, 0 for none (default {resamples})"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the score with its card, for `evaluate compare`")


def check_kept(given: argparse.Namespace) -> None:
    """Refuse what these options do not take, before any work."""
    if not 0 <= given.resamples <= 1_000_000:
        raise UserError(f"--resamples takes 0 to 1000000, not {given.resamples}.")
    if given.out is not None:
        terminal.check_place(given.out)


def keep(told: dict[str, Any], given: argparse.Namespace) -> None:
    """Write a score where --out says, and print it where --json does."""
    if given.out is not None:
        aside = given.out.with_name(f".{given.out.name}.writing")
        aside.write_text(json.dumps(terminal.finite(told), indent=2) + "\n", encoding="utf-8")
        aside.replace(given.out)
    if given.json:
        terminal.print_json(told)


def measure(given: argparse.Namespace, *, verb: str) -> None:
    terminal.check_ranges(given, ("count", "frames", "every", "most", "seed"))
    extent = parse_extent(given.size) if given.size else None
    if extent is not None and not min(extent):
        raise UserError(f"--size takes rows and columns from 1, not {given.size}.")
    for name in ("subsets", "subset_size", "splits"):
        least = 2 if name == "subset_size" else 1
        if not least <= getattr(given, name, least) <= 1_000_000:
            raise UserError(f"--{name.replace('_', '-')} takes {least} to 1000000, not {getattr(given, name)}.")
    for source in (given.real, given.fake):
        if "://" in source:
            raise UserError(f"{source} is an address, and what is measured stands on this machine: fetch it first, and name its folder.")
        if source != DRAWN and not Path(source).exists():
            raise UserError(f"There is no {source}: name a folder of videos, a list of them, or toybox.")
    check_kept(given)
    if given.state is not None and given.state.exists() and not given.state.is_dir():
        raise UserError(f"--state {given.state} is a file: name a folder, which is made where it is not there.")

    from videodit.evaluate import sets
    from videodit.train.progress import counting

    protocol = _protocol(given, extent)
    if getattr(given, "splits", 1) > protocol.fake.count:
        raise UserError(f"--splits {given.splits} are more than {protocol.fake.count} clips: use at most as many, or a larger --count.")
    if verb == "alignment":
        score = _aligned(given, protocol)
    else:
        from videodit.evaluate import scores

        extractor = _extractor(given, verb)
        real, fake = sets.choose(given.real, protocol.real), sets.choose(given.fake, protocol.fake)
        count = counting("clips looked at")
        score = scores.measured(verb, real, fake, extractor, protocol, _estimator(given), state=given.state, progress=count)
    if score is not None:
        _told(score, given)


def _protocol(given: argparse.Namespace, extent: tuple[int, int] | None) -> Protocol:
    from videodit.evaluate.protocol import PROTOCOLS

    names = ("count", "frames", "every", "most", "resize", "seed")
    return PROTOCOLS[given.protocol].changed(size=extent, **{name: getattr(given, name) for name in names})


def _estimator(given: argparse.Namespace) -> Estimator:
    from videodit.evaluate.kernel import Subsets
    from videodit.evaluate.protocol import Estimator

    seed = given.seed or 0
    subsets = Subsets(number=getattr(given, "subsets", 100), size=getattr(given, "subset_size", 1000), seed=seed)
    return Estimator(subsets=subsets, splits=getattr(given, "splits", 10), resamples=given.resamples, seed=seed)


def _extractor(given: argparse.Namespace, verb: str) -> Extractor:
    from videodit.evaluate import extractors

    if verb == "motion":
        return extractors.load("flow")
    if given.extractor == "clip":
        from videodit.evaluate import alignment

        return alignment.load(given.weights, sha256=given.sha256, pickled=given.pickle).extractor
    return extractors.load(given.extractor, given.weights, sha256=given.sha256, pickled=given.pickle)


def _aligned(given: argparse.Namespace, protocol: Protocol) -> Score | None:
    from videodit.evaluate import alignment, sets
    from videodit.train.progress import counting

    if given.extractor != "clip":
        raise UserError(f"{given.extractor} reads no words: alignment is by clip.")
    clip = alignment.load(given.weights, sha256=given.sha256, pickled=given.pickle)
    real, fake = sets.choose(given.real, protocol.real), sets.choose(given.fake, protocol.fake)
    return alignment.aligned(real, fake, clip, protocol, _estimator(given), state=given.state, progress=counting("clips looked at"))


def _told(score: Score, given: argparse.Namespace) -> None:
    from videodit.evaluate.sets import Taken

    told, taken = score.told, score.card.fake
    assert isinstance(taken, Taken)
    if score.floor is None:
        few = f"halves of {taken.count} clips are too few for this score: use --count 4"
        few = "no clip has another's words: use --count 2" if told["measure"] == "alignment" else few
        terminal.say(f"Note: there is no floor, as {few} or more.")
    keep(told, given)
    if given.json:
        return
    rows = [(told["measure"], _figure(score.value))]
    if score.interval:
        rows.append((f"{100 * score.card.estimator.confidence:g} % of draws", " to ".join(map(_figure, score.interval))))
    name = {"alignment": "other clips' words", "is": "lower of two real halves"}.get(given.what, "real against real, halves")
    rows.append((name, "-" if score.floor is None else _figure(score.floor)))
    rows += [(name.replace("_", " "), _figure(value)) for name, value in score.more.items()]
    clips = f"{taken.count} clips of {taken.frames} frames"
    terminal.print_table([(clips, f"by {score.card.extractor.name}, protocol {score.card.protocol}"), *rows])


def _figure(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}".replace("-0.0000", "0.0000")  # equal sets are so up to rounding


# --- compare ---


def compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", metavar="A", type=Path, help="a score file, from --out")
    parser.add_argument("other", metavar="B", type=Path, help="another")
    parser.add_argument(
        "--despite", action="append", default=[], metavar="FIELD", help="a field of the card that may differ; again for more"
    )


def compare(given: argparse.Namespace) -> None:
    from videodit.evaluate.compare import compared, read

    found = compared(read(given.one), read(given.other), given.despite)
    if given.json:
        terminal.print_json(found)
        return
    head = (found["measure"], given.one.name, given.other.name, "difference", "intervals")
    words = {True: "overlap", False: "apart", None: "-"}
    figures = found["figures"] or {"score": found}
    rows = []
    for name, figure in figures.items():
        cells = [_spanned(value, span) for value, span in zip(figure["values"], figure["intervals"], strict=True)]
        rows.append((name, *cells, f"{figure['difference']:+.4f}", words[figure["overlap"]]))
    terminal.print_table([head, *rows])


def _spanned(value: float, span: Sequence[float] | None) -> str:
    return f"{value:.4f}" if span is None else f"{value:.4f} ({span[0]:.4f} to {span[1]:.4f})"


Row = tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], Any], str]
MEASURES: dict[str, Row] = {
    **{verb: (partial(options, verb=verb), partial(measure, verb=verb), what) for verb, (_, what) in VERBS.items()},
    "compare": (compare_options, compare, "two scores side by side, if their cards are alike"),
}
