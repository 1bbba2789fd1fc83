"""The judge of toybox videos: looks at the pixels, finds the things and names shape, colour, motion and background.

It is never told the caption. Every decision is the best explanation among what the toybox draws; where none explains what is
seen, the answer is None and a note says why. Its limits come from the ranges that the toybox states:
half the margin between colours and backgrounds, half the least that a motion goes, part of the smallest thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from videodit.data import toybox
from videodit.evaluate import toybox_shapes as shapes
from videodit.evaluate.toybox_motions import name_motion

Array = NDArray[np.floating]

SEEN = toybox.MARGIN / 2  # a pixel this far from its background belongs to a thing
SMALLEST, LARGEST = 0.002, 0.3  # areas of things, as parts of the short side squared: a quarter of the least drawn, half more than the most
MAJORITY = 2 / 3  # of the frames have to agree about a colour or a shape
PRESENCE = 0.5  # of the frames have to show a thing that counts
FREE = 0.4  # of the frame, at least, shows the background: two things cover half at most
MISFIT = 0.35  # a template that leaves more than this of a mask unexplained does not fit it
NEAR = 0.02  # a shape that fits this much worse than the best fits as well: half of what parts a tiny circle from a tiny square


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One thing that was found; what could not be decided is None. `place` is the middle of its path (column, row), in fractions."""

    shape: str | None
    colour: str | None
    motion: str | None
    place: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All that was seen; `notes` say in words what could not be decided, and why."""

    things: tuple[Seen, ...]
    background: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Blobs:
    """What stands out of the background, per connected region of a frame; `labels` is f h w, region i + 1 belonging to row i."""

    labels: NDArray[np.int32]
    frame: NDArray[np.int64]
    centre: Array  # column, row
    area: Array
    colour: Array
    notes: tuple[str, ...]


def judge(video: UInt8[np.ndarray, "f h w c"]) -> Verdict:
    """What a video shows. One frame has no motion; a thing that is there in few frames is a note, not a thing."""
    frames = video[..., :3].astype(np.float32)
    name, behind, problem = _background(frames)
    away = frames - behind
    notes = [problem] if problem else []
    blobs = _blobs(away, behind)
    notes += blobs.notes
    things = []
    for track in _tracks(blobs, min(frames.shape[1:3])):
        if len(track) < PRESENCE * len(frames):
            since = blobs.frame[track[0]]
            notes.append(f"Something is seen in {len(track)} of {len(frames)} frames only (from frame {since} on): not counted as a thing.")
            continue
        thing, words = _describe(blobs, track, away, behind)
        things.append(thing)
        notes += words
    if not things:
        notes.append("No thing was found.")
    return Verdict(things=tuple(things), background=name, notes=tuple(notes))


# --- Background and regions ---


def _background(frames: Array) -> tuple[str | None, Array, str]:
    """The named background that agrees best with most pixels, the colours (h 1 c) that the video itself has there, and a note."""
    rows = frames.shape[1]
    still = frames[:: max(1, len(frames) // 4)]  # a few frames do
    errors = {}
    for name in toybox.BACKGROUNDS:
        distance = _length(still - toybox.background(name, rows, 1))
        errors[name] = float(np.minimum(distance, 2 * SEEN).mean())
    best = min(errors, key=lambda name: errors[name])
    picture = toybox.background(best, rows, 1)
    away = still - picture
    near = (_length(away) < SEEN).astype(np.float32)
    if near.mean() < FREE:
        rowwise = still.transpose(1, 0, 2, 3).reshape(rows, -1, 3)
        return None, np.median(rowwise, axis=1)[:, None], "The background is none of the toybox's."
    shift = np.einsum("fhwc,fhw->hc", away, near) / np.maximum(near.sum((0, 2)), 1)[:, None]
    if near.mean((1, 2)).min() < FREE:
        return None, picture + shift[:, None], f"The background changes: only a part of the frames is {best}."
    return best, picture + shift[:, None], ""


def _length(vectors: Array) -> Array:
    return np.sqrt(np.einsum("...c,...c->...", vectors, vectors))


def _blobs(away: Array, behind: Array) -> _Blobs:
    """The connected regions that stand out, without specks and without what is too large for a thing."""
    distance = _length(away)
    structure = np.zeros((3, 3, 3), int)
    structure[1] = 1
    raw = np.zeros(distance.shape, np.int32)
    ndimage.label(distance > SEEN, structure, output=raw)
    areas = np.bincount(raw.ravel())
    short = min(distance.shape[1:])
    large = areas > LARGEST * short**2
    large[0] = False
    keep = (areas >= SMALLEST * short**2) & ~large
    keep[0] = False
    lookup = np.zeros(len(areas), np.int32)
    lookup[keep] = np.arange(1, keep.sum() + 1)
    labels = lookup[raw]
    where = np.nonzero(labels)
    owner, total = labels[where] - 1, int(keep.sum())
    d = distance[where]
    peak = np.zeros(total, np.float32)
    np.maximum.at(peak, owner, d)
    core = (d > 0.8 * peak[owner]).astype(np.float32)
    pixels = away[where] + behind[where[1], 0]
    notes = (f"In {large.sum()} places something too large for a thing stands out.",) if large.any() else ()
    return _Blobs(
        labels=labels,
        frame=np.rint(_means(where[0], np.ones_like(d), owner, total)).astype(int),
        centre=np.stack([_means(where[axis] + 0.5, d, owner, total) for axis in (2, 1)], 1),
        area=areas[keep].astype(np.float32),
        colour=np.stack([_means(pixels[:, c], core, owner, total) for c in range(3)], 1),
        notes=notes,
    )


def _means(values: NDArray[np.number], weight: Array, owner: NDArray[np.integer], total: int) -> Array:
    """The weighted mean of `values` for each of `total` owners."""
    return (np.bincount(owner, values * weight, total) / np.bincount(owner, weight, total)).astype(np.float32)


def _tracks(blobs: _Blobs, short: int) -> list[list[int]]:
    """Regions joined over time into things, by nearness first, then colour and size; longest first."""
    tracks: list[list[int]] = []
    for frame in np.unique(blobs.frame):
        here = np.flatnonzero(blobs.frame == frame)
        taken = set()
        if tracks:
            last = np.array([track[-1] for track in tracks])
            cost = np.linalg.norm(blobs.centre[last][:, None] - blobs.centre[here], axis=-1) / short
            cost = cost + np.linalg.norm(blobs.colour[last][:, None] - blobs.colour[here], axis=-1) / 170
            cost = cost + 0.1 * abs(np.log(blobs.area[last][:, None] / blobs.area[here]))
            cost = cost + 0.1 * (frame - blobs.frame[last] - 1)[:, None]
            for one, other in zip(*linear_sum_assignment(cost), strict=True):
                tracks[one].append(int(here[other]))
                taken.add(int(here[other]))
        tracks += [[int(blob)] for blob in here if int(blob) not in taken]
    return sorted(tracks, key=len, reverse=True)


# --- One thing ---


def _describe(blobs: _Blobs, track: list[int], away: Array, behind: Array) -> tuple[Seen, list[str]]:
    notes = []
    colour, problem = _colour(blobs, track)
    notes += [problem] if problem else []
    alpha, centre, area = _masks(blobs, track, away, behind)
    misfit = shapes.compare(alpha, centre, area)
    shape, looks, problem = _shape(misfit, area)
    what = f"the {colour or 'coloured'} {shape or 'thing'}"
    notes += [problem.format(what=f"the {colour or 'coloured'} thing")] if problem else []
    short = min(away.shape[1:3])
    motion, problem = name_motion(
        frames=blobs.frame[track], total=len(away), centre=centre / short, area=area / short**2, shape=looks, misfit=misfit
    )
    notes += [problem.format(what=what)] if problem else []
    middle = (centre.min(0) + centre.max(0)) / 2
    place = float(middle[0] / away.shape[2]), float(middle[1] / away.shape[1])
    return Seen(shape=shape, colour=colour, motion=motion, place=place), [note[0].upper() + note[1:] for note in notes]


def _colour(blobs: _Blobs, track: list[int]) -> tuple[str | None, str]:
    """The toybox colour nearest to the thing's own; None where frames disagree or no colour is near."""
    palette = np.array(list(toybox.COLOURS.values()), np.float32)
    names = list(toybox.COLOURS)
    seen = blobs.colour[track]
    nearest = np.linalg.norm(palette - seen[:, None], axis=2).argmin(1)
    best = int(np.bincount(nearest).argmax())
    votes = nearest == best
    middle = np.median(seen[votes], axis=0)
    if np.linalg.norm(palette[best] - middle) > toybox.MARGIN:
        return None, f"a thing's colour {tuple(int(v) for v in middle)} is none of the toybox's."
    if votes.mean() < MAJORITY:
        return None, f"a thing changes colour: {names[best]} in {votes.sum()} of {len(votes)} frames only."
    return names[best], ""


def _masks(blobs: _Blobs, track: list[int], away: Array, behind: Array) -> tuple[Array, Array, Array]:
    """The thing's coverage of each pixel (f h w), its centres (column, row) and areas, for the frames of its track."""
    frames, regions = blobs.frame[track], np.array(track) + 1
    # The colour of the thing is where the regions come closest to being fully covered: their larger halves.
    large = blobs.area[track] >= np.median(blobs.area[track])
    colour = np.median(blobs.colour[track][large], axis=0)
    full = (colour - behind).astype(np.float32)
    labels = blobs.labels[frames]
    inside = ndimage.maximum_filter(labels == regions[:, None, None], size=(1, 3, 3))
    inside &= (labels == 0) | (labels == regions[:, None, None])
    alpha = np.einsum("fhwc,hwc->fhw", away[frames], full / np.maximum((full**2).sum(-1, keepdims=True), 1).astype(np.float32))
    alpha = np.where(inside, np.clip(alpha, -0.2, 1.2), 0).astype(np.float32)
    area = np.maximum(alpha.sum((1, 2)), 1)
    x, y = (np.arange(n, dtype=np.float32) + 0.5 for n in (alpha.shape[2], alpha.shape[1]))
    centre = np.stack([alpha.sum(1) @ x, alpha.sum(2) @ y], 1) / area[:, None]
    return alpha, centre, area


def _shape(misfit: Array, area: Array) -> tuple[str | None, str, str]:
    """The shape that explains all frames best (None where frames disagree or none fits), the closest anyway, and a note."""
    names, owner = list(toybox.SHAPES), shapes.bank().shape
    each = np.stack([misfit[:, owner == index].min(1) for index in range(len(names))], 1)
    weight = np.sqrt(area)[:, None] / np.sqrt(area).sum()  # large frames show more
    total = (each * weight).sum(0)
    best = int(total.argmin())
    if total[best] > MISFIT:
        return None, names[best], "{what} looks like no shape of the toybox."
    votes = float(((each[:, best] < each.min(1) + NEAR) * weight[:, 0]).sum())
    if votes < MAJORITY:
        return None, names[best], f"{{what}} changes its shape: {names[best]} in {votes:.0%} of the frames only."
    return names[best], names[best], ""


# --- Scores ---


def score(verdict: Verdict, scene: toybox.Scene) -> dict[str, bool]:
    """Which attributes of a scene the verdict names rightly.

    Things are paired so that most attributes agree. An attribute is right only if it is right for every thing of the scene;
    `all` means shape, colour and motion of every thing and as many things as asked (`count`). The background counts for itself.
    """
    wanted: list[toybox.Thing] = list(scene.things)
    found: list[Seen | None] = [*verdict.things, *[None] * len(wanted)]
    names = ("shape", "colour", "motion")
    best: dict[str, bool] = dict.fromkeys(names, False)
    most = -1
    for chosen in permutations(found[: len(wanted) + 4], len(wanted)):
        pairs = list(zip(wanted, chosen, strict=True))
        right = {n: [one is not None and getattr(one, n) == getattr(thing, n) for thing, one in pairs] for n in names}
        if (number := sum(map(sum, right.values()))) > most:
            most, best = number, {n: all(agree) for n, agree in right.items()}
    best["count"] = len(verdict.things) == len(wanted)
    best["all"] = all(best.values())
    best["background"] = verdict.background == scene.background
    return best


def table(scores: Iterable[Mapping[str, bool | None]]) -> dict[str, float]:
    """The mean of every score, over the scenes that asked for it; what none asked for is left out."""
    rows = list(scores)
    asked = {name: [float(right) for row in rows if (right := row[name]) is not None] for name in (rows[0] if rows else {})}
    return {name: float(np.mean(some)) for name, some in asked.items() if some}
