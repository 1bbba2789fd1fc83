"""One clip as it is asked for: checked, and made by a model."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from videodit import adapters, folders, kernels
from videodit.backbone import attention
from videodit.data import video
from videodit.edit import edit, reworded
from videodit.extend import at_once, cascade, extended, factor_of, infilled, rolled
from videodit.generate import Frames, Generator, GivenFrames, Preview, Progress, load
from videodit.given import filling
from videodit.shapes import Size, UserError
from videodit.upscale import checked, upscaled

INPUTS = ("image", "last", "video", "region")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one clip is made of; what is None is the model's own."""

    prompt: str = ""
    negative: str = ""
    then: tuple[str, ...] = ()
    before: str = ""
    task: str = "t2v"
    by: str = ""  # how a video becomes longer; chunks, unless told
    seed: int = 0
    number: int = 0
    frames: int | None = None
    rows: int | None = None
    columns: int | None = None
    fps: float | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    shift: float | None = None
    strength: float | None = None
    keep: str = ""
    image: Path | None = None
    last: Path | None = None
    video: Path | None = None
    region: Path | None = None
    lora: tuple[str, ...] = ()  # PATH or PATH=SCALE
    upscale: str = ""  # a second model, which makes the clip larger
    softened: float | None = None
    kernels: Mapping[str, str] = dataclasses.field(default_factory=dict)  # a record of kernels; what it does not say is fixed

    def load(self, name: str, device: str = "cpu") -> Generator:
        """The model by its kernels, with the adapters that are asked for merged into it."""
        model = load(name, device)
        for path, scale in map(scaled, self.lora):
            adapters.load(model.model.backbone, path, scale)
        if self.kernels:
            kernels.use_layers(model.model.backbone, self.kernels)
        return model

    def size(self, model: Generator) -> Size:
        frames = 1 if self.task == "t2i" else self.frames or model.size.frames
        rows, columns = (own if asked is None else asked for asked, own in zip((self.rows, self.columns), model.size[1:], strict=True))
        return Size(frames, rows, columns)

    @property
    def how(self) -> dict[str, Any]:
        """What every task takes."""
        return {"seed": self.seed, "steps": self.steps, "guidance": self.guidance, "negative": self.negative, "sampler": self.sampler}

    @property
    def counts(self) -> str:
        """What its progress counts: each frame where parts are made one after the other."""
        return "frame" if self.task == "infill" or (self.task == "extend" and self.by in ("", "chunks", "cascade")) else "step"

    def make(
        self, model: Generator, progress: Progress | None = None, preview: Preview | None = None, second: Generator | None = None
    ) -> Frames:
        """The frames of the clip; `second`: the model that makes it larger, where it is loaded already."""
        with attention.choosing(self.kernels):
            return self._made(model, progress, preview, second or self.second(model))

    def _made(self, model: Generator, progress: Progress | None, preview: Preview | None, second: Generator | None) -> Frames:
        if second is None:
            return TASKS[self.task].make(self, model, progress, preview)
        told = self if second.takes != "nothing" else dataclasses.replace(self, prompt="", negative="", then=())
        checked(second, [told.prompt, *told.then], self.size(model), self.seed, self.softened, told.negative)  # before what takes long
        there = video.probe(self.video).frames if self.video and self.task == "extend" else 0
        clip = TASKS[self.task].make(self, model, progress, preview)
        how = {**told.how, "softened": self.softened, "first": self.number, "there": there}
        return upscaled(second, clip, told.prompt, then=told.then, progress=progress, preview=preview, **how)

    def parts(
        self, model: Generator, progress: Progress | None = None, preview: Preview | None = None, second: Generator | None = None
    ) -> Iterator[Frames]:
        """The same frames as they come: chunk after chunk where the clip grows so and is not made larger, else all at once."""
        if not self.upscale and second is None and self.task == "extend" and self.by in ("", "chunks"):
            with attention.choosing(self.kernels):
                yield from _chunks(self, model, progress, preview)
        else:
            yield self.make(model, progress, preview, second)

    def check_words(self, model: Generator, second: Generator | None = None) -> None:
        """Refuse what a model, or the one that makes the clip larger, cannot be told."""
        words = [self.prompt, *self.then]
        not_shown = [self.negative] if self.negative else []
        model.check_words([*words, *([self.before] if self.before else []), *(not_shown if model.takes == "text" else [])])
        if second is not None and second.takes != "nothing":
            second.check_words([*words, *(not_shown if second.takes == "text" else [])])

    def second(self, model: Generator) -> Generator | None:
        """The model that makes the clip larger, if one is named."""
        return dataclasses.replace(self, lora=()).load(self.upscale, str(model.device)) if self.upscale else None

    def picture(self, path: Path | None, model: Generator) -> Frames:
        assert path is not None
        return video.fitted(video.read(path, frames=1)[0], *self.size(model)[1:])[0]

    def clip(self, model: Generator, frames: int | None = None) -> Frames:
        """The frames of `video`, at most so many: a film is not read for the few that are used."""
        assert self.video is not None
        return video.fitted(video.read(self.video, frames=frames)[0], *self.size(model)[1:])


# --- Tasks ---


class Task(NamedTuple):
    """What a task does, what it needs and what else it can use, and how."""

    says: str
    needs: tuple[str, ...]
    may: tuple[str, ...]
    make: Callable[[Request, Generator, Progress | None, Preview | None], Frames]


def _how(request: Request, model: Generator, preview: Preview | None) -> dict[str, Any]:
    """What all that makes clips takes."""
    return request.how | {"size": request.size(model), "first": request.number, "shift": request.shift, "preview": preview}


def _generated(request: Request, model: Generator, progress: Progress | None, preview: Preview | None, given: GivenFrames) -> Frames:
    return model.generate([request.prompt], given=given, progress=progress, **_how(request, model, preview))[0]


def _from_text(request: Request, model: Generator, progress: Progress | None, preview: Preview | None) -> Frames:
    return _generated(request, model, progress, preview, {})


def _from_images(request: Request, model: Generator, progress: Progress | None, preview: Preview | None) -> Frames:
    if (frames := request.size(model).frames) == 1:
        raise UserError(f"The task {request.task} makes a video from pictures, not one frame: use more --frames.")
    places = {0: request.image, frames - 1: request.last}
    given = {at: request.picture(path, model) for at, path in places.items() if path is not None}
    if not given:
        raise UserError("The task i2v needs a picture to start from or to end with: give one by --image or --last.")
    return _generated(request, model, progress, preview, given)


def _predicted(request: Request, model: Generator, progress: Progress | None, preview: Preview | None) -> Frames:
    frames = request.size(model).frames
    clip, autoencoder = request.clip(model, frames), model.model.autoencoder
    one = autoencoder.time - autoencoder.lead
    if not request.keep and frames // 2 < one:
        raise UserError(
            f"Half a clip of {frames} frames is no whole group of {one}: use --frames {2 * one} or more, or name what is given by --keep."
        )
    known = ranges(request.keep, frames) if request.keep else list(range(filling(autoencoder, min(len(clip), frames // 2))))
    return _generated(request, model, progress, preview, _part(clip, known, request))


def _completed(request: Request, model: Generator, progress: Progress | None, preview: Preview | None) -> Frames:
    if not request.keep:
        raise UserError("The task complete needs to know which frames are there: say --keep 0-3,12-15, for example.")
    known = ranges(request.keep, request.size(model).frames)
    return _generated(request, model, progress, preview, _part(request.clip(model, known[-1] + 1), known, request))


def _part(clip: Frames, known: list[int], request: Request) -> dict[int, Frames]:
    if not known or known[-1] >= len(clip):
        raise UserError(f"{request.video} has {len(clip)} frames, too few to be given: use a longer one, or --keep fewer, such as 0-3.")
    return {at: clip[at] for at in known}


def _extended(request: Request, model: Generator, progress: Progress | None, preview: Preview | None) -> Frames:
    return WAYS[request.by or "chunks"].make(request, model, progress, preview)


def _in_chunks(request: Request, model: Generator, progress: Progress | None, preview: Preview | None) -> Frames:
    return np.concatenate(list(_chunks(request, model, progress, preview)))


def _chunks(request: Request, model: Generator, progress: Progress | None, preview: Preview | None) -> Iterator[Frames]:
    start = None if request.video is None else request.clip(model)
    frames = request.frames or 2 * max(model.size.frames, 0 if start is None else len(start))
    done = 0
    for part in extended(model, [request.prompt, *request.then], frames, video=start, **_how(request, model, preview)):
        done += len(part)
        if progress:
            progress(min(done, frames), frames)
        yield part


def _in_windows(request: Request, model: Generator, progress: Progress | None, preview: Preview | None) -> Frames:
    prompts, frames = [request.prompt, *request.then], request.frames or 2 * model.size.frames
    return at_once(model, prompts, frames, progress=progress, **_how(request, model, preview))


def _in_a_cascade(request: Request, model: Generator, progress: Progress | None, preview: Preview | None) -> Frames:
    factor = factor_of(model, model.size.frames, request.frames)
    return cascade(model, request.prompt, factor, progress=progress, **_how(request, model, preview))


def _in_a_queue(request: Request, model: Generator, progress: Progress | None, preview: Preview | None) -> Frames:
    frames = request.frames or 2 * model.size.frames
    return rolled(model, request.prompt, frames, progress=progress, **_how(request, model, preview))


def _infilled(request: Request, model: Generator, progress: Progress | None, preview: Preview | None) -> Frames:
    clip = request.clip(model)
    factor = factor_of(model, len(clip), request.frames)
    return infilled(model, request.prompt, clip, factor, progress=progress, **_how(request, model, preview))


def _edited(request: Request, model: Generator, progress: Progress | None, preview: Preview | None) -> Frames:
    clip = request.clip(model, request.frames)
    if request.frames and request.frames > len(clip):
        raise UserError(f"{request.video} has {len(clip)} frames, not {request.frames}: an edit takes at most what is there.")
    clip = clip[: request.frames or len(clip)]
    how: dict[str, Any] = {
        "steps": request.steps,
        "guidance": request.guidance,
        "shift": request.shift,
        "progress": progress,
        "preview": preview,
    }
    if request.before:
        return reworded(model, clip, request.before, request.prompt, **how)
    change = None
    if request.region is not None:
        marked = video.fitted(video.read(request.region)[0], *clip.shape[1:3]).max(-1) > 127
        change = np.array(np.broadcast_to(marked, clip.shape[:3]) if len(marked) == 1 else marked[: len(clip)])
        if not change.any():
            raise UserError(f"--region {request.region} has nothing white in it: paint white what may change.")
    strength = 0.6 if request.strength is None else request.strength
    seeds = {"seed": request.seed, "first": request.number, "negative": request.negative, "sampler": request.sampler}
    return edit(model, clip, request.prompt, strength=strength, change=change, **seeds, **how)


def _upscaled(request: Request, model: Generator, progress: Progress | None, preview: Preview | None) -> Frames:
    assert request.video is not None
    clip, upscale = video.read(request.video, frames=request.frames)[0], model.model.settings.upscale
    if request.frames and request.frames > len(clip):
        raise UserError(f"{request.video} has {len(clip)} frames, not {request.frames}: leave --frames out for all of them.")
    if upscale and request.rows and request.columns:  # of what is made
        lower = upscale.lower(Size(len(clip), request.rows, request.columns))
        clip = video.fitted(clip, lower.rows, lower.columns)
    how = request.how | {"softened": request.softened, "first": request.number, "shift": request.shift}
    return upscaled(model, clip, request.prompt, progress=progress, preview=preview, **how)


TASKS: dict[str, Task] = {
    "t2v": Task("a video from text", (), (), _from_text),
    "t2i": Task("an image from text", (), (), _from_text),
    "i2v": Task("a video that starts with --image, or ends with --last", (), ("image", "last"), _from_images),
    "interpolate": Task("a video from --image to --last", ("image", "last"), (), _from_images),
    "predict": Task("a clip that begins with frames of --video", ("video",), ("keep",), _predicted),
    "complete": Task("a clip around the frames of --video that --keep names", ("video", "keep"), (), _completed),
    "extend": Task("a video of any length, from text or after --video", (), ("video", "then", "by"), _extended),
    "infill": Task("--video with more frames between its own", ("video",), (), _infilled),
    "edit": Task("--video changed as the prompt says", ("video",), ("region", "strength", "before"), _edited),
    "upscale": Task("--video made larger", ("video",), ("softened",), _upscaled),
}
WAYS: dict[str, Task] = {
    "chunks": Task("chunk after chunk, each around the end of the one before", (), ("video", "then"), _in_chunks),
    "windows": Task("as a whole, in windows that overlap and blend", (), ("then",), _in_windows),
    "cascade": Task("a clip of key frames, then the frames between", (), (), _in_a_cascade),
    "queue": Task("frame after frame, from a queue of noisier and noisier ones", (), (), _in_a_queue),
}


def task_of(request: Request) -> str:
    """The task that what is given asks for."""
    if request.video is not None:
        if request.softened is not None and not request.upscale:
            return "upscale"
        edits = request.strength is not None or request.region is not None or bool(request.before)
        if request.upscale and not edits and not request.keep:
            raise UserError(
                "A video with --upscale may be made larger, by --task upscale --model M in place of --upscale M, or first longer, by "
                "--task extend: say which."
            )
        return "edit" if edits else "complete" if request.keep else "extend"
    if request.image is not None and request.last is not None:
        return "interpolate"
    if request.image is not None or request.last is not None:
        return "i2v"
    return "extend" if request.then or request.by else "t2v"


def check(request: Request) -> None:
    """What can be known to be wrong before a model is loaded."""
    if request.task not in TASKS:
        raise UserError(f"There is no task {request.task!r}: use {', '.join(TASKS)}.")
    task = TASKS[request.task]
    if request.upscale and request.task == "upscale":
        raise UserError("--upscale names a second model, for what a first one makes: with the task upscale name it by --model.")
    for name in ("image", "last", "video", "region", "keep", "then", "by", "strength", "before", "softened"):
        there = getattr(request, name) not in (None, "", ())
        if name == "softened" and request.upscale:
            continue
        if name in task.needs and not there:
            raise UserError(f"The task {request.task} ({task.says}) needs --{name}: give it, or another --task.")
        if there and name not in (*task.needs, *task.may):
            users = ", ".join(other for other, what in TASKS.items() if name in (*what.needs, *what.may))
            raise UserError(f"--{name} is not for the task {request.task} ({task.says}): leave it out, or use --task {users}.")
    _check_way(request)
    for name in ("region", "strength", "sampler", "negative") if request.before else ():
        if getattr(request, name) not in (None, ""):
            raise UserError(f"--{name} is not for an edit by --before, which leads the whole video back to its noise: leave one out.")
    for path, _ in map(scaled, request.lora):
        adapters.file_of(path)
    if request.upscale:
        folders.locate(request.upscale)
    for name in INPUTS:
        path = getattr(request, name)
        if path is not None and not path.is_file():
            what = "is no file" if path.exists() else "is not there"
            raise UserError(f"--{name} {path} {what}: name a picture or video that exists.")
    if request.task == "t2i" and request.frames not in (None, 1):
        raise UserError(f"The task t2i makes one frame, not {request.frames}: leave --frames out, or use --task t2v.")
    if request.keep:
        ranges(request.keep, 1 << 20)


def _check_way(request: Request) -> None:
    if request.by and request.by not in WAYS:
        raise UserError(f"There is no way {request.by!r} to a longer video: use --by {', '.join(WAYS)}.")
    way = WAYS[request.by or "chunks"]
    for name in ("video", "then") if request.by else ():
        if getattr(request, name) and name not in way.may:
            users = ", ".join(other for other, what in WAYS.items() if name in what.may)
            raise UserError(f"--{name} is not for --by {request.by} ({way.says}): leave it out, or use --by {users}.")


def scaled(text: str) -> tuple[Path, float]:
    """'folder=0.8' -> the folder and how often it counts."""
    path, _, number = text.rpartition("=")
    try:
        scale = float(number) if path else 1.0
        if not math.isfinite(scale):
            raise ValueError
        return Path(path or text), scale
    except ValueError:
        raise UserError(f"--lora takes a folder or file, or FOLDER=SCALE with a number such as 0.8, not {text!r}.") from None


def ranges(text: str, frames: int) -> list[int]:
    """'0-3,12' -> [0, 1, 2, 3, 12]: frames of a clip of so many."""
    parts = [re.fullmatch(r"\s*(\d{1,7})(?:-(\d{1,7}))?\s*", part) for part in text.split(",")]
    spans = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
    if len(spans) < len(parts) or any(start > stop for start, stop in spans):
        raise UserError(f"--keep takes frames such as 0-3,12-15, not {text!r}.")
    found = sorted({frame for start, stop in spans for frame in range(min(start, frames), min(stop, frames) + 1)})
    if found and found[-1] >= frames:
        raise UserError(f"--keep {text} goes beyond the last frame, {frames - 1}: name frames of the clip.")
    return found
