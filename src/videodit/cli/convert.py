"""Turn an image model into a video model, with a proof: `videodit convert SOURCE OUT`; or write its image half back: `--to diffusers`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from videodit import folders
from videodit.cli import terminal
from videodit.shapes import UserError, parse_extent

if TYPE_CHECKING:
    from videodit.convert.pipeline import Converted


HOW = ("time", "frames", "size", "fps", "layout", "side", "autoencoder")
LAVITA = ("late", "interleaved", "factorised", "split")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a pipeline's or transformer's folder (SD3, SD3.5, DiT), or one file")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write, which must not exist")
    parser.add_argument("--to", choices=("video", "diffusers"), default="video", help="what to write (default: video)")
    parser.add_argument("--time", type=int, metavar="N", help="frames of a group of pictures (default 4; LAVITA's layouts 1)")
    parser.add_argument("--frames", type=int, metavar="N", help="frames of the clips it will make (default: 8 groups)")
    parser.add_argument("--size", metavar="HxW", help="their rows and columns (default: the image model's, at most 512x512)")
    parser.add_argument("--fps", type=float, metavar="F", help="their frames a second (default 24)")
    parser.add_argument(
        "--layout",
        choices=("global", "beside", *LAVITA),
        help="attention over the clip by the blocks, or by copies beside them; of a DiT also LAVITA's four",
    )
    parser.add_argument("--side", type=int, metavar="N", help="interpolate the places of LAVITA's for N tokens a side")
    parser.add_argument(
        "--autoencoder", type=Path, metavar="FOLDER", help="an AutoencoderKL, which makes DiT's or Latte's transformer whole"
    )
    parser.add_argument("--pickle", action="store_true", help="open a .pt of DiT or Latte, so that only tensors are built")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(given: argparse.Namespace) -> None:
    chosen = {name: getattr(given, name) for name in HOW if getattr(given, name) is not None}
    if given.to == "diffusers" and chosen:
        raise UserError(f"--{next(iter(chosen))} says how to make a video model: leave it out with --to diffusers.")
    terminal.check_ranges(given, ("time", "frames", "fps"))
    if "size" in chosen:
        chosen["extent"] = parse_extent(chosen.pop("size"))
    if not given.source.exists() and not given.out.exists() and given.out.absolute().parent.is_dir():
        if given.to == "diffusers":
            folders.locate(given.source)
        else:
            raise UserError(f"{given.source} does not exist: give the folder of an SD3 or DiT pipeline or transformer, or one file.")

    from videodit.convert import pipeline

    if given.to == "diffusers":
        done = pipeline.to_diffusers(given.source, given.out)
    else:
        done = pipeline.to_video(given.source, given.out, pickled=given.pickle, **chosen)
    if given.json:
        terminal.print_json({"out": str(given.out), **asdict(done)})
    else:
        _tell(done, given)


def _tell(done: Converted, given: argparse.Namespace) -> None:
    space = " with all blocks in space and no label" if given.layout in LAVITA else ""
    if proof := done.proof:
        rows = [
            ("shown with random inputs", "measured"),
            (f"output on one frame{space}, from {proof.source}'s, of its largest", f"{proof.difference:.1e}"),
            *([("latents of key frames, from AutoencoderKL's", f"{proof.autoencoder:.1e}")] if proof.autoencoder is not None else []),
            ("parameters added to the blocks", str(proof.blocks)),
            ("parameters added to the transformer in all", terminal.amount(proof.added)),
            ("largest output of what was added", f"{proof.output:g}"),
        ]
        terminal.print_table(rows)
    if done.unused:
        more = f" and {len(done.unused) - 20} more" if len(done.unused) > 20 else ""
        terminal.say(f"Not used: {', '.join(done.unused[:20])}{more}.")
    if done.left:
        terminal.say(f"Left out: what was added, {terminal.amount(done.left)} parameters, for which diffusers has no place.")
    what = "A whole model" if done.whole else "A transformer"
    said = {"text": ' "..."', "label": " --label NAME", "nothing": ""}
    then = f": videodit generate{said[done.takes]} --model {given.out} -o out.mp4" if done.whole and given.to == "video" else ""
    terminal.say(f"{what} of {terminal.amount(done.parameters)} parameters is in {given.out}{then}")
