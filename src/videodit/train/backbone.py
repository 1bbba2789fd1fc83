"""The training of transformers: from nothing (a text encoder learns with it; labels, or nothing, tell a DiT), or on from a model.

Latents are encoded once and kept by content. A step is on clips with probability `joint.video_probability`, else on pictures, at
one resolution and with the same attention.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from videodit import adapters, backbone, kernels, models
from videodit.adapters import LoRA
from videodit.backbone import DiT, DualTransformer, SingleTransformer, Transformer, flops
from videodit.config import setting
from videodit.convert import from_image
from videodit.data.buckets import One, Packed, Sizes
from videodit.data.labels import Labels
from videodit.data.sources import Drawn, Source, Toybox
from videodit.data.text import TextEncoder, TextSettings
from videodit.data.text_sd3 import SD3Text
from videodit.diffusion.guidance import Guidance
from videodit.diffusion.noise import Prior
from videodit.diffusion.objectives import Diffusion, Flow
from videodit.diffusion.schedulers import sampler
from videodit.diffusion.tasks import Tasks, around
from videodit.diffusion.times import Times
from videodit.diffusion.upscaling import Upscale
from videodit.models import ModelFolder, Sampling
from videodit.shapes import Size, Text, UserError, token_size
from videodit.train import checkpoint, retention
from videodit.train.compiling import compile_blocks, evened
from videodit.train.decoded import Decoded, Seen
from videodit.train.latents import Batch, Latents
from videodit.train.looks import Look, Looks, by_time, held, learnt
from videodit.train.mixed import Mixed, Pack, missed
from videodit.train.parts import sight
from videodit.train.recompute import DOC, Recompute, recompute
from videodit.train.retention import COUNT, Questions, Retention
from videodit.train.starting import ALL, keep_tokenizer, learnable, starting
from videodit.train.step import Job, Run, provenance

PASSES = 6  # whose shapes are measured


@dataclass(frozen=True, kw_only=True)
class Joint:
    video_probability: float = setting(0.8, doc="part of the iterations that train on clips; the others train on pictures")
    appended: int = setting(
        0, doc="pictures that train along with every clip, at its time and with words of their own; neither sees the other (LAVITA's)"
    )

    def __post_init__(self) -> None:
        if not 0 <= self.video_probability <= 1:
            raise UserError(f"joint.video_probability takes 0 to 1, not {self.video_probability}.")
        if self.appended > 0 and not self.video_probability:
            raise UserError("joint.appended pictures go along with clips, and this run has none: set joint.video_probability above 0.")

    @property
    def kinds(self) -> list[bool]:
        """What is drawn from: False pictures, True clips."""
        video = self.video_probability
        return [kind for kind, used in ((False, video < 1 or self.appended > 0), (True, video > 0)) if used]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    layout: from_image.Layout = setting(
        "global", doc="who attends to whom: the blocks over the clip, copies of them beside frozen ones, or of a DiT LAVITA's four"
    )
    branch: bool = setting(True, doc="whether the 3D patchify branch is added; without it frames have places in space alone")
    depth: int = setting(0, doc="blocks to have: copies that add nothing at first come between those of `start`; 0: as many as it has")


@dataclass(frozen=True, kw_only=True)
class BackboneRun(Run):
    """Trains a transformer."""

    kind: Literal["backbone"] = "backbone"
    autoencoder: Path = setting(doc="folder of the autoencoder, or toybox for the bundled one")
    start: Path | None = setting(None, doc="folder of an image model to convert; without it the transformer starts from nothing")
    conversion: Conversion = setting(Conversion(), doc="how an image model that is converted sees time")
    preset: str = setting(
        "toybox",
        doc="shape of the transformer where it starts from nothing, a name of backbone.PRESETS; or what `plan` takes for a coming `start`",
    )
    backbone: Transformer | DiT | None = setting(
        None,
        doc="that shape itself, in place of a preset (as which it is unused beside a `start`); channels follow from what it is told",
    )
    text: TextSettings = setting(TextSettings(), doc="the text encoder where it starts from nothing")
    labels: Literal["motion", "shape", "colour"] = setting("motion", doc="what labels name, for a transformer that takes them")
    size: Size = setting(Size(16, 64, 64), doc="frames, rows, columns of a clip")
    fps: float = setting(8.0, doc="frames a second")
    data: Source = setting(Toybox(), doc="where clips and pictures come from")
    sizes: Sizes = setting(
        One(),
        doc="files at `size`, or at about their own: in batches of one extent, or packed into sequences; `batch` is then unused",
    )
    clips: int = setting(12000, doc="clips of a drawn world")
    pictures: int = setting(12000, doc="pictures of a drawn world")
    joint: Joint = setting(Joint(), doc="images and videos together")
    tasks: Tasks = setting(Tasks(), doc="what is given of clips, and how often")
    given: Literal["noise", "channels", "time"] = setting("time", doc="how the transformer is told of it, if anything is given")
    lone: Literal["frames", "channels"] = setting(
        "frames",
        doc="how it is told of lone pictures: as latent frames behind the clip; or, of those that head a group, by extra channels beside "
        "it, which start at zero",
    )
    upscale: Upscale | None = setting(
        None, doc="for a model that makes clips larger: every clip and picture is told of at a lower resolution, by extra channels"
    )
    sight: Path | None = setting(
        None,
        doc="folder of CLIP's image encoder: what a given first frame shows is told to the words; none: that of `start`",
    )
    text_dropout: float = setting(0.1, doc="part of the captions left out, for guidance")
    words: float = setting(
        0.1, doc="weight of telling each word from its own state while the text encoder learns: pictures alone let words of motion go"
    )
    lora: LoRA | None = setting(
        None, doc="low-rank changes of named layers, learnt instead of all weights; left in OUTPUT/lora and merged in OUTPUT/model"
    )
    learns: tuple[str, ...] = setting(
        ALL, doc="names of the transformer's parameters, or of what holds them, that learn; * stands for anything; the rest is frozen"
    )
    kernels: Literal["fixed", "measured"] = setting(
        "fixed", doc="PyTorch's own linear layers, or the fastest of several, measured once and kept in OUTPUT/kernels.json"
    )
    retention: int = setting(
        100, doc="steps between looks at what is left of the image model that a run starts from, logged as image_drift; 0: never"
    )
    recompute: Recompute = setting("none", doc=DOC)
    compiled: bool = setting(False, doc="whether blocks are compiled (torch.compile): minutes before the first step, then faster ones")
    objective: Flow | Diffusion = setting(Flow(), doc="what the transformer answers with")
    times: Times = setting(Times(), doc="which times are trained")
    decoded: Decoded = setting(Decoded(), doc="what the decoder makes of the expected clip, as a loss of its own")
    prior: Prior = setting(Prior(), doc="how alike the noise of frames is")
    sampling: Sampling = setting(Sampling(), doc="the model's defaults of sampling")
    looks: Looks = setting(Looks(), doc="what is seen of the run while it lasts")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clips < 1 or self.pictures < 1:
            raise UserError(
                f"clips and pictures take 1 or more, not {self.clips} and {self.pictures}: joint.video_probability chooses between them."
            )
        if self.backbone is None and self.preset not in backbone.PRESETS:
            raise UserError(f"There is no transformer {self.preset!r}: preset takes {', '.join(backbone.PRESETS)}.")
        if not 0 <= self.text_dropout <= 1 or not 0 < self.fps < math.inf:
            raise UserError(f"text_dropout takes 0 to 1 and fps a number above 0, not {self.text_dropout} and {self.fps}.")
        if not 0 <= self.words < math.inf or self.retention < 0:
            raise UserError(f"words and retention take 0 or more, not {self.words} and {self.retention}.")
        if isinstance(self.objective, Diffusion) and self.times != Times(each=self.times.each):
            raise UserError("A diffusion learns all its levels alike, so of times it takes each alone: leave out the rest (shift is 1).")
        if self.conversion.depth and self.start is None:
            raise UserError("conversion.depth makes a model that is there deeper: set start, or the depth in [backbone].")
        if self.conversion != Conversion() and self.start is None:
            raise UserError("conversion makes a video model of an image model that is there: set start, or the layout in [backbone].")
        if self.lora and (self.sight or self.upscale or self.lone == "channels"):
            raise UserError("lora learns changes of layers alone, and lone=channels, upscale and sight add layers: leave one of them out.")
        learnable(self)
        if self.upscale and (self.tasks.gives or not isinstance(self.sizes, One)):
            raise UserError("upscale tells of whole clips of one size: leave tasks, and sizes.kind other than one, out.")
        if self.looks.data and isinstance(self.data, Drawn):
            raise UserError("Of a drawn world looks see what it holds out: leave looks.data out, which is for a run on files.")
        if self.upscale and self.looks.every:
            raise UserError("looks make clips from words alone, and upscale tells of clips: leave looks.every at 0.")
        if self.upscale:
            self.upscale.lower(self.size)
        if self.joint.appended < 0:
            raise UserError(f"joint.appended takes 0 or more pictures, not {self.joint.appended}.")
        if self.joint.appended and not isinstance(self.sizes, One):
            raise UserError(f"sizes.kind={self.sizes.kind} mixes pictures and clips by itself: leave joint.appended out.")
        if self.tasks != Tasks() and not self.joint.video_probability:
            raise UserError("tasks are of clips, and this run has pictures alone: leave them out, or set joint.video_probability above 0.")
        if self.tasks.clips != Tasks().clips and not isinstance(self.data, Drawn):
            raise UserError("tasks.clips counts clips of drawn worlds, and of files all are encoded for tasks: leave tasks.clips out.")
        if self.lone == "channels" and not self.tasks.first + self.tasks.both + self.tasks.keys:
            raise UserError("lone=channels is for pictures that head a group: set tasks.first, tasks.both or tasks.keys above 0.")
        if self.prior.lows and not self.tasks.begins:
            raise UserError("prior.lows lends noise a given first frame: set tasks.first, tasks.both, tasks.keys or tasks.prefix above 0.")
        if self.sight and not self.tasks.begins:
            raise UserError("sight is for first frames that are given: set tasks.first, tasks.both, tasks.keys or tasks.prefix above 0.")
        if self.decoded.weight and not isinstance(self.sizes, One):
            raise UserError(f"decoded.weight looks at clips of one size, not at sizes.kind={self.sizes.kind}: leave one of them out.")
        if self.decoded.weight and not self.joint.video_probability:
            raise UserError("decoded.weight looks at clips, and this run has pictures alone: set joint.video_probability above 0.")
        if self.compiled and self.kernels == "measured":
            raise UserError("A compiled block calls no kernels that were measured: set compiled=false, or kernels=fixed.")
        if not isinstance(self.sizes, One) and isinstance(self.data, Drawn):
            raise UserError(f"sizes.kind={self.sizes.kind} is for files: name them by data.kind and data.path.")
        if isinstance(self.sizes, Packed) and self.tasks.gives:
            raise UserError("Of clips that are packed nothing is given: leave tasks out, or set sizes.kind=buckets.")

    @property
    def digest(self) -> str:
        """How a run is looked at decides no step."""
        return super().digest if self.looks == Looks() else replace(self, looks=Looks()).digest


def job(settings: BackboneRun) -> Job:
    sampler(settings.sampling.sampler)  # which says now if there is none of that name
    autoencoder = models.load_autoencoder(settings.autoencoder, settings.device)
    network = starting(settings, autoencoder).to(settings.device)
    text, transformer = network["text"], network["backbone"]
    assert isinstance(text, TextEncoder | SD3Text | Labels) and isinstance(
        transformer, backbone.DualTransformer | backbone.SingleTransformer
    )
    one = isinstance(settings.sizes, One)
    recompute(transformer.blocks, settings.recompute)
    if settings.compiled:
        compile_blocks(transformer.blocks, settings.device, alike=one)
    seer = sight(settings)
    frozen = text if settings.start and not isinstance(text, Labels) else None
    data = (Latents if one else partial(Mixed, shape=transformer.settings))(settings, autoencoder, frozen, text.takes)
    gauge = _gauge(settings, transformer, data, text)
    look_at = settings.decoded.of(autoencoder)
    lookers = settings.parallel.shard  # processes that share weights compute together

    def loss(step: int, batch: Batch | Pack) -> tuple[Tensor, dict[str, Tensor]]:
        batch = _on(batch, settings.device)
        words = batch.text if isinstance(batch.text, Text) else text(batch.text)
        if settings.lora and settings.lora.dropout:
            torch.manual_seed(settings.seed * 1_000_003 + step)
        miss: Any = missed if isinstance(batch, Pack) else partial(_missed, look=look_at)
        error, figures = miss(settings.objective, transformer, batch, evened(words) if settings.compiled else words)
        figures |= _work(settings, transformer, batch.clean, words)
        if isinstance(batch, Batch) and batch.appended is not None:
            error, figures = _appended(settings, transformer, batch, text, error, figures)
        if gauge is not None and step % (settings.retention * settings.accumulate) < lookers:
            figures["image_drift"] = gauge.drift(transformer)
        if isinstance(batch.text, Text) or not isinstance(text, TextEncoder) or not settings.words:
            return error, figures
        confusion = text.confusion(batch.text, words)
        return error + settings.words * confusion, {**figures, "words": confusion.detach()}

    if settings.kernels == "measured":
        mixed = torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=settings.precision == "bf16")

        def few() -> None:  # pictures and clips
            for step, batch in enumerate(map(data.batch, range(PASSES))):
                with mixed:
                    loss(step, batch)

        kernels.settle(transformer, few, learning=True, kept=settings.output / "kernels.json")

    def model() -> models.Model:
        return models.Model(_described(settings, text, transformer), autoencoder, text, transformer, seer)

    def save(folder: Path) -> None:
        whole = model()
        if settings.lora:
            adapters.save(folder.with_name("lora"), transformer)
            whole = replace(whole, backbone=adapters.merged(transformer))
        models.save(folder, replace(whole, settings=replace(whole.settings, provenance=provenance(settings))))

    moving = data.pools[settings.joint.video_probability > 0]
    look = Look(settings, model, held(settings, autoencoder, text.takes), learnt(settings, moving)) if settings.looks.every else None
    keep = partial(_keep, settings, text, gauge)
    return Job(network=network, batch=data.batch, loss=loss, save=save, named=lambda batch: batch.names, look=look, keep=keep)


def _keep(settings: BackboneRun, text: TextEncoder | SD3Text | Labels, gauge: Retention | None, output: Path) -> None:
    """What a run that is taken up finds beside its checkpoints."""
    if isinstance(text, TextEncoder) and settings.start is None:
        keep_tokenizer(text, output)
    if gauge is not None:
        retention.keep(gauge.asked, output)


def _described(
    settings: BackboneRun, text: TextEncoder | SD3Text | Labels, transformer: DualTransformer | SingleTransformer
) -> ModelFolder:
    """The model as it stands, without where it comes from."""
    return ModelFolder(
        size=settings.size,
        fps=settings.fps,
        text=text.settings,
        backbone=transformer.settings,
        objective=settings.objective,
        times=settings.times,
        prior=settings.prior,
        upscale=settings.upscale,
        sampling=settings.sampling if text.takes != "nothing" else replace(settings.sampling, guidance=Guidance(scale=1.0)),
    )


def _on(batch: Batch | Pack, device: str) -> Batch | Pack:
    """The same on a device; captions stay."""
    text = batch.text.map(lambda x: x.to(device)) if isinstance(batch.text, Text) else batch.text
    if isinstance(batch, Pack):
        clean, noise = ([x.to(device) for x in grids] for grids in (batch.clean, batch.noise))
        return Pack(clean, text, batch.times.to(device), noise, batch.names)
    given = None if batch.given is None else batch.given.to(device)
    appended = None if batch.appended is None else _on(batch.appended, device)
    assert not isinstance(appended, Pack)
    return Batch(batch.clean.to(device), text, batch.times.to(device), batch.noise.to(device), given, appended, batch.names)


def _missed(
    objective: Flow | Diffusion, transformer: DualTransformer | SingleTransformer, batch: Batch, text: Text, look: Seen | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """By how much the answers miss, where nothing is given; `look` sees what they expect of clips."""
    clean, noise, t, given = batch.clean, batch.noise, batch.times, batch.given
    network = transformer if given is None else around(transformer, given)
    noisy = objective.corrupt(clean, noise, t)
    output = network(noisy, objective.clock(t), text)
    error = objective.loss(output.float(), clean, noise, t)
    figures = {} if given is not None and given.holds else by_time("loss", error.detach().flatten(1).mean(1), t)
    error = error.mean() if given is None else error.mul(1 - given.mask).mean() / (1 - given.mask).mean()
    figures |= {"video" if clean.shape[2] > 1 else "image": error.detach()}
    if look is not None and clean.shape[2] > 1:
        expected = objective.expected(output.float(), noisy, t)
        beside, told = look(expected if given is None else given.hold(expected), clean, t)
        return error + beside, figures | told
    return error, figures


def _appended(
    settings: BackboneRun,
    transformer: DualTransformer | SingleTransformer,
    batch: Batch,
    text: TextEncoder | SD3Text | Labels,
    error: Tensor,
    figures: dict[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """With the pictures that train along, each by itself, which is all that one behind a clip would see; every frame counts alike."""
    assert batch.appended is not None
    along, frames, pictures = batch.appended, batch.clean.shape[2], settings.joint.appended
    words = along.text if isinstance(along.text, Text) else text(along.text)
    missed, told = _missed(settings.objective, transformer, along, words)
    work = {name: figures[name] + value for name, value in _work(settings, transformer, along.clean, words).items()}
    return (frames * error + pictures * missed) / (frames + pictures), {**figures, **work, "image": told["image"]}


def _work(
    settings: BackboneRun, network: DualTransformer | SingleTransformer, clean: Tensor | list[Tensor], words: Text
) -> dict[str, Tensor]:
    """Tokens, and multiply-adds forward and backward, of a step of such passes."""
    sizes = Counter(Size(*x.shape[1:]) for x in clean)
    patch = (getattr(network.settings, "tube", 1), network.settings.patch, network.settings.patch)
    said = 0 if words.sequence is None else words.sequence.shape[1]
    tokens = sum(count * token_size(size, patch).count for size, count in sizes.items())
    operations = sum(count * 3 * flops.cost(network.settings, size, said).total for size, count in sizes.items())
    return {name: torch.tensor(float(each * settings.accumulate)) for name, each in (("tokens", tokens), ("operations", operations))}


def _gauge(
    settings: BackboneRun, transformer: DualTransformer | SingleTransformer, data: Latents, text: TextEncoder | SD3Text | Labels
) -> Retention | None:
    """Of runs that start from a model, on the first pictures of their data; of one that is taken up, on those it began with."""
    if settings.start is None or not settings.retention or False not in data.pools:
        return None
    begun = retention.kept(settings.output) if checkpoint.found(settings.output / "checkpoints") else None
    pictures, words, answers = begun or _questions(data, text)
    flow, to = settings.objective.flow, settings.device
    asked = Questions(pictures.to(to), words.map(lambda x: x.to(to)), None if answers is None else answers.to(to))
    with torch.autocast(torch.device(to).type, torch.bfloat16, enabled=settings.precision == "bf16"):  # as it is asked in a step
        return Retention(transformer, lambda network, x, t, text: flow(network)(x, t, text), asked)


def _questions(data: Latents, text: TextEncoder | SD3Text | Labels) -> Questions:
    """The first pictures of one extent, and what is said of them."""
    pool = data.pools[False]
    which = pool.alike(COUNT)
    pictures = pool.together(which).float()
    rows = np.array([pool.whose[i][0] if pool.whose else i for i in which])
    if isinstance(text, Labels):
        return Questions(pictures, text([pool.captions[row] for row in rows]))
    return Questions(pictures, data.features[False].of(rows, data.features[False].longest))
