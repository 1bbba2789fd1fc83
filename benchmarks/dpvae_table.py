"""The table of DP-VAE's ablation and of what others do, all from one run file, with the same data, steps and seed.

    python benchmarks/real_clips.py out/clips
    videodit train runs/dpvae_small_image.toml
    python benchmarks/dpvae_table.py [--rows NAME ...] [--perceptual FILE] [--run runs/dpvae_small.toml] [--test out/clips/test]

A row that was trained is not trained again; the first is the run as its file says it. Prints one table in Markdown: reconstruction of the
clips in TEST and of held-out scenes of the toybox.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROWS: dict[str, list[str]] = {
    "DP-VAE": [],
    "without Reg": ["weights.regulariser=0"],
    "without E_k": ["groups.keys=false"],
    "without E_k and Reg": ["groups.keys=false", "weights.regulariser=0"],
    "causal DP-VAE": ["groups.reach=causal"],
    "causal, no key frames": [
        "groups.keys=false",
        "groups.reach=causal",
        "groups.first=alone",
        "weights.regulariser=0",
        "size=[17, 64, 64]",
    ],
    "D_k(z) like a random frame": ["groups.keys=false", "weights.like=random"],
    "D_k(z) like the mean frame": ["groups.keys=false", "weights.like=mean"],
    "identity on pictures": ["groups.keys=false", "weights.regulariser=0", "weights.identity=1"],
    "key frames repeated": ["steps=0"],  # D starts as D_k of every group's first frame, for the whole group
}
HEAD = ("", "bikes", "carphone", "toybox", "all", "key frame", "others", "SSIM", "temporal", "mean", "deviation", "D_k(z)")
SCENES = 4  # of the toybox; with many the means would be theirs alone


def videodit(*words: str) -> str:
    call = [sys.executable, "-m", "videodit", *words]
    print("$ videodit", *words, file=sys.stderr)
    return subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout


def row(name: str, found: dict[str, Any], clips: dict[str, dict[str, Any]]) -> str:
    """`found` are figures of all clips, `clips` those of each."""
    errors: dict[str, list[float]] = {}
    for clip, figures in clips.items():
        psnr = figures["all"]["psnr"]  # none where every pixel is equal
        errors.setdefault(clip.split()[0], []).append(0.0 if psnr is None else 10 ** (-psnr / 10))
    places = [place["psnr"] for place in found["positions"]]
    latents = found.get("latents") or {}
    others = sum(places[1:]) / len(places[1:]) if places[1:] and None not in places[1:] else None
    means = [sum(errors[key]) / len(errors[key]) for key in HEAD[1:4]]
    cells: list[float | None] = [-10 * math.log10(mean) if mean else None for mean in means]
    cells += [found["all"]["psnr"], places[0], others, found["all"]["ssim"], found["all"]["temporal"]]
    cells += [latents.get(key) for key in ("mean", "deviation", "image_decoder_psnr")]
    digits = (2, 2, 2, 2, 2, 2, 4, 4, 3, 3, 2)
    written = ["-" if value is None else f"{value:.{n}f}" for value, n in zip(cells, digits, strict=True)]
    if net := next((key for key in found["all"] if key not in ("psnr", "ssim", "temporal")), None):
        written.insert(7, f"{found['all'][net]:.4f}")
    return f"| {' | '.join([name, *written])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--run", type=Path, default=Path("runs/dpvae_small.toml"))
    parser.add_argument("--test", type=Path, default=Path("out/clips/test"))
    parser.add_argument("--perceptual")
    given = parser.parse_args()
    settings = tomllib.loads(given.run.read_text())
    clips = [*map(str, sorted(given.test.glob("*.mp4"))), "toybox"]
    options = ["--size", "64x64", "--frames", "64", "--count", str(SCENES), "--json"]
    options += ["--perceptual", given.perceptual] if given.perceptual else []
    lines: list[str] = []

    def measured(name: str, model: str) -> dict[str, Any]:
        found = json.loads(videodit("evaluate", "reconstruction", model, *clips, *options))
        lines.append(row(name, found, {Path(clip["name"]).stem: clip for clip in found["clips"]}))
        print(lines[-1], file=sys.stderr, flush=True)
        return found

    for name in given.rows:
        output = settings["output"] if not ROWS[name] else f"{settings['output']}/{''.join(c if c.isalnum() else '_' for c in name)}"
        if not Path(output, "model").exists():
            videodit("train", str(given.run), f"output={output}", *ROWS[name])
        measured(name, f"{output}/model")
    image = measured("the image autoencoder, frame by frame", settings["image"])
    for name, figures in image["references"].items():
        lines.append(row(name, figures, {Path(clip["name"]).stem: clip["references"][name] for clip in image["clips"]}))
    head = list(HEAD)
    if image["perceptual"]:
        head.insert(8, image["perceptual"])
    print("\n".join([f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |", *lines]))


if __name__ == "__main__":
    main()
