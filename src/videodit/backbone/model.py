"""The network: a latent grid, a time and a text in; the predicted velocity, a grid of the same size, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from videodit.backbone.appended import Texts, appended
from videodit.backbone.arrangements import blocks
from videodit.backbone.blocks import DualBlock, PictureBranch, TimeBlock, shown
from videodit.backbone.conditioning import (
    GIVEN_DOC,
    HINTS_DOC,
    PICTURE_DOC,
    Given,
    Modulation,
    Signal,
    for_words,
    frame_times,
    modulate,
    of_video,
)
from videodit.backbone.layouts import Layout
from videodit.backbone.packed import Grid, Mask, packed
from videodit.backbone.patches import GivenBranch, PatchEmbedding, VideoBranch, embedded, hinted, unpatch
from videodit.backbone.positions import Centred, Length, Places, Rotary, When, rotary_angles
from videodit.backbone.variants import BLOCKS, DOC, Variant, arranged, freeze, sound
from videodit.config import setting
from videodit.shapes import Size, Text, UserError, token_size


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """A transformer of SD3's shape, with two streams; `video` adds the 3D patchify branch that an image model lacks."""

    kind: Literal["dual"] = "dual"
    channels: int = setting(16, doc="channels of the latents")
    width: int = setting(1536, doc="channels of a token")
    depth: int = setting(24, doc="blocks")
    heads: int = setting(24, doc="attention heads")
    patch: int = setting(2, doc="rows and columns of latents a token holds")
    text: int = setting(4096, doc="channels of the text's tokens")
    pooled: int = setting(2048, doc="channels of the pooled text")
    video: bool = setting(False, doc="whether the 3D patchify branch is there")
    given: Given = setting("refused", doc=GIVEN_DOC)
    hints: bool = setting(False, doc=HINTS_DOC)
    picture: int = setting(0, doc=PICTURE_DOC)
    normed: bool = setting(True, doc="whether queries and keys are normalised: in SD3.5 they are, in SD3 they are not")
    twice: int = setting(0, doc="first blocks in which the video also attends to itself alone; 13 in SD3.5 medium")
    places: Places = setting(Centred(), doc="the table of rows and columns")
    layout: Variant = setting(
        "global",
        doc="who attends to whom, words always to all: all to all (global); each frame to itself and its copy of the words (spatial); "
        f"LAVITA's four: {DOC}",
    )
    window: int = setting(8, doc="rows and columns of tokens in a window, for the layout windows")
    rotary: Rotary = setting("none", doc="what turns queries and keys, beside the tables: nothing, the frame, or frame, row and column")
    length: Length = setting(Length(), doc="for clips longer than those of training")

    def __post_init__(self) -> None:
        sound(self)
        if self.twice and self.layout not in ("global", "spatial", "beside"):
            raise UserError(f"A second attention sees the whole clip, and not all blocks of the layout {self.layout} do: set twice=0.")


class DualTransformer(nn.Module):
    """Image transformer and video transformer are this one class: with global attention only the 3D branch differs."""

    def __init__(self, settings: Transformer) -> None:
        super().__init__()
        self.settings, width = settings, settings.width
        self.patches = PatchEmbedding(settings.channels, width, settings.patch, settings.places)
        self.video = VideoBranch(settings.channels, width, settings.patch, scale=settings.length.scale) if settings.video else None
        self.given = GivenBranch(settings.channels, width, settings.patch) if settings.given == "channels" else None
        self.hints = GivenBranch(settings.channels, width, settings.patch) if settings.hints else None
        self.text = nn.Linear(settings.text, width)
        self.picture = PictureBranch(settings.picture, width, settings.heads) if settings.picture else None
        self.signal = Signal(width, pooled=settings.pooled)
        self.blocks = blocks(settings.layout, self._block, settings.depth)
        self.modulation = Modulation(width, 2)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.out = nn.Linear(width, settings.patch**2 * settings.channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        if settings.layout == "beside":
            freeze(self)

    def forward(
        self,
        noisy: Float[Tensor, "b c f h w"] | Sequence[Grid],
        t: Float[Tensor, "b *f"],
        text: Texts,
        given: Float[Tensor, "b 1 f h w"] | Sequence[Mask] | None = None,
        *,
        images: int = 0,
        hint: Float[Tensor, "b k f h w"] | None = None,
        when: When = None,
    ) -> Float[Tensor, "b c f h w"] | list[Grid]:
        """The velocity; latent frames stand at the places `when` in time, or one after the other.

        The last `images` frames are pictures of their own, with their words (`appended`). A list of clips shares a sequence (`packed`).
        """
        if images or not isinstance(text, Text):
            return appended(self.forward, noisy, t, text, given, images, hint=hint, when=when)
        if given is not None and self.settings.given == "refused":
            raise ValueError("this network takes no given frames")
        if not isinstance(noisy, Tensor):
            if hint is not None or when is not None or text.picture is not None:
                raise UserError("Clips that share a sequence are told no hint, no picture and no places in time: give them one by one.")
            return packed(self, noisy, t, text, None if given is None else list(given))
        assert text.sequence is not None and not isinstance(given, Sequence)
        if given is not None and self.settings.given == "time":
            t = frame_times(t, given)
        video = hinted(embedded(noisy, given, self.patches, self.video, self.given, when), hint, self.hints)
        words, signal = shown(self.text(text.sequence), text.picture, self.picture), for_words(self.signal(t, text), t)
        video = self.blocks(words, video, signal, self._layout(noisy, text, when))
        shift, scale = self.modulation(of_video(signal), video.shape[1])
        patch = self.settings.patch
        return unpatch(self.out(modulate(self.norm(video), shift, scale)), Size(*noisy.shape[2:]), (1, patch, patch))

    def _block(self, at: int) -> DualBlock | TimeBlock:
        s = self.settings
        kinds = ("global",) * s.depth if s.layout in ("spatial", "beside") else arranged(s.layout, s.depth)
        if kinds[at] == "temporal":
            return TimeBlock(s.width, s.heads, normed=s.normed)
        last = all(kind == "temporal" for kind in kinds[at + 1 :])
        return DualBlock(s.width, s.heads, BLOCKS[kinds[at]](s.window), normed=s.normed, twice=at < s.twice, last=last)

    def _layout(self, noisy: Tensor, text: Text, when: When) -> Layout:
        s = self.settings
        grid = token_size(Size(*noisy.shape[2:]), (1, s.patch, s.patch))
        turns = s.rotary != "none"
        angles = rotary_angles(grid, s.width // s.heads, s.rotary, like=noisy, length=s.length, when=when) if turns else None
        return Layout(None if text.mask is None else text.mask[:, None, None], angles, grid, still=grid.frames == 1)
