"""The judge of sprites: trains what it recognises things by, and measures how often it is right on scenes that are drawn.

    python benchmarks/sprites_judge.py train [--crops 40000] [--epochs 12]     leaves src/videodit/weights/sprites_judge.safetensors
    python benchmarks/sprites_judge.py measure [--count 2000] [--seed 78]     clean, and under noise, blur and compression

Training draws single things by seed 5 with chance of its own; the measured scenes are of another seed and drawn as any clip is.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy import ndimage
from torch.nn import functional as F
from toybox_judge import CONDITIONS

from videodit.data import glyphs, scenery, sprites
from videodit.data.sprites import NOUNS, SHAPES, Thing
from videodit.data.things import HIDDEN
from videodit.evaluate import sprites_things as things
from videodit.evaluate.sprites import SEEN, judge, score
from videodit.evaluate.toybox import table
from videodit.shapes import Size

# --- Training ---


def example(index: int, pictures: glyphs.Pictures) -> tuple[np.ndarray, int] | None:
    """A crop of one thing, of any size, turn and background, disturbed by noise, blur or compression; none where it is not found alone."""
    rng = np.random.default_rng([5, index])
    which = index % len(NOUNS)
    noun = NOUNS[which]
    colour = list(sprites.COLOURS)[int(rng.integers(len(sprites.COLOURS)))] if noun in SHAPES else ""
    names = [name for name in scenery.BACKGROUNDS if not {noun, colour} & set(HIDDEN.get(name, ()))]
    behind = scenery.background(names[int(rng.integers(len(names)))], 64, 64)
    radius = float(np.exp(rng.uniform(np.log(0.065), np.log(0.3))))
    turned = rng.random() < 0.4
    room = min(1.42 * radius, 0.45)
    thing = Thing(
        noun=noun,
        colour=colour,
        motion="spin" if turned else "still",
        radius=radius,
        amount=1.0,
        phase=0.0,
        place=tuple(rng.uniform(room, 1 - room, 2)),
    )
    video = np.array(behind[None])
    sprites.draw(thing, video, rng.random(1, np.float32), pictures)
    frame, way = video[0], int(rng.integers(5))
    if way == 0:
        frame = frame + rng.uniform(3, 12) * rng.standard_normal(frame.shape)
    elif way == 1:
        frame = ndimage.gaussian_filter(frame, (s := rng.uniform(0.3, 0.9), s, 0))
    elif way == 2:
        memory = io.BytesIO()
        Image.fromarray(np.clip(frame, 0, 255).astype(np.uint8)).save(memory, "jpeg", quality=int(rng.integers(40, 90)))
        frame = np.asarray(Image.open(memory), np.float32)
    frame = np.clip(frame * rng.uniform(0.93, 1.07) + rng.uniform(-6, 6, 3) * (way == 3), 0, 255)
    found = things.boxes(frame - behind, SEEN)
    if len(found) != 1:
        return None
    centre, half = things.square(found[0])
    jitter = half * rng.uniform(-0.06, 0.06, 2)
    crop = things.crop(frame, frame - behind, (centre[0] + jitter[0], centre[1] + jitter[1]), half * rng.uniform(0.95, 1.08))
    return crop, which


def train(crops: int, epochs: int, font: Path, out: Path) -> None:
    pictures, start = glyphs.pictures(font), time.time()
    made = [one for index in range(crops) if (one := example(index, pictures))]
    x, y = torch.from_numpy(np.stack([crop for crop, _ in made]).astype(np.float16)), torch.tensor([which for _, which in made])
    print(f"{len(made)} crops of {crops} in {time.time() - start:.0f} s", flush=True)
    torch.manual_seed(0)
    network = things.Recogniser().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02)
    steps, batch, done = epochs * (len(x) // 128), 128, 0
    for epoch in range(epochs):
        total = right = 0
        for part in torch.randperm(len(x)).split(batch)[: len(x) // batch]:
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * done / steps)) + 1e-6
            shown = x[part].float() + 0.03 * torch.randn(()) * torch.randn(len(part), 4, 1, 1)
            quarter = int(torch.randint(8, ()))  # three batches of eight are turned further: turned things are the harder ones
            seen = network(shown.rot90(quarter, (-2, -1)) if quarter < 4 else shown)
            loss = F.cross_entropy(seen, y[part], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done, total, right = done + 1, total + len(part), right + int((seen.argmax(1) == y[part]).sum())
        print(f"epoch {epoch + 1}: {loss.item():.3f}, {right / total:.2%} right, {time.time() - start:.0f} s", flush=True)
        save_file({name: v.half() if v.is_floating_point() else v for name, v in network.state_dict().items()}, str(out))


# --- Measuring ---


def measure(count: int, seed: int, size: Size, font: Path, conditions: list[str], weights: Path) -> None:
    pictures, rows = glyphs.pictures(font), {name: [] for name in conditions}
    for index in range(count):
        what = sprites.scene(seed, index, split="all")
        video = sprites.render(what, size, pictures)
        for name in conditions:
            rows[name].append(score(judge(CONDITIONS[name](video, index), weights), what))
    print(f"{count} clips of {size}, seed {seed}")
    for name, some in rows.items():
        print(f"  {name:6}", "  ".join(f"{key} {value:.2%}" for key, value in table(some).items()))


def main() -> None:
    parser = argparse.ArgumentParser(description="The judge of sprites.")
    parser.add_argument("what", choices=("train", "measure"))
    parser.add_argument("--crops", type=int, default=40000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=78)
    parser.add_argument("--font", type=Path, default=glyphs.FONT)
    parser.add_argument("--out", type=Path, default=things.WEIGHTS)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS))
    parser.add_argument("--weights", type=Path, default=things.WEIGHTS, help="of what names things")
    given = parser.parse_args()
    if given.what == "train":
        train(given.crops, given.epochs, given.font, given.out)
    else:
        measure(given.count, given.seed, Size(given.frames, 64, 64), given.font, given.conditions, given.weights)


if __name__ == "__main__":
    main()
