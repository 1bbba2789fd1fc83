"""Videos of the bundled model on one page, the first of a list and none left out: what the judge reads wrongly is marked.

    python benchmarks/gallery.py docs/gallery [--model toybox] [--count 18]

writes OUT.md and OUT/*.webp.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import videodit
from videodit.data import toybox, video
from videodit.data.toybox import Scene
from videodit.evaluate.toybox import judge, score
from videodit.generate import Frames, Generator
from videodit.shapes import Size

SEED = 50_000  # of the scenes: neither training nor `evaluate` has it
ACROSS, SCALE = 3, 2
FREE = ("a red circle moves right", "a blue star spins on a white background", "a green square and a yellow circle", "a purple dog runs")
BATCH = 6


def seen(clip: Frames, scene: Scene) -> str:
    found = score(judge(clip), scene)
    wrong = [name for name in ("shape", "colour", "motion") if not found[name]]
    return f"wrong: {', '.join(wrong)}" if wrong else "right"


def held_out(model: Generator, count: int) -> list[tuple[str, Frames, str]]:
    """Combinations that were never trained, in the order of their numbers."""
    scenes = [toybox.scene(SEED, i, split="held-out", objects=1) for i in range(count)]
    prompts = [toybox.prompt(scene) for scene in scenes]
    clips = [clip for at in range(0, count, BATCH) for clip in model.generate(prompts[at : at + BATCH], first=at)]
    return [(prompt, clip, seen(clip, scene)) for prompt, clip, scene in zip(prompts, clips, scenes, strict=True)]


def around(model: Generator, numbers: list[int], count: int, of: str) -> list[tuple[str, Frames, str]]:
    """Given frames of rendered scenes, the rest generated."""
    found = []
    for i in range(count):
        scene = toybox.scene(SEED, 100 + i, split="held-out", objects=1)
        truth, prompt = toybox.render(scene, model.size), toybox.prompt(scene)
        clip = model.generate(prompt, given={number: truth[number] for number in numbers}, first=100 + i)
        found.append((f"{prompt}; given {of}", clip, seen(clip, scene)))
    return found


def page(sections: dict[str, list[tuple[str, Frames, str]]], out: Path, command: str, fps: float) -> str:
    out.mkdir(parents=True, exist_ok=True)
    lines = ["# Gallery", "", f"    {command}", ""]
    lines += ["The first of each list, none left out; *right* and *wrong* is what [the judge](evaluate.md#the-judge) reads.", ""]
    number = 0
    for title, rows in sections.items():
        lines += [f"## {title}", "", f"|{' |' * ACROSS}", f"|{' --- |' * ACROSS}"]
        for start in range(0, len(rows), ACROSS):
            cells = []
            for words, clip, verdict in rows[start : start + ACROSS]:
                number += 1
                large = np.repeat(np.repeat(clip, SCALE, 1), SCALE, 2)
                video.write(out / f"{number:02d}.webp", large, fps, 90)
                cells.append(f"![{words}]({out.name}/{number:02d}.webp)<br>{words}{f'<br>*{verdict}*' if verdict else ''}")
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--count", type=int, default=18)
    given = parser.parse_args()
    model = videodit.load(given.model)
    last = model.size.frames - 1
    sections = {
        "Held-out prompts": held_out(model, given.count),
        "From a first frame": around(model, [0], 6, "the first frame"),
        "Between two frames": around(model, [0, last], 6, "the first and the last frame"),
        "Pictures": [(prompt, model.generate(prompt, size=Size(1, *model.size[1:])), "") for prompt in FREE[:3]],
        "Typed at random": [(prompt, model.generate(prompt), "") for prompt in FREE],
    }
    command = f"python benchmarks/gallery.py {given.out} --model {given.model} --count {given.count}"
    given.out.with_suffix(".md").write_text(page(sections, given.out, command, model.fps), encoding="utf-8")


if __name__ == "__main__":
    main()
