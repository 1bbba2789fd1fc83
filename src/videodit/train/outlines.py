"""A run without its data: what learns, the passes of a step, what is encoded before; built on whatever device is the default.

On the meta device it costs nothing and counts; with random weights it can be timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videodit import adapters, backbone, folders, models
from videodit.autoencoder import DPVAE, PerFrame, inflate
from videodit.autoencoder.discriminator import PatchDiscriminator, fools, tells
from videodit.autoencoder.loss import Draw, dpvae_loss
from videodit.autoencoder.presets import PRESETS
from videodit.backbone import DiT, Transformer
from videodit.convert.deeper import deepened
from videodit.data import worlds
from videodit.data.buckets import One, Packed
from videodit.data.sources import Drawn, Source
from videodit.data.text import TextEncoder, TextSettings, load_tokenizer
from videodit.given import placed
from videodit.shapes import Size, Text, UserError, latent_size, token_size
from videodit.train import image_autoencoder, starting
from videodit.train.autoencoder import AutoencoderRun, goes_on
from videodit.train.backbone import BackboneRun
from videodit.train.decoder import DecoderRun
from videodit.train.image_autoencoder import ImageAutoencoderRun
from videodit.train.mixed import fits, mean
from videodit.train.parts import ENCODE
from videodit.train.recompute import recompute

Recipe = ImageAutoencoderRun | AutoencoderRun | BackboneRun | DecoderRun
Pass = Callable[[], Tensor]
WORDS_OF_SD3 = 77 + 256
LOOKED_AT = 200  # captions, for how long they are


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is encoded before the first step and then kept, on disk."""

    clips: int = 0
    encode: Pass | None = None  # of ENCODE clips
    size: int | None = 0  # in bytes; none where it cannot be known


@dataclass(frozen=True, kw_only=True)
class Outline:
    network: nn.Module
    extent: dict[str, Any]
    passes: list[tuple[float, Pass]]  # how often each kind comes, and its loss
    clips: float  # clips or pictures of a pass, on average
    kept: Kept = field(default_factory=Kept)


def outline(settings: Recipe, assumed: list[str]) -> Outline:
    """`assumed` hears what could not be looked up."""
    return _KINDS[settings.kind](settings, assumed)


def _image_autoencoder(settings: ImageAutoencoderRun, assumed: list[str]) -> Outline:
    shape = image_autoencoder.shape(settings)
    image = shape.build()
    network = PerFrame(image).train().requires_grad_(True)

    def loss() -> Tensor:
        x = torch.randn(settings.batch, 3, *settings.size)
        posterior = network.encode(x)
        error = network.decode(posterior.mean + posterior.std).float() - x
        return error.square().mean() + error.abs().mean() + (posterior.mean.square() - posterior.std.log()).mean()

    extent = {"latents": list(latent_size(settings.size, space=shape.space, time=1))}
    return Outline(network=image, extent=extent, passes=[(1.0, loss)], clips=float(settings.batch))


def _autoencoder(settings: AutoencoderRun, assumed: list[str]) -> Outline:
    if settings.start is not None and settings.start.is_dir():
        goes_on(settings, models.describe(settings.start))
    network = inflate(_described(settings.image, settings.world, assumed).image.build(), settings.groups)
    for part in (network.encoder, network.decoder):
        recompute(part.stages, settings.recompute)
    critic = PatchDiscriminator(settings.critics.discriminator) if settings.weights.adversarial else None

    def loss() -> Tensor:
        video = network.whole_groups(torch.randn(settings.batch, 3, *settings.size))
        noise = torch.randn(settings.batch, network.channels, *network.latents(settings.size))
        heard = None if critic is None else partial(fools, critic)
        out = dpvae_loss(network, video, Draw(noise), settings.weights, critic=heard)
        return out.total if critic is None else out.total + tells(critic, video, out.rebuilt.detach())

    extent: dict[str, Any] = {"latents": list(network.latents(settings.size))}
    if critic is None:
        return Outline(network=network, extent=extent, passes=[(1.0, loss)], clips=float(settings.batch))
    extent["discriminator"] = sum(p.numel() for p in critic.parameters())
    return Outline(
        network=nn.ModuleDict({"network": network, "critic": critic}), extent=extent, passes=[(1.0, loss)], clips=float(settings.batch)
    )


def _backbone(settings: BackboneRun, assumed: list[str]) -> Outline:
    autoencoder = _described(settings.autoencoder, settings.data, assumed).build()
    starting.suited(settings, autoencoder)
    shape, text = starting.shape(settings, autoencoder.channels), settings.text
    if settings.start is not None and (str(settings.start) == "toybox" or (settings.start / "model.toml").is_file()):
        folder = models.read(settings.start, models.ModelFolder)[1]
        shape, text = starting.seen(folder, settings), folder.text
    elif settings.start is not None:
        assumed.append(f"{settings.start} is not there yet; the preset {settings.preset} is assumed")
        shape = deepened(shape, depth) if (depth := settings.conversion.depth) else shape
    shape, latents = starting.telling(shape, settings), autoencoder.latents(settings.size)
    starting.fitting(settings, autoencoder, shape)
    built = backbone.build(shape)
    recompute(built.blocks, settings.recompute)
    network = nn.ModuleDict({"backbone": built})
    if settings.lora:
        adapters.attach(built, settings.lora)
    starting.freeze(built, settings.learns)
    # the features of encoders as large as SD3's are cached before the run, and labels are in the transformer
    if isinstance(shape, Transformer) and isinstance(text, TextSettings):
        network["text"] = TextEncoder(None, text).requires_grad_(settings.start is None)

    words = _words(settings, text) if isinstance(text, TextSettings) else WORDS_OF_SD3
    tokens = token_size(latents, (getattr(shape, "tube", 1), shape.patch, shape.patch)).count
    extent: dict[str, Any] = {"latents": list(latents), "tokens": tokens, **_visits(settings)}
    missed = partial(_missed, settings, built, shape, words, (autoencoder.channels, *latents))
    if isinstance(settings.sizes, One):
        passes = _passes(settings, missed, latents.frames, _beside(settings, missed, autoencoder))
        clips = settings.batch * (1 + settings.joint.appended * settings.joint.video_probability)
    else:
        fits(settings, shape)
        assumed.append(f"every file is taken to have the run's size: sizes.kind={settings.sizes.kind} deals them as they are")
        passes, clips, extent["pass_tokens"] = _dealt(settings, missed, tokens, tokens // latents.frames)
    return Outline(network=network, extent=extent, passes=passes, clips=clips, kept=_kept(settings, autoencoder, shape, words, assumed))


def _visits(settings: BackboneRun) -> dict[str, float]:
    """How often a clip of a drawn world is learnt, and one of which something is given."""
    if not isinstance(settings.data, Drawn) or not settings.joint.video_probability:
        return {}
    given = 1 - settings.tasks.none / sum(settings.tasks.weights.values())
    drawn = settings.steps * settings.accumulate * settings.batch * settings.joint.video_probability
    found = {"clip_visits": drawn * (1 - given) / settings.clips}
    return found | ({"given_visits": drawn * given / min(settings.tasks.clips, settings.clips)} if given else {})


def _passes(settings: BackboneRun, missed: Callable[..., Tensor], frames: int, beside: list[Pass]) -> list[tuple[float, Pass]]:
    """Pictures, and clips by what is given of them: nothing, groups of frames, or so many pictures behind them; `beside`: with each."""
    video, every = settings.joint.video_probability, sum(settings.tasks.weights.values())
    rates = [(1 - video, partial(missed, settings.batch, moves=False))]
    behind: dict[str, int | None] = {"none": None, "first": 1, "last": 1, "both": 2, "keys": (frames + 1) // 2}
    behind |= {"first": 0, "both": 1, "keys": 0} if settings.lone == "channels" else {}
    shares: dict[int | None, float] = {}
    for name, weight in settings.tasks.weights.items():
        given = behind.get(name, 0)
        shares[given] = shares.get(given, 0.0) + video * weight / every
    for given, share in sorted(shares.items(), key=lambda item: -1 if item[0] is None else item[0]):
        rates.append((share, partial(_summed, [partial(missed, settings.batch, given=given), *beside])))
    return [(rate, one) for rate, one in rates if rate]


def _beside(settings: BackboneRun, missed: Callable[..., Tensor], autoencoder: PerFrame) -> list[Pass]:
    """What goes with every pass of clips: pictures that train along, and what the decoder makes of some."""
    beside: list[Pass] = [partial(missed, settings.batch * settings.joint.appended, moves=False)] if settings.joint.appended else []
    if settings.decoded.of(autoencoder) and isinstance(autoencoder, DPVAE):
        grid = (min(settings.batch, settings.decoded.clips), autoencoder.channels, *autoencoder.latents(settings.size))
        beside.append(lambda: settings.decoded.apart(autoencoder, torch.randn(*grid, requires_grad=True), torch.randn(*grid)))
    return beside


def _summed(passes: list[Pass]) -> Tensor:
    return torch.stack([one() for one in passes]).sum()


def _dealt(settings: BackboneRun, missed: Callable[..., Tensor], clip: int, picture: int) -> tuple[list[tuple[float, Pass]], float, int]:
    """Passes of clips of these tokens and of pictures, what they hold on average, and the tokens of the fullest."""
    assert not isinstance(settings.sizes, One)
    budget, video = settings.sizes.tokens, settings.joint.video_probability
    if (least := clip if video else picture) > budget:
        raise UserError(f"A clip of {settings.size} is {least} tokens, above sizes.tokens={budget}: raise it, or lower size.")
    each = video * clip + (1 - video) * picture
    if isinstance(settings.sizes, Packed):  # a sequence of both
        clips = min(max(round(budget / each * video), int(video > 0)), budget // clip)
        pictures = (budget - clips * clip) // picture if video < 1 else 0
        return [(1.0, partial(missed, clips, beside=pictures))], budget / each, clips * clip + pictures * picture
    kinds = [(size, budget // size, rate * size / each) for size, rate in ((clip, video), (picture, 1 - video)) if rate]
    passes = [(share, partial(missed, count, moves=size == clip)) for size, count, share in kinds]
    return passes, sum(count * share for _, count, share in kinds), max(count * size for size, count, _ in kinds)


def _decoder(settings: DecoderRun, assumed: list[str]) -> Outline:
    """Without what samples the clips back."""
    size = Size(16, 64, 64)
    if str(settings.model) == "toybox" or settings.model.is_dir():
        size = models.read(settings.model, models.ModelFolder)[1].size
    autoencoder = _described(settings.model, settings.world, assumed).build()
    if not isinstance(autoencoder, DPVAE):
        raise UserError(f"{settings.model} decodes frame by frame: there is nothing to train.")
    network, grid = autoencoder.requires_grad_(False).decoder.requires_grad_(True), autoencoder.latents(size)
    recompute(network.stages, settings.recompute)

    def loss() -> Tensor:
        return autoencoder.decode_step(torch.randn(settings.batch, autoencoder.channels, *grid)).float().square().mean()

    kept = Kept(size=2 * 2 * settings.clips * autoencoder.channels * grid.count)
    return Outline(network=network, extent={"latents": list(grid)}, passes=[(1.0, loss)], clips=float(settings.batch), kept=kept)


def _missed(
    settings: BackboneRun,
    network: Any,
    shape: Transformer | DiT,
    words: int,
    grid: tuple[int, ...],
    clips: int,
    *,
    moves: bool = True,
    given: int | None = None,
    beside: int | None = None,
) -> Tensor:
    """A velocity, and by how much it misses; `given`: so many pictures stand behind each clip; `beside`: so many share its sequence."""
    grid = grid if moves else (grid[0], 1, *grid[2:])
    count = clips + (beside or 0)
    t = torch.rand(count) if settings.times.each == "clip" else torch.rand(count, grid[1])
    if isinstance(shape, Transformer):
        text = Text(sequence=torch.randn(count, words, shape.text), pooled=torch.randn(count, shape.pooled))
    else:
        text = Text(label=torch.zeros(count, dtype=torch.long)) if shape.labels else Text()
    if beside is not None:
        noisy = [torch.randn(*grid) for _ in range(clips)] + [torch.randn(grid[0], 1, *grid[2:]) for _ in range(beside)]
        return mean([(one.float() - clean).square() for one, clean in zip(network(noisy, t, text), noisy, strict=True)])
    noisy = torch.randn(clips, *grid)
    if given is None:
        hint = {"hint": torch.randn(clips, 1 + grid[0], *grid[1:])} if settings.upscale else {}
        return (network(noisy, t, text, **hint).float() - noisy).square().mean()
    held, frames = torch.zeros(clips, 1, *grid[1:]), grid[1] + given  # as tasks.around does
    whole = torch.cat([torch.where(held > 0, torch.randn(clips, *grid), noisy), torch.randn(clips, grid[0], given, *grid[2:])], dim=2)
    mask = torch.ones(clips, 1, frames, *grid[2:]) if settings.given == "channels" else None
    times = torch.rand(clips, frames) if settings.given == "time" or t.ndim == 2 else t
    when = [*range(grid[1]), *(0.0 for _ in range(given))] if given else None
    velocity = network(whole, times, text, mask, when=when)[:, :, : grid[1]] * (1 - held)
    return (velocity.float() - noisy).square().mul(1 - held).mean()


def _words(settings: BackboneRun, text: TextSettings) -> int:
    """Tokens of the longest caption: the tokenizer of the model that a run starts from counts them, else each word is one; and a start."""
    if not isinstance(settings.data, Drawn):
        return text.length
    world = worlds.world(settings.data)
    captions = [world.sentence(settings.seed, i) for i in range(LOOKED_AT)]
    path = (folders.bundled() if str(settings.start) == "toybox" else settings.start or Path()) / "tokenizer.json"
    tokenizer = load_tokenizer(path, text) if settings.start and path.is_file() else None
    counts = (len(tokenizer.encode(caption).ids) if tokenizer else len(caption.split()) for caption in captions)
    return min(text.length, 1 + max(counts))


def _kept(settings: BackboneRun, autoencoder: PerFrame, shape: Transformer | DiT, words: int, assumed: list[str]) -> Kept:
    """Latents in half precision, what tasks may give of them, and features of words."""

    def encode() -> Tensor:
        precision = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        with torch.no_grad():
            return autoencoder.encode(torch.randn(ENCODE, 3, *settings.size).to(precision)).mode()

    latents = autoencoder.latents(settings.size)
    place = 2 * autoencoder.channels * latents.rows * latents.columns
    video, still = settings.joint.video_probability, False in settings.joint.kinds
    filed = not isinstance(settings.data, Drawn)  # of files one clip, or one picture where there are no clips
    clips, pictures = (int(video > 0), int(video == 0)) if filed else (settings.clips * (video > 0), settings.pictures * still)
    size, frames = place * (clips * latents.frames + pictures), clips * settings.size.frames + pictures
    if settings.tasks.gives and clips:
        masks = [placed(autoencoder, mask, latents.frames) for mask in settings.tasks.all(latents.frames)]
        told = min(settings.tasks.clips, clips)
        runs, lone = {run for mask in masks for run in mask.runs}, {frame for mask in masks for frame in mask.images}
        groups = sum(stop - start for start, stop in runs)
        size += place * told * (groups + len(lone))
        frames += told * (groups * (autoencoder.time if isinstance(autoencoder, DPVAE) else 1) + len(lone))
    if settings.upscale:
        size, frames = 2 * size, 2 * frames
    if settings.start is not None and isinstance(shape, Transformer):
        size += (clips + pictures) * (2 * words * shape.text + 2 * shape.pooled + words)  # and a mask
    if not isinstance(settings.data, Drawn):
        path, what = settings.data.path, "clips" if clips else "pictures"
        assumed.append(f"how many {what} {path} gives is not looked up, which videodit audit {path} says: each keeps up to {size:,} bytes")
        return Kept(encode=encode, size=None)
    return Kept(clips=-(-frames // settings.size.frames), encode=encode, size=size)


def _described(folder: Path, source: Source, assumed: list[str]) -> models.DPVAEFile | models.PerFrameFile:
    """The autoencoder that a folder holds, or the drawn world's where an earlier stage has still to make it."""
    if folder.is_dir() or str(folder) == "toybox":
        return models.describe(folder)
    name = source.kind if source.kind in PRESETS else "toybox"
    assumed.append(f"{folder} is not there yet; the autoencoder of the {name} is assumed")
    return models.DPVAEFile(image=PRESETS[name])


_KINDS: dict[str, Callable[[Any, list[str]], Outline]] = {
    "image-autoencoder": _image_autoencoder,
    "autoencoder": _autoencoder,
    "backbone": _backbone,
    "decoder": _decoder,
}
