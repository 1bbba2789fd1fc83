"""Measure a model, `videodit evaluate toybox`, its autoencoder, `reconstruction MODEL CLIP ...`, or its videos, `fvd REAL FAKE`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videodit import folders
from videodit.cli import report, scores, terminal
from videodit.evaluate.asked import DRAWN, DRAWS, PROMPTS, TASKS
from videodit.shapes import Size, UserError, parse_extent

if TYPE_CHECKING:
    from videodit.data.sources import Drawn
    from videodit.evaluate.reconstruction import Clip, Parts

DRAWN_SIZE, DRAWN_COUNT = Size(16, 64, 64), 20


def arguments(parser: argparse.ArgumentParser) -> None:
    measures = parser.add_subparsers(title="measures", dest="what", metavar="WHAT", required=True)
    for name, (options, _, what) in MEASURES.items():
        measure = measures.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        measure.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error comes from")
        options(measure)
        measure.add_argument("--json", action="store_true", help="print one JSON object")


def run(given: argparse.Namespace) -> None:
    _, measure, _ = MEASURES[given.what]
    measure(given)


# --- drawn worlds ---


def _judged_options(parser: argparse.ArgumentParser, *, world: str) -> None:
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--prompts", choices=PROMPTS, default="held-out", help="which scenes are asked for")
    parser.add_argument("--count", type=int, default=200, metavar="N", help="how many (default 200)")
    if world == "toybox":
        parser.add_argument("--model", default="toybox", metavar="M", help="a model folder (default: toybox, the bundled model)")
    else:
        parser.add_argument("--model", required=True, metavar="M", help="a model folder")
        parser.add_argument("--font", type=Path, metavar="FILE", help="a colour font, or a folder of pictures (default: Noto Color Emoji)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of the sampler")
    parser.add_argument("--guidance", type=float, metavar="G", help="how closely the prompt is followed")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the noise (default 0)")
    parser.add_argument("--task", choices=TASKS, default="t2v", help="what is given of each scene beside its words (default t2v: nothing)")
    scores.keeping(parser, DRAWS)


def _judged(given: argparse.Namespace, *, world: str) -> None:
    if given.rest:
        raise UserError(f"evaluate {world} takes no {given.rest[0]!r}: give a model by --model.")
    terminal.check_ranges(given, ("count", "steps", "guidance", "seed"))
    scores.check_kept(given)
    folders.locate(given.model)
    source = _source(given, world)

    import videodit
    from videodit.evaluate import judges, suite
    from videodit.record import model_digest
    from videodit.train.progress import counting

    model = videodit.load(given.model)
    if model.takes != "text":
        told = f"is told a {model.takes}" if model.takes == "label" else "is told nothing"
        raise UserError(f"{world} asks by words, and {given.model} {told}: compare its videos with others by evaluate fvd.")
    judge, estimator = judges.judge(source), replace(suite.ESTIMATOR, resamples=given.resamples)
    result = suite.measure(
        model,
        judge,
        prompts=given.prompts,
        task=given.task,
        count=given.count,
        seed=given.seed,
        steps=given.steps,
        guidance=given.guidance,
        estimator=estimator,
        progress=counting("clips judged"),
    )
    how = model.sampling(given.steps, given.guidance, None)
    score = suite.scored(result, judge, how, model.size, estimator, fake=given.model, fake_digest=model_digest(given.model))
    scores.keep({**result, **score.told}, given)
    if not given.json:
        _print_judged(result)


def _source(given: argparse.Namespace, world: str) -> Drawn:
    from videodit.data import glyphs
    from videodit.data.sources import Sprites, Toybox

    if world == "toybox":
        return Toybox()
    source = Sprites(font=given.font or glyphs.FONT)
    glyphs.pictures(source.font)  # says what is missing
    return source


def _print_judged(result: dict[str, Any]) -> None:
    rates = list(result["model"])
    names = ("model", "rebuilt", "truth", "shuffled")
    model, *rows = [(name, *(_rate(result[name][rate]) for rate in rates)) for name in names]
    sure = [_span(result["figures"].get(f"model.{rate}"), 1, 100) for rate in rates]
    draws = [("  interval, %", *sure)] if any(sure) else []
    terminal.print_table([(f"{result['count']} clips", *rates), model, *draws, *rows])
    print()
    for name in ("flicker", "sharpness"):
        model, rebuilt, truth, ratio = (_cell(result[name][which], 2) for which in ("model", "rebuilt", "truth", "ratio"))
        span = _span(result["figures"].get(f"{name}.ratio"), 2)
        print(f"{name}: {model}; of truth: {truth}, rebuilt: {rebuilt}; times truth's: {ratio}{span and f' ({span})'}")
    if "psnr" in result:
        copies = ", ".join(f"{name} {value:.2f}" for name, value in result["references"].items())
        print(f"PSNR of what was not given: {result['psnr']:.2f} dB; of copies: {copies}; of what was given: {result['given_psnr']:.2f}")
    if "seam" in result:
        print(f"change where chunks meet, in usual changes between frames: {result['seam']:.2f}")


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _span(figure: dict[str, Any] | None, digits: int, times: float = 1) -> str:
    """Where a figure may lie; nothing where that is not known."""
    return "" if not figure or figure["interval"] is None else " to ".join(f"{times * end:.{digits}f}" for end in figure["interval"])


# --- reconstruction ---


def _reconstruction_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the folder of a model or an autoencoder, or toybox for the bundled model")
    parser.add_argument("clips", nargs="+", metavar="CLIP", help=f"videos, or {DRAWN} for held-out scenes of the toybox")
    parser.add_argument("--perceptual", type=Path, metavar="FILE", help="weights of ST-LPIPS or LPIPS: adds that distance")
    parser.add_argument("--frames", type=int, metavar="N", help=f"at most so many of each clip (default: all; {DRAWN_SIZE[0]} of {DRAWN})")
    parser.add_argument("--size", metavar="HxW", help="rows and columns that clips are resized and cropped to (default: cropped to fit)")
    parser.add_argument("--count", type=int, metavar="N", help=f"scenes of {DRAWN} (default {DRAWN_COUNT})")
    parser.add_argument(
        "--windows", type=int, metavar="N", help="also run in windows of N groups that share half, and compare with the whole"
    )
    parser.add_argument("--tiles", type=int, metavar="N", help="also run in tiles of NxN latents, and compare with the whole")
    scores.keeping(parser, DRAWS)


def _reconstruction(given: argparse.Namespace) -> None:
    terminal.check_ranges(given, ("frames", "count", "windows", "tiles"))
    scores.check_kept(given)
    extent = parse_extent(given.size) if given.size else None
    if given.count is not None and DRAWN not in given.clips:
        raise UserError(f"--count is for scenes of the toybox: leave it out, or name {DRAWN} among the clips.")
    absent = next((name for name in given.clips if name != DRAWN and not Path(name).is_file()), None)
    if absent:
        raise UserError(f"There is no file {absent}: name videos, or {DRAWN} for scenes of the toybox.")
    if not Path(given.model).exists():
        folders.locate(given.model)

    from videodit.autoencoder import perceptual
    from videodit.evaluate import reconstruction
    from videodit.models import load_autoencoder

    net = perceptual.load(given.perceptual) if given.perceptual else None
    estimator = replace(reconstruction.ESTIMATOR, resamples=given.resamples)
    how: dict[str, Any] = {"perceptual": net, "size": extent, "estimator": estimator}
    try:
        autoencoder = load_autoencoder(given.model)
        result = reconstruction.measure(autoencoder, _clips(given, extent), parts=_parts(given), **how)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise UserError("A clip does not fit into memory whole: use fewer --frames or a smaller --size.") from error
        raise
    score = reconstruction.scored(result, autoencoder, frames=given.frames, fake=given.model, **how)
    scores.keep({"model": given.model, **result, **score.told}, given)
    if not given.json:
        _print_reconstruction(result)


def _parts(given: argparse.Namespace) -> Parts | None:
    from videodit.autoencoder.streaming import Windows
    from videodit.autoencoder.tiles import Tiles
    from videodit.evaluate.reconstruction import Parts

    windows = Windows(groups=given.windows, overlap=given.windows // 2) if given.windows else None
    tiles = Tiles(rows=given.tiles, columns=given.tiles) if given.tiles else None
    return Parts(windows=windows, tiles=tiles) if windows or tiles else None


def _clips(given: argparse.Namespace, extent: tuple[int, int] | None) -> Iterator[Clip]:
    """Each clip when its turn comes."""
    from videodit.data import video
    from videodit.evaluate import reconstruction
    from videodit.train.progress import counting

    size = Size(given.frames or DRAWN_SIZE.frames, *(extent or DRAWN_SIZE[1:]))
    many = given.count or DRAWN_COUNT
    total, count = sum(many if name == DRAWN else 1 for name in given.clips), counting("clips rebuilt")
    done = 0
    for name in given.clips:
        drawn = name == DRAWN
        for clip in reconstruction.toybox_clips(many, size) if drawn else [(name, video.read(name, frames=given.frames)[0])]:
            yield clip
            count(done := done + 1, total)


def _print_reconstruction(result: dict[str, Any]) -> None:
    figures = ["psnr", "ssim", *filter(None, [result["perceptual"]]), "temporal"]
    head = ("PSNR dB", "SSIM", *filter(None, [result["perceptual"]]), "temporal error")
    group = result["group"]
    table = [(f"{len(result['clips'])} clips", "frames of a group", *head)]
    for row, held in (("reconstruction", result), *result["references"].items()):
        places = [("key", *map(str, range(1, group)))[place] for place in range(group)] if group > 1 else []
        table += [(row, "all", *_cells(held["all"], figures))]
        sure = [_span(result["figures"].get(f"all.{name}"), 2 if name == "psnr" else 4) for name in figures]
        table += [("", "  interval", *sure)] if row == "reconstruction" and any(sure) else []
        table += [("", place, *_cells(figures_, figures)) for place, figures_ in zip(places, held["positions"], strict=False)]
    terminal.print_table(table)
    if latents := result["latents"]:
        print()
        print(f"latents: |mu_z - mu_zk| {_cell(latents['mean'])}, |sigma_z - sigma_zk| {_cell(latents['deviation'])}")
        psnrs = [_cell(latents[f"image_{part}_psnr"], 2) for part in ("decoder", "autoencoder")]
        print(f"key frames by the image decoder: {psnrs[0]} dB of z, {psnrs[1]} dB of z_k")
    if parts := result["parts"]:
        print(f"in parts, against the whole: {_cell(parts['psnr'], 2)} dB, at most {_cell(parts['largest'])}")
    print()
    rows = [(clip["name"], _taken(clip), *_cells(clip["all"], figures)) for clip in result["clips"]]
    terminal.print_table([("clip", "taken", *head), *rows])
    if not result["perceptual"]:
        terminal.say("No perceptual distance: name its weights by --perceptual FILE; docs/evaluate.md says where they are.")


def _cells(figures: dict[str, float | None], names: list[str]) -> list[str]:
    return [_cell(figures[name], 2 if name == "psnr" else 4) for name in names]


def _cell(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _taken(clip: dict[str, Any]) -> str:
    rows, columns = clip["from"]
    whole = f"{clip['frames']} frames, {clip['size'][0]}x{clip['size'][1]}"
    return whole if clip["fit"] == "whole" else f"{whole} {clip['fit']} from {rows}x{columns}"


MEASURES: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], None], str]] = {
    **{
        world: (partial(_judged_options, world=world), partial(_judged, world=world), f"does a model make what it is asked for: {what}")
        for world, what in (("toybox", "toybox scenes, judged by their pixels"), ("sprites", "scenes of things, judged by their pixels"))
    },
    "reconstruction": (_reconstruction_options, _reconstruction, "what an autoencoder leaves of videos: PSNR, SSIM, temporal error"),
    "report": (report.arguments, report.run, "runs, scores and videos side by side on one page that needs nothing beside it"),
    **scores.MEASURES,
}
