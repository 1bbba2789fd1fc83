"""The judge of videos of sprites: looks at the pixels, finds the things, names each, the colours of shapes, motions, and what is behind.

It is never told the caption. Things are parted by boxes, named by a network that saw renders alone (`sprites_things.py`), followed from
frame to frame, and their motions read as the toybox's judge reads them. What nothing explains is None, and a note says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from videodit.data import scenery, sprites
from videodit.data.drawing import times
from videodit.evaluate import sprites_things as recognised
from videodit.evaluate.sprites_turns import SAMPLES, turning, unrolled
from videodit.evaluate.toybox import FREE, PRESENCE
from videodit.evaluate.toybox_motions import enough, fitted

Array = NDArray[np.floating]
Names = Callable[[Array], Array]  # squares n 4 s s -> logarithms of how likely each noun is, n k

SEEN = 40.0  # a pixel this far from its background, in RGB, belongs to a thing: less than a colour's half margin, as pictures have many
LOOKS = 8  # frames in which a thing is named
EDGE = 120.0  # an edge of the background this high in RGB halves what a difference there counts for
ODD = 0.4  # a frame whose area differs by this much, in logarithms, from those around it shows two things as one, or a part
FAR = 0.35  # of the shorter side: a thing that is further from where it was is another


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One thing that was found; `place` is the middle of its path (column, row), in fractions."""

    noun: str
    colour: str | None
    motion: str | None
    place: tuple[float, float]
    sure: float  # how likely the noun is, by the network

    @property
    def name(self) -> str:
        return f"{self.colour} {self.noun}" if self.noun in sprites.SHAPES else self.noun


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All that was seen; `notes` say in words what could not be decided, and why."""

    things: tuple[Seen, ...]
    background: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Spot:
    """A box of one frame: its middle, how much is covered, its mean colour where most is."""

    frame: int
    box: NDArray[np.integer]
    centre: Array
    area: float
    colour: Array


def judge(video: UInt8[np.ndarray, "f h w c"], weights: Path = recognised.WEIGHTS) -> Verdict:
    """What a video shows; one frame has no motion."""
    frames = video[..., :3].astype(np.float32)
    name, behind, problem = background(frames)
    away = (frames - behind) * _calm(behind)
    notes = [problem] if problem else []
    things = []
    for track in _tracks([_spots(frames[f], away[f], f) for f in range(len(frames))], min(frames.shape[1:3])):
        if len(track) < PRESENCE * len(frames):
            notes.append(f"Something is seen in {len(track)} of {len(frames)} frames only: not counted as a thing.")
            continue
        thing, words = _describe(track, frames, away, weights)
        things.append(thing)
        notes += [words.format(what=f"The {thing.name}")] if words else []
    if not things:
        notes.append("No thing was found.")
    return Verdict(things=tuple(sorted(things, key=lambda thing: thing.place)), background=name, notes=tuple(notes))


def background(frames: Array) -> tuple[str | None, Array, str]:
    """The background that agrees best with most pixels, as the video itself shows it (h w c), and a note."""
    extent = frames.shape[1:3]
    still = frames[:: max(1, len(frames) // 4)]
    errors = {n: float(np.minimum(_length(still - scenery.background(n, *extent)), 2 * SEEN).mean()) for n in scenery.BACKGROUNDS}
    best = min(errors, key=lambda name: errors[name])
    away = still - scenery.background(best, *extent)
    near = (_length(away) < SEEN).astype(np.float32)
    if near.mean() < FREE:
        return None, np.median(frames, axis=0), "The background is none of the sprites'."
    shift = np.einsum("fhwc,fhw->hc", away, near) / np.maximum(near.sum((0, 2)), 1)[:, None]
    behind = scenery.background(best, *extent) + shift[:, None]
    if near.mean((1, 2)).min() < FREE:
        return None, behind, f"The background changes: only a part of the frames is {best}."
    return best, behind, ""


def _calm(behind: Array) -> Array:
    """What differences count for, h w 1: less at a background's own edges, where compression and blur leave some."""
    edge = _length(ndimage.maximum_filter(behind, (3, 3, 1)) - ndimage.minimum_filter(behind, (3, 3, 1)))
    return (1 / (1 + edge / EDGE))[..., None].astype(np.float32)


def _length(vectors: Array) -> Array:
    return np.sqrt(np.einsum("...c,...c->...", vectors, vectors))


# --- Where things are ---


def _spots(frame: Array, away: Array, number: int) -> list[_Spot]:
    found = []
    for box in recognised.boxes(away, SEEN):
        left, top, right, bottom = box
        inside = (slice(max(top - 1, 0), min(bottom + 1, len(frame))), slice(max(left - 1, 0), min(right + 1, frame.shape[1])))
        far = _length(away[inside])
        cover = np.clip(far / recognised.FULL, 0, 1)
        y, x = np.mgrid[inside].astype(np.float32) + 0.5
        core = (far >= 0.8 * far.max())[..., None]
        found.append(
            _Spot(
                frame=number,
                box=box,
                centre=np.array([(cover * x).sum(), (cover * y).sum()]) / cover.sum(),
                area=float(cover.sum()),
                colour=(frame[inside] * core).sum((0, 1)) / core.sum(),
            )
        )
    return found


def _tracks(frames: list[list[_Spot]], short: int) -> list[list[_Spot]]:
    """Boxes joined over time into things, by nearness first, then size; longest first."""
    tracks: list[list[_Spot]] = []
    for here in frames:
        left = list(range(len(here)))
        if tracks and here:
            gone = np.stack([_expected(track) for track in tracks])[:, None] - np.stack([spot.centre for spot in here])
            away = np.linalg.norm(gone, axis=-1) / short
            sizes = abs(np.log(np.array([track[-1].area for track in tracks])[:, None] / np.array([spot.area for spot in here])))
            for one, other in zip(*linear_sum_assignment(away + 0.1 * sizes), strict=True):
                if away[one, other] < FAR:
                    tracks[one].append(here[other])
                    left.remove(other)
        tracks += [[here[i]] for i in left]
    return sorted(tracks, key=len, reverse=True)


def _expected(track: list[_Spot]) -> Array:
    """Where a thing will be if it goes on, by halves."""
    return track[-1].centre + 0.5 * (track[-1].centre - track[-2].centre) if len(track) > 1 else track[-1].centre


# --- What they are ---


def _describe(track: list[_Spot], frames: Array, away: Array, weights: Path) -> tuple[Seen, str]:
    some = [track[i] for i in sorted(np.argsort([-spot.area for spot in track])[: 2 * LOOKS : 2 if len(track) >= 2 * LOOKS else 1][:LOOKS])]
    squares = [recognised.crop(frames[s.frame], away[s.frame], *recognised.square(s.box)) for s in some]
    said = recognised.likely(torch.from_numpy(np.stack(squares)), weights).mean(0)
    noun = sprites.NOUNS[int(said.argmax())]
    colour = _colour(np.median([spot.colour for spot in track], axis=0)) if noun in sprites.SHAPES else ""
    motion, words = _motion(track, frames, away)
    rows, columns = frames.shape[1:3]
    path = np.stack([spot.centre for spot in track])
    middle = (path.min(0) + path.max(0)) / 2 / (columns, rows)
    place = float(middle[0]), float(middle[1])
    return Seen(noun=noun, colour=colour, motion=motion, place=place, sure=float(np.exp(said.max()))), words


def _colour(seen: Array) -> str | None:
    """The nearest colour of the toybox's, where one is near."""
    away = {name: float(np.linalg.norm(seen - np.array(rgb))) for name, rgb in sprites.COLOURS.items()}
    best = min(away, key=lambda name: away[name])
    return best if away[best] < 90 else None


def _motion(track: list[_Spot], frames: Array, away: Array) -> tuple[str | None, str]:
    areas = np.array([spot.area for spot in track])
    odd = abs(np.log(areas / ndimage.median_filter(areas, 5, mode="nearest"))) > ODD
    if not enough(np.array([spot.frame for spot in track])[~odd], len(frames)):
        track = [spot for spot, left_out in zip(track, odd, strict=True) if not left_out]
    numbers = np.array([spot.frame for spot in track])
    if words := enough(numbers, len(frames)):
        return None, words
    short, u = min(frames.shape[1:3]), times(len(frames))[numbers].astype(np.float64)
    radius = np.sqrt(np.array([spot.area for spot in track]) / np.pi)
    polar = np.stack(
        [
            unrolled(recognised.crop(frames[s.frame], away[s.frame], (float(s.centre[0]), float(s.centre[1])), 2.0 * float(r), SAMPLES))
            for s, r in zip(track, radius, strict=True)
        ]
    )
    return fitted(numbers, u, np.stack([spot.centre for spot in track]) / short, radius / short, turning(polar, u))


# --- Scores ---


def score(verdict: Verdict, scene: sprites.Scene) -> dict[str, bool | None]:
    """Which attributes of a scene the verdict names rightly; each is right only if it is right for every thing that has it.

    `count` means as many things as asked; `place` that of two different ones the first is the left one. Where no thing has a colour, or
    no place is said, these are None. `all` means all that was asked.
    """
    wanted, found = list(scene.things), [*verdict.things, *[None] * len(scene.things)]
    best: dict[str, bool | None] = dict.fromkeys(("object", "colour", "motion"), False)
    most, placed = -1, False
    for chosen in permutations(found[: len(wanted) + 3], len(wanted)):
        pairs = list(zip(wanted, chosen, strict=True))
        right = {
            "object": [one is not None and one.noun == thing.noun for thing, one in pairs],
            "colour": [one is not None and one.colour == thing.colour for thing, one in pairs if thing.colour],
            "motion": [one is not None and one.motion == thing.motion for thing, one in pairs],
        }
        if (number := 2 * sum(right["object"]) + sum(right["colour"]) + sum(right["motion"])) > most:
            most, best = number, {name: all(agree) if agree else None for name, agree in right.items()}
            columns = [one.place[0] for one in chosen if one is not None]
            placed = len(columns) == 2 and columns[0] < columns[1]
    best |= {"background": verdict.background == scene.background, "count": len(verdict.things) == len(wanted)}
    best |= {"place": placed if scene.group == "beside" else None}
    return best | {"all": all(right is not False for right in best.values())}
