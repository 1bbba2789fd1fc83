"""Our scores beside those of torch-fidelity and cd-fvd, each on the same features and from the same pictures by the same weights.

    python benchmarks/metric_references.py [--environment out/references] [--json]

Both want torchvision, which this project keeps out. So they get an environment of their own, which the command makes once (pip, 1 GB);
a stub stands for torchvision there. Weights of Inception and I3D are drawn: what is compared is the arithmetic, not what a score is worth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from videodit.evaluate.extractors import EXTRACTORS, Looked
from videodit.evaluate.frechet import Moments, frechet, frechet_of_rows
from videodit.evaluate.inception import Answers
from videodit.evaluate.kernel import discrepancy

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch-fidelity==0.4.0", "cd-fvd==0.1.1")
CLOSE = 1e-4  # of a score, or of the largest feature
OTHER = "fvd of clips, norms of 0.00001"  # cd-fvd's own norms; DeepMind's network, and ours, add 0.001


def environment(folder: Path) -> Path:
    """The Python of their environment, made where it is not there."""
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    if subprocess.run([python, "-c", "import torch, scipy, PIL, tqdm, requests, einops, cdfvd"], capture_output=True).returncode:
        pip = [python, "-m", "pip", "install", "-q"]
        constraints = ["-c", str(HERE.parent / "constraints.txt")]
        subprocess.run([*pip, *constraints, "torch==2.13.0", "numpy", "scipy", "pillow", "tqdm", "requests", "einops"], check=True)
        subprocess.run([*pip, "--no-deps", *PACKAGES], check=True)
    return python


def inputs() -> dict[str, np.ndarray]:
    """Features with more rows than columns and with fewer, answers, pictures and clips."""
    rng = np.random.default_rng(3)
    found: dict[str, np.ndarray] = {}
    for name, rows, width in (("many", 400, 48), ("few", 40, 128)):
        mixing = rng.standard_normal((width, width)) / width**0.5
        found[f"{name}_real"] = rng.standard_normal((rows, width)) @ mixing + 1
        found[f"{name}_fake"] = 1.3 * rng.standard_normal((rows, width)) @ mixing + rng.standard_normal(width)
    found["logits"] = 3 * rng.standard_normal((200, 101))
    for which, low in (("real", 0), ("fake", 60)):
        coarse = rng.integers(low, 256, (24, 5, 6, 3), dtype=np.uint8)
        found[f"frames_{which}"] = coarse.repeat(8, 1).repeat(8, 2)
        found[f"clips_{which}"] = rng.integers(low, 256, (4, 9, 5, 6, 3), dtype=np.uint8).repeat(8, 2).repeat(8, 3)
    return {name: value.astype(np.float32) if value.dtype == np.float64 else value for name, value in found.items()}


def network(name: str) -> torch.nn.Module:
    """An extractor with weights that keep signals at their size; norms are not those of no norm."""
    torch.manual_seed(4)
    made = EXTRACTORS[name].build().eval().requires_grad_(False)
    for key, value in made.state_dict().items():
        if value.ndim > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5)
        elif value.is_floating_point():
            value.uniform_(0.5, 1.5) if key.endswith(("var", "weight")) else value.normal_(0, 0.1)
    return made


def looked(made: torch.nn.Module, clips: np.ndarray) -> Looked:
    with torch.inference_mode():
        parts = [Looked(*made(part)) for part in torch.from_numpy(clips).split(2)]
    answers = [part.logits for part in parts if part.logits is not None]
    return Looked(torch.cat([part.rows for part in parts]), torch.cat(answers) if answers else None)


def over_all(rows: torch.Tensor) -> Moments:
    """As cd-fvd's own class has covariances: over n, not n - 1."""
    moments = Moments.of(rows)
    return replace(moments, count=moments.count + 1)


def ours(given: dict[str, np.ndarray], folder: Path) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray]]:
    """Our scores under their names, and features; leaves the weights in the folder."""
    fidelity: dict[str, float] = {}
    cd: dict[str, float] = {}
    for name in ("many", "few"):
        pair = [torch.from_numpy(given[f"{name}_{which}"]) for which in ("real", "fake")]
        fidelity[f"frechet, {name} rows"] = cd[f"frechet_distance, {name} rows"] = frechet(*map(Moments.of, pair))
        fidelity[f"kernel, {name} rows"] = discrepancy(*pair)
        cd[f"compute_fvd_from_stats, {name} rows"] = frechet(*map(over_all, pair))
    logits, splits = torch.from_numpy(given["logits"]), 10
    order = torch.arange(len(logits)).reshape(splits, -1).T.flatten()  # their splits are stretches, ours every tenth
    fidelity["inception, 10 splits"] = Answers.of(torch.arange(len(logits)), logits[order], splits).score
    inception, i3d = network("inception-v3"), network("i3d")
    torch.save(inception.state_dict(), folder / "inception.pth")
    torch.save(i3d.state_dict(), folder / "i3d.pth")
    real, fake = (looked(inception, given[f"frames_{which}"][:, None]) for which in ("real", "fake"))
    rows = [part.rows[:, 0] for part in (real, fake)]
    assert real.logits is not None
    fidelity |= {"fid of frames": frechet_of_rows(*rows), "kid of frames": discrepancy(*rows)}
    fidelity["is of frames"] = Answers.of(torch.arange(len(rows[0])), real.logits[:, 0], 1).score
    clips = [looked(i3d, given[f"clips_{which}"]).rows[:, 0] for which in ("real", "fake")]
    cd["fvd of clips"] = cd[OTHER] = frechet_of_rows(*clips)
    features = {"inception": rows[0].numpy(), "i3d_real": clips[0].numpy(), "i3d_fake": clips[1].numpy()}
    return {"torch-fidelity": fidelity, "cd-fvd": cd}, features


def compared(python: Path) -> tuple[dict[str, str], list[tuple[str, str, float, float, float]]]:
    """Versions; and of each score and each set of features: whose, what, ours, theirs, and how far they are apart."""
    given = inputs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "given.npz", **given)
        made, features = ours(given, folder)
        subprocess.run([python, HERE / "metric_references_theirs.py", folder], check=True, stdout=sys.stderr)
        theirs = json.loads((folder / "theirs.json").read_text())
        with np.load(folder / "theirs.npz") as held:
            others = dict(held)
    rows = []
    for whose, scores in made.items():
        for what, mine in scores.items():
            other = theirs[whose][what]
            rows.append((whose, what, mine, other, abs(mine - other) / abs(other)))
    for what, mine in features.items():
        other = others[what]
        whose = "torch-fidelity" if what == "inception" else "cd-fvd"
        sizes = float(abs(mine).max()), float(abs(other).max())
        rows.append((whose, f"features, {what}", *sizes, float(abs(mine - other).max()) / sizes[1]))
    return theirs["versions"], rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Our scores beside torch-fidelity's and cd-fvd's.")
    parser.add_argument("--environment", type=Path, default=Path("out/references"), help="where theirs is, or is made")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    versions, rows = compared(environment(given.environment.absolute()))
    if given.json:
        print(json.dumps({"versions": versions, "rows": rows}))
        return
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print("\n| beside | what | ours | theirs | apart, relative | |\n| --- | --- | ---: | ---: | ---: | --- |")
    for whose, what, mine, other, apart in rows:
        print(f"| {whose} | {what} | {mine:.8g} | {other:.8g} | {apart:.1e} | {'equal' if apart < CLOSE else 'not equal'} |")
    sys.exit(any(apart >= CLOSE for _, what, *_, apart in rows if what != OTHER))


if __name__ == "__main__":
    main()
