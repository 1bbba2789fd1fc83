"""What a transformer's run draws from: the latents of all clips or pictures, their captions, and what may be told of them, encoded once.

Encoded things are kept by all that decides them, drawn scenes together and files one by one, so that a new file costs its own encoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from videodit import backbone, models
from videodit.autoencoder import PerFrame
from videodit.data import cuts, sources, worlds
from videodit.data.buckets import Buckets, One
from videodit.data.cache import remembered
from videodit.data.item import Item
from videodit.data.labels import Labels
from videodit.data.quarantine import Losses, Place, Quarantine, placed, readable, reader
from videodit.data.rows import Rows
from videodit.data.sources import Drawn, Filed
from videodit.data.text import TextEncoder
from videodit.data.text_sd3 import SD3Text
from videodit.data.video import Unreadable
from videodit.shapes import Size, UserError
from videodit.train.parts import Part, encoded, mode, parts_of, told_of
from videodit.train.progress import counting

if TYPE_CHECKING:
    from videodit.train.backbone import BackboneRun

How = Callable[[Item, Place], "Making | None"]  # how an item of these bytes is encoded; None: it is too small, or too short


class Extent(NamedTuple):
    """Of a file's clips, and of what is encoded of each: all of it, or its first frame."""

    clip: Size
    kept: Size


class Making(NamedTuple):
    """How a file is encoded, and all that decides it beside the file."""

    key: dict[str, Any]
    make: Callable[[], dict[str, Tensor]]


@dataclass(frozen=True)
class Pool:
    """The latents of all, which stay on disk; their captions, and which are whose; `parts`: what may be told of the first, or of all."""

    latents: Rows
    captions: list[str]
    whose: list[tuple[int, ...]] = field(default_factory=list)  # captions of each; without any, each has its own
    parts: Rows | None = None
    weights: np.ndarray | None = None
    items: list[Item] = field(default_factory=list)  # the file of each entry; of a world that is drawn none

    def draw(self, rng: np.random.Generator, count: int, *, told: bool) -> np.ndarray:
        """So many of them; `told`: of those whose parts are known."""
        most = len(self.parts) if told and self.parts is not None else len(self.latents)
        if self.weights is None:
            return rng.integers(most, size=count)
        return rng.choice(most, size=count, p=self.weights[:most] / self.weights[:most].sum())

    def names(self, indices: np.ndarray) -> tuple[str, ...]:
        """What a user finds them by: their files, or their numbers in a world that is drawn."""
        what = "clip" if self.latents.shape("latents", 0)[1] > 1 else "picture"
        return tuple(str(self.items[self.latents.entry(int(i))].path) if self.items else f"{what} {i}" for i in indices)

    def said(self, rng: np.random.Generator, indices: np.ndarray) -> np.ndarray:
        """A caption of each."""
        if not self.whose:
            return indices
        return np.array([self.whose[i][rng.integers(len(self.whose[i]))] for i in indices])

    def together(self, indices: np.ndarray) -> Float[Tensor, "n c f h w"]:
        """Latents of one extent."""
        return self.latents.together("latents", indices)

    def part(self, name: str, indices: np.ndarray) -> Tensor:
        """What may be told of clips of one extent."""
        assert self.parts is not None
        return self.parts.together(name, indices).float()

    def alike(self, count: int, *, moves: bool = False) -> np.ndarray:
        """The first so many that have the extent of the first picture, or of the first clip of several latent frames."""
        shapes, which = self.latents.shapes("latents")
        first = np.argmax(np.array([(shape[1] > 1) == moves for shape in shapes])[which])  # of none, the very first
        return np.flatnonzero(np.array([shape == shapes[which[first]] for shape in shapes])[which])[:count]

    def verify(self) -> None:
        """All that it has, now."""
        for rows in (self.latents, self.parts):
            if rows is not None:
                rows.verify()


def pools(settings: BackboneRun, autoencoder: PerFrame, takes: str, kinds: Iterable[bool], *, anew: bool = True) -> dict[bool, Pool]:
    """A pool of each kind: False pictures, True clips; `anew`: the list of files that cannot be read begins anew."""
    if isinstance(settings.data, Drawn):
        return {kind: _drawn(settings, autoencoder, takes, kind) for kind in kinds}
    if anew:  # files may have been mended
        (settings.output / "unreadable.jsonl").unlink(missing_ok=True)
    return {kind: _filmed(settings, autoencoder, takes, kind) for kind in kinds}


def check(settings: BackboneRun, text: TextEncoder | SD3Text | Labels) -> None:
    """Refuse words that are missing, or that `text` does not take, before anything is encoded."""
    looks, takes = settings.looks, str(text.takes)
    read = [(settings.data, kind) for kind in settings.joint.kinds]
    if looks.every and isinstance(looks.data, Filed):
        read.append((looks.data, settings.joint.video_probability > 0))
    for source, kind in read:
        if isinstance(source, Drawn):
            text.check(_captions(settings, kind, takes))
            continue
        for item in _items(source, kind):
            words = _words(item, takes)
            try:
                text.check(words)
            except UserError as error:
                raise UserError(f"{item.path}: {error}") from error
    if looks.every and looks.prompts and takes == "text":
        text.check(looks.prompts)


def merged(pools: dict[bool, Pool], video: float) -> Pool:
    """Pictures, then clips, in one pool of which clips are drawn so often."""
    captions: list[str] = []
    whose: list[tuple[int, ...]] = []
    weights: list[np.ndarray] = []
    every = [pools[kind] for kind in sorted(pools)]
    for kind, pool in zip(sorted(pools), every, strict=True):
        assert pool.weights is not None
        whose += [tuple(len(captions) + i for i in one) for one in pool.whose]
        captions += pool.captions
        weights.append(pool.weights / pool.weights.sum() * (video if kind else 1 - video))
    rows = Rows.joined([pool.latents for pool in every])
    return Pool(rows, captions, whose, rows, np.concatenate(weights), [item for pool in every for item in pool.items])


def patch(settings: BackboneRun) -> int:
    """Rows and columns of latents in a token of the transformer that learns."""
    folder = settings.start and models.read(settings.start, models.ModelFolder)[1]
    return (folder.backbone if folder else settings.backbone or backbone.PRESETS[settings.preset]).patch


def table(settings: BackboneRun, autoencoder: PerFrame) -> Buckets | None:
    """What extents the files of a run have; None: they are all of its size."""
    sizes = settings.sizes
    return None if isinstance(sizes, One) else sizes.table(space=autoencoder.space, time=autoencoder.time, patch=patch(settings))


def cache(settings: BackboneRun) -> Path:
    return settings.output.parent / "cache"


def digest(module: nn.Module) -> str:
    """The content of a network's weights."""
    content = hashlib.sha256()
    for name, value in module.state_dict().items():
        content.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


# --- Scenes that are drawn ---


def scenes_key(drawn: Drawn, seed: int, size: Size, autoencoder: PerFrame, precision: str) -> dict[str, Any]:
    """What decides the latents of scenes, beside how many there are."""
    return {
        "seed": seed,
        drawn.kind: worlds.world(drawn).content(),
        "size": size,
        "autoencoder": digest(autoencoder),
        "scaling": _scaling(autoencoder),
        "precision": precision,
    }


def _drawn(settings: BackboneRun, autoencoder: PerFrame, takes: str, video: bool) -> Pool:
    captions = _captions(settings, video, takes)
    assert isinstance(settings.data, Drawn)
    world, key = worlds.world(settings.data), scenes_key(settings.data, settings.seed, settings.size, autoencoder, settings.precision)
    size = settings.size if video else settings.size._replace(frames=1)

    def frames(start: int, stop: int) -> list[np.ndarray]:
        draw = world.clip if video else world.picture
        return [draw(settings.seed, i, size).video for i in range(start, stop)]

    whole = {"latents": partial(mode, autoencoder)}
    each = "clip" if video else "picture"
    make = partial(encoded, settings, frames, len(captions), whole, counting(f"{each}s encoded", each=each))
    latents = Rows.one(cache(settings), key | {"video": video, "count": len(captions)}, make)
    if not (parts := told_of(settings, autoencoder, settings.size, video)):
        return Pool(latents, captions)
    count = len(captions) if settings.upscale else min(settings.tasks.clips, settings.clips)
    make = partial(encoded, settings, frames, count, parts, counting(f"{each}s encoded, as they are told", each=each))
    key |= {"parts": sorted(parts), "count": count} | ({} if video else {"video": video})
    return Pool(latents, captions, parts=Rows.one(cache(settings), key, make))


def _captions(settings: BackboneRun, video: bool, takes: str) -> list[str]:
    assert isinstance(settings.data, Drawn)
    count = settings.clips if video else settings.pictures
    return list(_said(settings.data, settings.seed, count, takes, settings.labels, video))


@lru_cache(maxsize=2)
def _said(drawn: Drawn, seed: int, count: int, takes: str, labels: str, video: bool) -> tuple[str, ...]:
    """What is said of so many scenes, which are asked for when words are checked and when they are read."""
    world = worlds.world(drawn)
    if takes != "text":
        scenes = (world.scene(seed, i) for i in range(count))
        return tuple(getattr(what.things[0], labels) if takes == "label" else "" for what in scenes)
    say = world.sentence if video else world.picture_sentence
    return tuple(say(seed, i) for i in range(count))


# --- Files ---


def encode(settings: BackboneRun, autoencoder: PerFrame, video: bool, part: slice) -> None:
    """Some of the files, so that several processes may share them; what fails is listed, and counted by who reads all."""
    chosen, how, quarantine = _chosen(settings, autoencoder, video)
    count, mine = counting("files encoded by this process", each="file"), chosen[part]
    for done, item in enumerate(mine, 1):
        with suppress(Unreadable):
            if entry := _entry(item, placed(item), how, quarantine):
                remembered(cache(settings), *entry)
        count(done, len(mine))


def _items(source: Filed, video: bool) -> list[Item]:
    """The videos, or the pictures; where there are no pictures, the videos whose clips' first frames stand in."""
    every = sources.items(source)
    return [item for item in every if item.moves == video] or ([] if video else every)


def _chosen(settings: BackboneRun, autoencoder: PerFrame, video: bool) -> tuple[list[Item], How, Quarantine]:
    """The files of a kind, and how each is encoded."""
    assert not isinstance(settings.data, Drawn)
    key = {
        "autoencoder": digest(autoencoder),
        "scaling": _scaling(autoencoder),
        "precision": settings.precision,
        "files": settings.data.every,
        "most": settings.data.most,
    }
    quarantine = Quarantine(cache(settings) / "quarantine.jsonl", settings.data.seconds)
    extent, encoding = _extents(settings, autoencoder, video, quarantine), lru_cache(partial(parts_of, settings, autoencoder, video=video))

    def how(item: Item, place: Place) -> Making | None:
        if (found := extent(item, place)) is None:
            return None
        cutting = {"clips": found.clip, "still": cuts.STILL} if found.clip.frames > 1 else {}
        parts = encoding(found.kept)
        return Making(
            key | {"reader": reader(item), "parts": sorted(parts), "size": found.kept} | cutting,
            partial(_of_file, settings, item, found, parts),
        )

    return _items(settings.data, video), how, quarantine


def _extents(settings: BackboneRun, autoencoder: PerFrame, video: bool, quarantine: Quarantine) -> Callable[[Item, Place], Extent | None]:
    """The extent of a file's clips: the run's, or the nearest to its own, for which it is looked through once."""
    buckets, files = table(settings, autoencoder), settings.data
    if buckets is None or isinstance(files, Drawn):
        picture = settings.size._replace(frames=1)
        return lambda item, place: Extent(settings.size if item.moves else picture, settings.size if video else picture)
    longest = max(buckets.lengths)

    def of(item: Item, place: Place) -> Extent | None:
        key = {"looked": place.digest, **place.key, "reader": reader(item), "every": files.every}
        look = partial(quarantine.tried, place, item.path, lambda: {"size": torch.tensor(cuts.filled(cuts.look(item, files), files))})
        size = Size(*remembered(cache(settings), key, look)["size"].tolist())
        clip, picture = buckets.of(size), buckets.of(size._replace(frames=1))
        if clip is None or (clip.frames == 1 and item.moves and (video or longest > 1)):  # without clips there are no first frames
            return None
        return Extent(clip, clip) if video else picture and Extent(clip, picture)

    return of


def _filmed(settings: BackboneRun, autoencoder: PerFrame, takes: str, video: bool) -> Pool:
    """The clips of all videos, or all pictures; of files with the same bytes the first."""
    assert not isinstance(settings.data, Drawn)
    chosen, how, quarantine = _chosen(settings, autoencoder, video)
    captions: list[str] = []
    whose: list[tuple[int, ...]] = []
    weights: list[float] = []
    files: list[Item] = []
    losses = Losses(len(chosen), settings.data.budget, settings.output / "unreadable.jsonl")

    def again(entry: int) -> None:
        if found := _entry(files[entry], placed(files[entry]), how, quarantine):
            remembered(cache(settings), *found)

    def clips(item: Item, place: Place) -> int:
        entry = _entry(item, place, how, quarantine)
        return rows.add(*entry) if entry else 0

    rows = Rows(cache(settings), again)
    for item, _, count in readable(chosen, clips, losses, counting("files encoded", each="file")):
        words = _words(item, takes)
        whose += [tuple(range(len(captions), len(captions) + len(words)))] * count
        weights += [item.weight / max(count, 1)] * count
        files += [item._replace(captions=())] if count else []
        captions += words
    if not whose:
        raise UserError(_nothing(settings, settings.data.path, losses, video))
    return Pool(rows, captions, whose, rows, np.array(weights), files)


def _nothing(settings: BackboneRun, path: Path | str, losses: Losses, video: bool) -> str:
    if losses.count:
        what, lost = "clips" if video else "pictures", f"{losses.count} of {losses.total} files in {path} could not be used"
        return f"{lost}, as {losses.report} says, and there are no {what} in the others: mend them, or add files."
    if isinstance(settings.sizes, One):
        what = f"clips of {settings.size.frames} frames" if video else "pictures"
        return f"There are no {what} in {path}: use fewer frames (size) or a smaller data.every, or longer videos."
    if video:
        return f"No clip in {path} fills any of sizes.resolutions and sizes.lengths above 1: add smaller and shorter ones."
    return f"No picture in {path} fills any of sizes.resolutions at sizes.lengths 1: add smaller ones, and 1 to the lengths."


def _words(item: Item, takes: str) -> list[str]:
    if takes == "label" and not item.label:
        raise UserError(f"{item.path} has no label: give it one in its list, or take it out.")
    if takes == "label":
        return [item.label]
    if takes == "text" and not item.captions:
        raise UserError(f"{item.path} has no caption: write one into {item.path.with_suffix('.txt').name} beside it, or into a manifest.")
    return list(item.captions) if takes == "text" else [""]


def _entry(item: Item, place: Place, how: How, quarantine: Quarantine) -> tuple[dict[str, Any], Callable[[], dict[str, Tensor]]] | None:
    """What decides what is kept of an item, if anything is, and how it is made; what could not be read once is not tried again."""
    if (made := how(item, place)) is None:
        return None
    return made.key | {"file": place.digest, **place.key}, partial(quarantine.tried, place, item.path, made.make)


def _of_file(settings: BackboneRun, item: Item, extent: Extent, parts: dict[str, Part]) -> dict[str, Tensor]:
    """All clips of a file, or their first frames, encoded; of one that is too short or shows nothing that moves, none."""
    assert not isinstance(settings.data, Drawn)
    seen = cuts.look(item, settings.data)
    if extent.clip.frames > 1 and cuts.still(item, seen):
        return {name: torch.zeros(0) for name in parts}
    found = cuts.cut(seen, extent.clip, settings.data)
    clips = list(cuts.clips(item, found, extent.kept, settings.data))
    return (
        encoded(settings, lambda start, stop: clips[start:stop], len(clips), parts) if clips else {name: torch.zeros(0) for name in parts}
    )


def _scaling(autoencoder: PerFrame) -> list[Any]:
    """What decides latents beside weights: how groups are made, and the numbers that normalise."""
    return [type(autoencoder).__name__, repr(getattr(autoencoder, "settings", "")), autoencoder.scaling, autoencoder.shift]
