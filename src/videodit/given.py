"""Given frames, or a whole clip at a lower resolution -> given latents. What is given is encoded from its own pixels alone: latents cut
out of a whole clip know its future.

Frames that fill groups of the autoencoder's are given as those groups' latents; each run of groups is encoded by itself. Any other
frame is a lone picture; of one that heads a group, the group's z_k is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from videodit.autoencoder import DPVAE, PerFrame
from videodit.diffusion.tasks import Given, Mask

Video = Float[Tensor, "b c t h w"]
Latents = Float[Tensor, "b _ f _ _"]


def mask_of(autoencoder: PerFrame, frames: Iterable[int]) -> Mask:
    """Which latents so many given frames are: whole groups, and what is left as lone pictures."""
    left, whole, group = set(frames), [], 0
    while left and group * autoencoder.time - autoencoder.lead <= max(left):
        start, stop = _span(autoencoder, group, group + 1)
        if left.issuperset(range(start, stop)):
            whole.append(group)
            left -= set(range(start, stop))
        group += 1
    return Mask(tuple(whole), tuple(sorted(left)))


def encode_run(autoencoder: PerFrame, video: Video, start: int, stop: int) -> Latents:
    """The latents of groups `start` to `stop`, from their own frames alone."""
    first, last = _span(autoencoder, start, stop)
    frames = video[:, :, first:last]
    if start and autoencoder.lead and isinstance(autoencoder, DPVAE):  # what begins here is no first frame that stands alone
        return autoencoder.encode_step(frames).mode()
    return autoencoder.encode(frames).mode()


def encode_picture(autoencoder: PerFrame, video: Video, frame: int) -> Latents:
    """One frame by the image encoder."""
    at = frame % video.shape[2]
    return autoencoder.encode_image(video[:, :, at : at + 1]).mode()


def encode_low(autoencoder: PerFrame, video: Video, factor: int) -> Latents:
    """A clip as it looks at a resolution that many times lower."""
    return autoencoder.encode(enlarged(reduced(video, factor), factor).to(video)).mode()


def reduced(video: Video, factor: int) -> Video:
    """The means of squares of so many rows and columns, as files have them: in 8 bits."""
    frames = F.avg_pool2d(rearrange(video.float(), "b c t h w -> (b t) c h w"), factor)
    return rearrange(((frames + 1) * 127.5).round() / 127.5 - 1, "(b t) c h w -> b c t h w", b=len(video))


def enlarged(video: Video, factor: int) -> Video:
    """So many times as many rows and columns, bicubic."""
    frames = F.interpolate(rearrange(video, "b c t h w -> (b t) c h w"), scale_factor=factor, mode="bicubic")
    return rearrange(frames.clamp(-1, 1), "(b t) c h w -> b c t h w", b=len(video))


def assembled(
    mask: Mask,
    frames: int,
    place: Callable[[int], float],
    run: Callable[[int, int], Latents],
    picture: Callable[[int], Latents],
    *,
    hints: bool = False,
) -> Given | None:
    """What a mask gives of a clip of so many latent frames, from the latents of its runs and pictures.

    `hints`: a picture that heads a group is a hint beside it. Others stand behind the clip.
    """
    runs = {span: run(*span) for span in mask.runs}
    pictures = {place(frame): picture(frame) for frame in mask.images}
    if not runs and not pictures:
        return None
    like = next(iter([*runs.values(), *pictures.values()]))
    latents = like.new_zeros(*like.shape[:2], frames, *like.shape[3:])
    held = torch.zeros_like(latents[:, :1])
    for (start, stop), clean in runs.items():
        latents[:, :, start:stop], held[:, :, start:stop] = clean, 1
    heads = {int(at): pictures.pop(at) for at in list(pictures) if hints and at.is_integer()}
    images = torch.cat(list(pictures.values()), dim=2) if pictures else latents[:, :, :0]
    hint = torch.cat([torch.zeros_like(held), torch.zeros_like(latents)], dim=1) if heads else None
    for group, clean in heads.items():
        assert hint is not None
        hint[:, :1, group], hint[:, 1:, group] = 1, clean[:, :, 0]
    return Given(held, latents, images, tuple(pictures), hint)


def place(autoencoder: PerFrame, frames: int, frame: int) -> float:
    """Where a frame of a clip of so many stands, counted in latent frames."""
    return (frame % frames + autoencoder.lead) / autoencoder.time


def placed(autoencoder: PerFrame, mask: Mask, frames: int) -> Mask:
    """The mask, of so many latent frames, with every picture by the number of its frame; one that fills a group by itself is that group."""
    mask, length = mask.placed(autoencoder.time, autoencoder.lead), frames * autoencoder.time - autoencoder.lead
    fills = {image: mask_of(autoencoder, [image % length]).frames for image in mask.images}
    whole = sorted({*mask.frames}.union(*fills.values()))[: frames - 1]  # something is left to be learnt
    return Mask(tuple(whole), tuple(image for image in mask.images if not fills[image]))


def filling(autoencoder: PerFrame, frames: int) -> int:
    """How many of so many first frames fill groups: those of one group at least."""
    missing = autoencoder.lead
    return max((frames + missing) // autoencoder.time, 1) * autoencoder.time - missing


def frames_of(autoencoder: PerFrame, groups: Iterable[int], frames: int) -> list[int]:
    """The frames of groups of a clip of so many: `mask_of` makes the groups of them again."""
    spans = (_span(autoencoder, group, group + 1) for group in groups)
    return [at for start, stop in spans for at in range(start, min(stop, frames))]


def _span(autoencoder: PerFrame, start: int, stop: int) -> tuple[int, int]:
    """The frames of groups."""
    missing = autoencoder.lead
    return max(start * autoencoder.time - missing, 0), stop * autoencoder.time - missing
