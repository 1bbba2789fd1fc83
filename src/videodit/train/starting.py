"""What a transformer's run starts from: nothing, or a model that is converted, made deeper, and told of what the run gives."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import nn

from videodit import adapters, backbone, convert, given, models
from videodit.autoencoder import PerFrame
from videodit.backbone import DiT, DualTransformer, SingleTransformer, Transformer
from videodit.convert import from_image
from videodit.convert.deeper import deepened
from videodit.data import sight as sights
from videodit.data import sources, worlds
from videodit.data.buckets import One
from videodit.data.labels import Labels, LabelSettings
from videodit.data.sources import Drawn
from videodit.data.text import TextEncoder, learn_tokenizer, load_tokenizer
from videodit.diffusion.tasks import Mask
from videodit.parallel import sequence
from videodit.shapes import UserError, token_size
from videodit.train import checkpoint, pools
from videodit.train.parts import sight
from videodit.train.progress import note

if TYPE_CHECKING:
    from videodit.train.backbone import BackboneRun

TOKENIZER = "tokenizer.json"
ALL = ("*",)


def starting(settings: BackboneRun, autoencoder: PerFrame) -> nn.ModuleDict:
    """The transformer and its text encoder as the run starts them."""
    suited(settings, autoencoder)
    torch.manual_seed(settings.seed)
    if settings.start is None:
        if settings.lora:
            raise UserError("lora changes a model that is there: give its folder by start=FOLDER, or leave lora out.")
        text, made = _teller(settings), telling(shape(settings, autoencoder.channels), settings)
        pools.check(settings, text)
        fitting(settings, autoencoder, made)
        return nn.ModuleDict({"backbone": backbone.build(made), "text": text})
    image = models.load(settings.start)
    if models.latent_space(image.autoencoder) != models.latent_space(autoencoder):
        raise UserError(f"{settings.start} and {settings.autoencoder} have other latents: convert a model of the same image autoencoder.")
    _same_clips(settings, image, autoencoder)
    _same_objective(settings, image.settings)
    _same_hints(settings, image.settings)
    _same_sight(settings, image)
    pools.check(settings, image.text)
    how, before = settings.conversion, image.backbone
    network: DualTransformer | SingleTransformer = convert.deepen(before, how.depth) if how.depth else before
    _same_layout(settings, image.settings)
    network = convert.inflate(network, how.layout, branch=how.branch) if _converts(image.settings, settings) else network
    network = told(network, settings)
    fitting(settings, autoencoder, network.settings)
    if settings.lora:
        adapters.attach(network, settings.lora)
    freeze(network, settings.learns)
    return nn.ModuleDict({"backbone": network.train(), "text": image.text.requires_grad_(False)})


def learnable(settings: BackboneRun) -> None:
    """Refuse names of what learns where nothing is there to be frozen, or lora says what learns."""
    if not settings.learns:
        raise UserError("learns names what is trained: leave it out to train all of the transformer.")
    if settings.learns != ALL and settings.start is None:
        raise UserError("learns freezes the rest of a model that is there: give its folder by start=FOLDER, or leave learns out.")
    if settings.learns != ALL and settings.lora:
        raise UserError("lora learns its changes alone, whose layers lora.names says: leave learns or lora out.")


def freeze(network: nn.Module, learns: Sequence[str]) -> None:
    """Let only that learn whose own name, or that of something that holds it, is like one of these; what was frozen stays so."""
    if tuple(learns) == ALL:
        return
    names = {name: name.split(".") for name, p in network.named_parameters() if p.requires_grad}
    whole = {name: [".".join(parts[:end]) for end in range(1, len(parts) + 1)] for name, parts in names.items()}
    chosen: set[str] = set()
    for pattern in learns:
        like = {name for name, around in whole.items() if fnmatch.filter(around, pattern)}
        if not like:
            raise UserError(f"learns: nothing that could learn is called {pattern!r}: it is called {', '.join(sorted(names)[:6])}, ...")
        chosen |= like
    for name, p in network.named_parameters():
        p.requires_grad_(name in chosen)


def suited(settings: BackboneRun, autoencoder: PerFrame) -> None:
    """Refuse what does not go with an autoencoder."""
    latents = autoencoder.latents(settings.size)
    if settings.lone == "channels" and autoencoder.time == 1:
        raise UserError("This autoencoder's groups have one frame each, so no picture is less than a group: leave lone=frames.")
    if settings.decoded.weight and latents.frames == 1:
        raise UserError("decoded.weight looks at clips of two latent frames or more: make size longer, or leave it out.")
    if settings.tasks.gives and isinstance(settings.sizes, One) and latents.frames == 1:
        raise UserError("tasks give parts of clips of two latent frames or more: make size longer, or leave them out.")


def fitting(settings: BackboneRun, autoencoder: PerFrame, shape: Transformer | DiT) -> None:
    """Refuse extents that are not whole tokens, or whose tokens the processes of a pass could not share."""
    latents, patch = autoencoder.latents(settings.size), (getattr(shape, "tube", 1), shape.patch, shape.patch)
    token_size(latents, patch)
    parts = settings.parallel.sequence
    if parts == 1 or not isinstance(settings.sizes, One):
        return
    by = sequence.way(shape)
    for frames, behind, held in sorted(_lengths(settings, autoencoder)):
        grid = token_size(latents._replace(frames=frames + behind), patch)
        try:
            if by == "heads" or grid.frames > 1:
                each = settings.times.each != "clip" or (held and settings.given == "time")
                sequence.shared(grid, by, parts, each=each and grid.frames > 1)
        except UserError as error:
            if not held:
                raise
            what = "lone pictures" if behind else "groups of frames"
            raise UserError(f"Where tasks give {what}, {str(error).removesuffix('.')}, or leave such tasks out.") from error


def _lengths(settings: BackboneRun, autoencoder: PerFrame) -> set[tuple[int, int, bool]]:
    """Latent frames of a pass, those of lone pictures behind them, and whether anything is held."""
    found = {(1, 0, False)} if False in settings.joint.kinds else set()
    if True not in settings.joint.kinds:
        return found
    length, frames = settings.size.frames, autoencoder.latents(settings.size).frames
    for mask in settings.tasks.all(frames) or [Mask()]:
        mask = given.placed(autoencoder, mask, frames)
        places = [given.place(autoencoder, length, image) for image in mask.images]
        behind = sum(settings.lone == "frames" or not place.is_integer() for place in places)
        found.add((frames, behind, bool(mask.frames or behind)))
    return found


def _same_clips(settings: BackboneRun, start: models.Model, autoencoder: PerFrame) -> None:
    """A better DP-VAE of the same image autoencoder is taken on purpose, and what was learnt of clips was learnt in other latents."""
    untrained = start.settings.size.frames == 1 or start.settings.provenance.proof is not None
    if not untrained and models.clip_space(start.autoencoder) != models.clip_space(autoencoder):
        note(
            f"{settings.start} learnt clips in other latents than {settings.autoencoder} makes of them and has to learn them anew: "
            f"set autoencoder={settings.start} to go on with its own."
        )


def _same_objective(settings: BackboneRun, start: models.ModelFolder) -> None:
    """A model may learn another objective, if its answers have as many numbers."""
    if start.objective == settings.objective:
        return
    known = f"{settings.start} learnt another objective than this run's: set [objective] as in its model.toml"
    learned = isinstance(start.backbone, DiT) and start.backbone.variance
    if learned != settings.objective.variance:
        raise UserError(f"{known}, whose answers {'have' if learned else 'lack'} a variance.")
    note(f"{known} to keep what it can.")


def _same_hints(settings: BackboneRun, start: models.ModelFolder) -> None:
    """The extra channels tell of a clip at a lower resolution, or of lone pictures."""
    if start.upscale and not settings.upscale:
        raise UserError(f"{settings.start} makes clips larger: go on with upscale.factor={start.upscale.factor}, or from another model.")
    if settings.upscale and start.backbone.hints and not start.upscale:
        raise UserError(f"{settings.start} is told of lone pictures as upscale tells of clips (lone=channels): start from another model.")


def _same_sight(settings: BackboneRun, start: models.Model) -> None:
    """What a picture shows is said in the numbers of one encoder."""
    seer = sight(settings) if settings.sight and start.sight else None
    if seer and start.sight and seer.content != start.sight.content:
        raise UserError(
            f"{settings.start} was told of pictures by another encoder than {settings.sight}: leave sight out to go on with its own."
        )


def _same_layout(settings: BackboneRun, start: models.ModelFolder) -> None:
    """A model that sees time already, or sees pictures alone as before, is not converted."""
    how, shape = settings.conversion, start.backbone
    if _converts(start, settings):
        return
    why = (
        f"{settings.start} sees time already, by {shape.layout}"
        if settings.size.frames > 1
        else "Where size has one frame no model is converted"
    )
    if how.layout not in ("global", shape.layout):
        raise UserError(f"{why}: leave conversion.layout out, or start from images with clips to learn.")
    if not how.branch and (shape.video or settings.size.frames == 1):
        raise UserError(f"{why}: leave conversion.branch out, or start from images with clips to learn.")


def _converts(start: models.ModelFolder, settings: BackboneRun) -> bool:
    """Whether what a run starts from does not see time yet, and has to."""
    shape = start.backbone
    blind = shape.layout == "spatial" or (shape.layout == "global" and start.size.frames == 1)
    return settings.size.frames > 1 and not shape.video and blind


def seen(start: models.ModelFolder, settings: BackboneRun) -> Transformer | DiT:
    """The shape that a run makes of the one it starts from."""
    how = settings.conversion
    shape = deepened(start.backbone, how.depth) if how.depth else start.backbone
    return from_image.inflated(shape, how.layout, branch=how.branch) if _converts(start, settings) else shape


def told(network: DualTransformer | SingleTransformer, settings: BackboneRun) -> DualTransformer | SingleTransformer:
    """The same transformer, told of what the run gives; what tells it by channels starts at zero."""
    shape = telling(network.settings, settings)
    if shape == network.settings:
        return network
    if settings.lora and shape.given == "channels" != network.settings.given:
        raise UserError(
            f"lora learns changes of layers alone, and {settings.start} lacks that of given=channels: set given=time, or leave lora out."
        )
    made, known = backbone.build(shape), network.state_dict()
    if left := sorted({name.split(".")[0] for name in known.keys() - made.state_dict().keys()}):
        note(f"{settings.start} was told by {', '.join(left)} of what is given, and this run tells it otherwise: that part is left out.")
    made.load_state_dict({name: known.get(name, fresh) for name, fresh in made.state_dict().items()})
    return made


def telling(shape: Transformer | DiT, settings: BackboneRun) -> Transformer | DiT:
    """The shape of a transformer that is told of what the run gives."""
    shape = replace(shape, given=settings.given, hints=settings.lone == "channels") if settings.tasks.gives else shape
    shape = replace(shape, hints=True) if settings.upscale else shape
    return replace(shape, picture=sights.width(settings.sight)) if settings.sight else shape


def _teller(settings: BackboneRun) -> TextEncoder | Labels:
    """What tells a transformer that starts from nothing: a text encoder, or labels if it takes them, or nothing."""
    wanted = settings.backbone or backbone.PRESETS.get(settings.preset)
    if isinstance(wanted, DiT):
        return Labels(LabelSettings(names=names(settings) if wanted.labels else ()))
    return TextEncoder(_tokenizer(settings), settings.text)


def _tokenizer(settings: BackboneRun) -> Tokenizer:
    """Of a run that is taken up its own, since captions may have changed; else one that knows the captions' words."""
    kept = settings.output / TOKENIZER
    if kept.is_file() and checkpoint.found(settings.output / "checkpoints"):
        try:
            return load_tokenizer(kept, settings.text)
        except UserError as error:
            raise UserError(f"{kept} is not of these settings of text: set them as they were, or use another output folder.") from error
    if isinstance(settings.data, Drawn):
        return learn_tokenizer(worlds.world(settings.data).sentences(), settings.text)
    return learn_tokenizer((words for item in sources.items(settings.data) for words in item.captions), settings.text)


def keep_tokenizer(text: TextEncoder, output: Path) -> None:
    """Leave it where a run that is taken up finds it."""
    (aside := output / f".{TOKENIZER}").write_text(text.spelling(), encoding="utf-8")
    aside.replace(output / TOKENIZER)


def names(settings: BackboneRun) -> tuple[str, ...]:
    """The labels of a run's data."""
    if isinstance(settings.data, Drawn):
        known = worlds.world(settings.data).names
        if settings.labels not in known:
            raise UserError(f"Things of {settings.data.kind} have no {settings.labels} each: set labels to {' or '.join(known)}.")
        return known[settings.labels]
    if not (found := sources.labels(settings.data)):
        raise UserError(f"{settings.data.path} names no labels: use data.kind=labelled, or another preset.")
    return found


def shape(settings: BackboneRun, channels: int) -> Transformer | DiT:
    """The transformer of a run that starts from nothing."""
    width, video, wanted = settings.text.width, settings.size.frames > 1, settings.backbone or backbone.PRESETS[settings.preset]
    learned = settings.objective.variance
    if isinstance(wanted, DiT):
        return replace(wanted, channels=channels, labels=len(names(settings)) if wanted.labels else 0, variance=learned)
    if learned:
        raise UserError("A transformer of two streams answers with no variance: set objective.variance=false, or a preset of one stream.")
    return replace(wanted, channels=channels, text=width, pooled=width, video=video)
