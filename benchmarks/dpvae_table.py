"""The table of DP-VAE's ablation and of what others do, all from one run file, with the same data, steps and seed.

    python benchmarks/real_clips.py out/clips
    videodit train runs/dpvae_small_image.toml
    python benchmarks/dpvae_table.py [--rows NAME ...] [--perceptual FILE] [--run runs/dpvae_small.toml] [--test out/clips/test]

A row that was trained is not trained again. Prints one table in Markdown: reconstruction of the clips in TEST and of held-out scenes of the
toybox.
"""

from __future__ import annotations

import argparse
import json
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
}
HEAD = ("", "PSNR", "key frame", "others", "SSIM", "temporal", "abs(mu_z - mu_zk)", "abs(sigma_z - sigma_zk)", "D_k(z) PSNR")


def videodit(*words: str) -> str:
    call = [sys.executable, "-m", "videodit", *words]
    print("$ videodit", *words, file=sys.stderr)
    return subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout


def row(name: str, found: dict[str, Any]) -> str:
    places = [place["psnr"] for place in found["positions"]]
    latents = found["latents"] or {}
    others = sum(places[1:]) / len(places[1:]) if places[1:] else None
    cells = [found["all"]["psnr"], places[0], others, found["all"]["ssim"], found["all"]["temporal"]]
    cells += [latents.get(key) for key in ("mean", "deviation", "image_decoder_psnr")]
    digits = (2, 2, 2, 4, 4, 3, 3, 2)
    written = ["-" if value is None else f"{value:.{n}f}" for value, n in zip(cells, digits, strict=True)]
    if found["perceptual"]:
        written.insert(4, f"{found['all'][found['perceptual']]:.4f}")
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
    options = ["--size", "64x64", "--frames", "64", "--json", *(["--perceptual", given.perceptual] if given.perceptual else [])]
    lines: list[str] = []
    for name in given.rows:
        output = f"{settings['output']}/{''.join(letter if letter.isalnum() else '_' for letter in name)}"
        if not Path(output, "model").exists():
            videodit("train", str(given.run), f"output={output}", *ROWS[name])
        lines.append(row(name, json.loads(videodit("evaluate", "reconstruction", f"{output}/model", *clips, *options))))
    image = json.loads(videodit("evaluate", "reconstruction", settings["image"], *clips, *options))
    lines.append(row("the image autoencoder, frame by frame", image))
    head = list(HEAD)
    if image["perceptual"]:
        head.insert(5, image["perceptual"])
    lines += [row(name, {**image, "latents": None, **figures}) for name, figures in image["references"].items()]
    print("\n".join([f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |", *lines]))


if __name__ == "__main__":
    main()
