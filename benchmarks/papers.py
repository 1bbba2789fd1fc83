"""What the papers claim, tried in miniature: the same steps for all rows, several seeds, and one word a claim.

    python benchmarks/papers.py [--only CLAIM ...] [--seeds 0 1 2] [--out out/papers] [--page docs/papers.md]

A row is a run file of runs/papers with a few settings changed, trained once a seed; its figures are a line of OUT/results.jsonl, and a row
that has its line is not run again. The rule was there before the runs: a claim is held where the difference of the means over seeds is
larger than twice the pooled spread of the seeds and goes the paper's way, not held where it is as large and goes the other way, and else
not decided. PAGE gets the table between its two marks, and the curves beside it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from papers_figures import REAL, TRUE, measured, of_image

from videodit import models
from videodit.autoencoder import PerFrame
from videodit.data import toybox, video
from videodit.evaluate.plots import plot
from videodit.models import Provenance
from videodit.shapes import Size
from videodit.train import recipes
from videodit.train.autoencoder import AutoencoderRun
from videodit.train.backbone import BackboneRun

RUNS = Path(__file__).parents[1] / "runs" / "papers"
TIMES = 2.0  # how many spreads a difference has to have
APART = " to "  # between two rows whose distance is a figure
MARKS = ("<!-- table -->", "<!-- end of table -->")
DRAWINGS = (("videodit", "VideoDiT: held-out loss, mean of seeds", "video"), ("lavita", "LAVITA: held-out loss, mean of seeds", "lavita"))
Verdict = Literal["held", "not held", "not decided"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run file with some settings changed; `start`, `autoencoder`: the rows whose model it starts from, whose latents it learns;
    `every`: it learns from films, of which a clip takes every so many-th frame."""

    run: str
    settings: tuple[str, ...] = ()
    start: str = ""
    autoencoder: str = ""
    every: int = 0
    also: tuple[str, ...] = ()  # what is measured beside the loss and the samples, names of papers_figures.ALSO


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One row's figure is better than another's: less, or more. For ONE to OTHER: how far two rows are apart."""

    says: str
    better: tuple[str, str]  # row, figure
    worse: tuple[str, str]
    more: bool = False
    beside: tuple[str, ...] = ("frechet",)  # figures that are told and decide nothing


ROWS: dict[str, Row] = {
    "image": Row(run="image"),
    "untrained": Row(run="video", settings=("steps=0", "looks.every=0"), start="image", also=("alike",)),
    "video": Row(run="video", start="image", also=("pictures",)),
    "video-joint": Row(run="video", settings=("joint.video_probability=0.8",), start="image", also=("pictures",)),
    "video-2d": Row(run="video", settings=("conversion.branch=false",), start="image"),
    "video-beside": Row(run="video", settings=("conversion.layout=beside",), start="image"),
    "lavita-v2": Row(run="lavita"),
    "lavita-v1": Row(run="lavita", settings=("backbone.layout=late",)),
    "lavita-v3": Row(run="lavita", settings=("backbone.layout=factorised", "backbone.depth=5")),
    "lavita-v4": Row(run="lavita", settings=("backbone.layout=split",)),
    "lavita-image": Row(run="lavita", settings=("backbone.layout=spatial", "joint.video_probability=0.0")),
    "lavita-from-image": Row(run="lavita", settings=("conversion.layout=interleaved",), start="lavita-image"),
    "lavita-tubes": Row(run="lavita", settings=("backbone.tube=2",)),
    "lavita-tokens": Row(run="lavita", settings=("backbone.told=token",)),
    "lavita-rotary": Row(run="lavita", settings=("backbone.time=rotary",)),
    "lavita-appended": Row(run="lavita", settings=("joint.appended=4",)),
    "interval-1": Row(run="lavita", every=1),
    "interval-3": Row(run="lavita", every=3),
    "interval-1-early": Row(run="lavita", settings=("steps=60", "looks.every=15"), every=1),
    "interval-3-early": Row(run="lavita", settings=("steps=60", "looks.every=15"), every=3),
    "prior-shared": Row(run="video", settings=("prior.kind=shared", "prior.share=0.5"), start="image"),
    "prior-progressive": Row(run="video", settings=("prior.kind=progressive", "prior.share=0.7"), start="image"),
    "autoencoder": Row(run="autoencoder"),
    "autoencoder-free": Row(run="autoencoder", settings=("weights.regulariser=0",)),
    "autoencoder-keyless": Row(run="autoencoder", settings=("groups.keys=false",)),
    "autoencoder-keyless-free": Row(run="autoencoder", settings=("groups.keys=false", "weights.regulariser=0")),
    "autoencoder-causal": Row(run="autoencoder", settings=("groups.reach=causal",)),
    "on-dpvae": Row(run="video", start="image", autoencoder="autoencoder"),
    "on-free": Row(run="video", start="image", autoencoder="autoencoder-free"),
    "on-keyless": Row(run="video", start="image", autoencoder="autoencoder-keyless"),
    "on-keyless-free": Row(run="video", start="image", autoencoder="autoencoder-keyless-free"),
    "on-causal": Row(run="video", start="image", autoencoder="autoencoder-causal"),
    "given-channels": Row(run="video", settings=("tasks.none=0.0", "tasks.first=1.0", "given=channels"), start="image", also=("given",)),
    "given-time": Row(run="video", settings=("tasks.none=0.0", "tasks.first=1.0", "given=time"), start="image", also=("given",)),
}


def less(better: str, worse: str, figure: str = "held") -> dict[str, Any]:
    return {"better": (better, figure), "worse": (worse, figure)}


def more(better: str, worse: str, figure: str) -> dict[str, Any]:
    return {**less(better, worse, figure), "more": True}


RATES = ("colour", "shape", "motion")  # what the judge says of them

CLAIMS: dict[str, Claim] = {
    "figure-2": Claim(
        says="VideoDiT, Figure 2: with global attention, before any training, frames of a clip are more alike than independent pictures",
        better=("untrained", "alike_global"),
        worse=("untrained", "alike_independent"),
        more=True,
        beside=("alike_true", "contrast_global", "contrast_independent", "contrast_true"),
    ),
    "table-6-video": Claim(says="VideoDiT, Table 6: training on pictures too makes better videos", **less("video-joint", "video")),
    "table-6-image": Claim(
        says="VideoDiT, Table 6: training on pictures too keeps the image model",
        **less("video-joint", "video", "pictures"),
        beside=("was",),
    ),
    "table-5": Claim(says="VideoDiT, Table 5: 3D patchify is better than 2D", **less("video", "video-2d")),
    "table-4": Claim(
        says="VideoDiT, Table 4: 2D->3D is at least as good as 2D+3D, with about half the parameters",
        **less("video", "video-beside"),
        beside=("frechet", "parameters", "trained", "seconds"),
    ),
    "table-3-keys": Claim(
        says="VideoDiT, Table 3: with key frames (E_k) reconstruction is better",
        **more("autoencoder", "autoencoder-keyless", "psnr"),
        beside=("means", "image_decoder"),
    ),
    "table-3-reg": Claim(
        says="VideoDiT, Table 3: the regulariser costs a little of the reconstruction",
        **more("autoencoder-free", "autoencoder", "psnr"),
        beside=("means", "image_decoder"),
    ),
    "table-3-reg-generation": Claim(
        says="VideoDiT, Table 3: on regularised latents generated videos are better", **less("on-dpvae", "on-free", "frechet"), beside=RATES
    ),
    "table-3-keys-generation": Claim(
        says="VideoDiT, Table 3: on latents with key frames generated videos are better",
        **less("on-dpvae", "on-keyless", "frechet"),
        beside=RATES,
    ),
    "table-3-both-generation": Claim(
        says="VideoDiT, Table 3: on latents with both they are better than with neither",
        **less("on-dpvae", "on-keyless-free", "frechet"),
        beside=RATES,
    ),
    "causal": Claim(
        says="Survey: an autoencoder that sees the future reconstructs better than a causal one",
        **more("autoencoder", "autoencoder-causal", "psnr"),
        beside=("means",),
    ),
    "causal-generation": Claim(
        says="Survey: and videos generated on its latents are better", **less("on-dpvae", "on-causal", "frechet"), beside=RATES
    ),
    "lavita-v1": Claim(says="LAVITA, A.5: V2 is better than V1", **less("lavita-v2", "lavita-v1"), beside=("frechet", "parameters")),
    "lavita-v3": Claim(says="LAVITA, A.5: V2 is better than V3", **less("lavita-v2", "lavita-v3"), beside=("frechet", "parameters")),
    "lavita-v4": Claim(says="LAVITA, A.5: V2 is better than V4", **less("lavita-v2", "lavita-v4"), beside=("frechet", "parameters")),
    "lavita-start": Claim(
        says="LAVITA: from an image model the first quarter is faster", **less("lavita-from-image", "lavita-v2", "held_quarter")
    ),
    "lavita-plateau": Claim(
        says="LAVITA: from an image model it levels off: the second half gains less",
        **less("lavita-from-image", "lavita-v2", "gain"),
        beside=("held", "frechet"),
    ),
    "lavita-patches": Claim(says="LAVITA: uniform patches are better than tubes", **less("lavita-v2", "lavita-tubes")),
    "lavita-s-adaln": Claim(
        says="LAVITA: S-AdaLN is better than all tokens", **less("lavita-v2", "lavita-tokens"), beside=("frechet", "parameters")
    ),
    "lavita-positions": Claim(says="LAVITA: absolute places in time are better than rotary", **less("lavita-v2", "lavita-rotary")),
    "lavita-appended": Claim(
        says="LAVITA: pictures appended behind clips make better videos",
        **less("lavita-appended", "lavita-v2"),
        beside=("frechet", "motion", "seconds"),
    ),
    "lavita-intervals": Claim(
        says="LAVITA: taking every frame or every third is further apart early in training than late",
        **less("interval-1 to interval-3", "interval-1-early to interval-3-early", "frechet"),
        beside=("held",),
    ),
    "prior-shared": Claim(
        says="VideoFusion: noise that frames share in part makes better videos",
        **less("prior-shared", "video", "frechet"),
        beside=("motion",),
    ),
    "prior-progressive": Claim(
        says="PYoCo: progressive noise makes better videos", **less("prior-progressive", "video", "frechet"), beside=("motion",)
    ),
    "given": Claim(
        says="SEINE, Wan: mask channels tell a first frame better than the time of its frame",
        better=("given-channels", "psnr"),
        worse=("given-time", "psnr"),
        more=True,
        beside=("psnr_copy", "parameters"),
    ),
}


# --- The rule ---


def pooled(one: Sequence[float], other: Sequence[float]) -> float:
    """The spread of seeds, from the variances of both."""
    return statistics.fmean(statistics.variance(some) for some in (one, other)) ** 0.5


def decided(better: Sequence[float], worse: Sequence[float], *, more: bool = False) -> Verdict:
    """Of figures by seed: whether the first are better, by the rule above."""
    if min(len(better), len(worse)) < 2:
        return "not decided"
    gap = (statistics.fmean(worse) - statistics.fmean(better)) * (-1 if more else 1)
    far = TIMES * pooled(better, worse)
    return "held" if gap > far else "not held" if gap < -far else "not decided"


# --- Rows ---


class Results:
    """What is known of rows, a line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.known: dict[tuple[str, int], dict[str, Any]] = {(one["row"], one["seed"]): one for one in map(json.loads, lines)}

    def add(self, line: dict[str, Any]) -> None:
        self.known[line["row"], line["seed"]] = line
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def of(self, row: str, figure: str) -> list[float]:
        """By seed; of ONE to OTHER, where both have it."""
        one, *other = (
            {
                seed: line["figures"][figure]
                for (name, seed), line in sorted(self.known.items())
                if name == part and figure in line["figures"]
            }
            for part in row.split(APART)
        )
        return [abs(value - other[0][seed]) for seed, value in one.items() if seed in other[0]] if other else list(one.values())


def finish(name: str, seed: int, out: Path, results: Results, *, kept: bool = False) -> None:
    """Train and measure a row, and first what it starts from, unless that was done; `kept`: its model has to be there as well."""
    row, (settings, words) = ROWS[name], settled(name, seed, out)
    known, there = (name, seed) in results.known, (settings.output / "model").exists()
    if known and (there or not kept):
        return
    for needed in filter(None, (row.start, row.autoencoder)):
        finish(needed, seed, out, results, kept=True)
    if row.every:
        film(out / "films")
    print("$", shlex.join(words), file=sys.stderr, flush=True)
    began = time.process_time()
    if not there:
        recipes.train(settings)
    if known:
        return
    spent = time.process_time() - began
    figures, curve = measured(settings, row.also)
    shutil.rmtree(settings.output / "checkpoints", ignore_errors=True)
    line = {"row": name, "seed": seed, "figures": {**figures, "seconds": round(spent, 1)}, "curve": curve, "command": shlex.join(words)}
    results.add(line)
    print(json.dumps(line["figures"]), file=sys.stderr, flush=True)


def settled(name: str, seed: int, out: Path) -> tuple[BackboneRun | AutoencoderRun, list[str]]:
    """The settings of a row, and the command that trains it."""
    row = ROWS[name]
    more = [f"output={out}/{name}-{seed}", f"seed={seed}", *row.settings]
    more += [f"start={out}/{row.start}-{seed}/model"] if row.start else []
    more += [f"autoencoder={out}/{row.autoencoder}-{seed}/model"] if row.autoencoder else []
    more += [f"autoencoder={per_frame(out)}"] if row.run == "lavita" else []
    for key, kind in (("data", "trained"), ("looks.data", "true")) if row.every else ():
        more += [f"{key}.kind=folder", f"{key}.path={out}/films/{kind}", f"{key}.every={row.every}"]
    file = RUNS / f"{row.run}.toml"
    settings = recipes.read(file, more)
    assert isinstance(settings, BackboneRun | AutoencoderRun)
    return settings, ["videodit", "train", f"runs/papers/{file.name}", *more]


def per_frame(out: Path) -> Path:
    """The bundled image autoencoder alone, in a folder."""
    if not (folder := out / "per-frame").exists():
        models.save_autoencoder(folder, PerFrame(models.load("toybox").autoencoder.image), Provenance(run="toybox"))
    return folder


def film(folder: Path) -> None:
    """Scenes of the toybox as files without loss, three times as long as clips are: some to train, others to compare with."""
    for kind, seed, count in () if folder.exists() else (("trained", 0, 400), ("true", REAL, TRUE)):
        (folder / kind).mkdir(parents=True)
        for i in range(count):
            video.write(folder / kind / f"{i:03d}.webp", toybox.render(toybox.scene(seed, i), Size(24, 32, 32)), 8)


# --- The page ---


def page_row(name: str, claim: Claim, results: Results) -> str:
    sides = [results.of(*claim.better), results.of(*claim.worse)]
    if not all(sides):
        return f"| {claim.says} | not run | - | `--only {name}` |"
    word = decided(*sides, more=claim.more)
    cells = [f"{row}: {figure} {spread(values)}" for (row, figure), values in zip((claim.better, claim.worse), sides, strict=True)]
    for figure in claim.beside:
        rows = dict.fromkeys((claim.better[0], claim.worse[0]))
        cells.append(f"{figure} {' against '.join(spread(results.of(row, figure)) for row in rows)}")
    seeds = min(map(len, sides))
    return f"| {claim.says} | {word} | {'; '.join(cells)}; {seeds} seeds | `--only {name}` |"


def spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = statistics.fmean(values)
    if len(values) < 2 or statistics.stdev(values) == 0:
        return f"{mean:.4g}"
    return f"{mean:.4g} ± {statistics.stdev(values):.2g}"


def write(page: Path, results: Results) -> None:
    """The table into the page, curves and results into a folder of its name."""
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    shutil.copyfile(results.path, folder / "results.jsonl")
    rows = [page_row(name, claim, results) for name, claim in CLAIMS.items()]
    lines = ["| claim | verdict | numbers | command |", "| --- | --- | --- | --- |", *rows]
    for name, title, kind in DRAWINGS:
        drawn = {row: mean_curve(row, results) for row in ROWS if ROWS[row].run == kind and row.startswith(kind)}
        if drawing := plot(title, {row: points for row, points in drawn.items() if points}):
            (folder / f"{name}.svg").write_text(drawing)
            lines += ["", f"![{title}]({folder.name}/{name}.svg)"]
    before, _, rest = page.read_text().partition(MARKS[0])
    page.write_text(f"{before}{MARKS[0]}\n\n" + "\n".join(lines) + f"\n\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")


def mean_curve(row: str, results: Results) -> list[tuple[float, float]]:
    """Over seeds."""
    curves = [line["curve"] for (name, _), line in results.known.items() if name == row and "held" in line["figures"]]
    return [(float(points[0][0]), statistics.fmean(value for _, value in points)) for points in zip(*curves, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CLAIMS, default=list(CLAIMS), metavar="CLAIM", help=", ".join(CLAIMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("out/papers"))
    parser.add_argument("--page", type=Path, help="write the table into this page, and run nothing")
    parser.add_argument("--image", type=Path, help="measure Figure 2 on this image model alone, such as out/toybox_image/model")
    parser.add_argument("--autoencoder", default="toybox", help="the DP-VAE over its latents (default toybox)")
    given = parser.parse_args()
    if given.image:
        print(json.dumps(of_image(given.image, given.autoencoder)))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    results = Results(given.out / "results.jsonl")
    if given.page:
        write(given.page, results)
        return
    for name in given.only:
        for seed in given.seeds:
            for row in [*CLAIMS[name].better[0].split(APART), *CLAIMS[name].worse[0].split(APART)]:
                finish(row, seed, given.out, results)
    for name in given.only:
        print(page_row(name, CLAIMS[name], results))


if __name__ == "__main__":
    main()
