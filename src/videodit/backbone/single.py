"""DiT and LAVITA: one stream of tokens, told of time and label (or pooled text) by modulation, of words by cross-attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from videodit.backbone.appended import Texts, appended
from videodit.backbone.blocks import PictureBranch, SingleBeside, SingleBlock, TemporalBlock, Words, shown
from videodit.backbone.conditioning import GIVEN_DOC, HINTS_DOC, PICTURE_DOC, Given, Modulation, Signal, Unmodulated, frame_times, modulate
from videodit.backbone.layouts import Layout
from videodit.backbone.patches import GivenBranch, Head, PatchEmbedding, TubeEmbedding, TubeHead, VideoBranch, embedded, hinted
from videodit.backbone.positions import Cropped, Length, Places, Rotary, When, rotary_angles, waves
from videodit.backbone.variants import BLOCKS, DOC, SHAPED, STILL, Variant, arranged, freeze, sound
from videodit.config import setting
from videodit.shapes import Size, Text, UserError, token_size

NOTHING = Text()
TURNS: dict[str, Rotary] = {"rotary": "time", "space-time": "space-time"}  # what queries and keys turn with, by `DiT.time`


@dataclass(frozen=True, kw_only=True)
class DiT:
    """A transformer of DiT's shape, with one stream, and LAVITA's ways to let it see time."""

    kind: Literal["single"] = "single"
    channels: int = setting(4, doc="channels of the latents")
    width: int = setting(1152, doc="channels of a token")
    depth: int = setting(28, doc="blocks")
    heads: int = setting(16, doc="attention heads")
    patch: int = setting(2, doc="rows and columns of latents a token holds")
    tube: int = setting(1, doc="latent frames a token holds")
    layout: Variant = setting(
        "interleaved",
        doc=f"who attends to whom: all to all (global); each frame to itself (spatial); LAVITA's four: {DOC}",
    )
    window: int = setting(8, doc="rows and columns of tokens in a window, for the layout windows")
    labels: int = setting(0, doc="labels it can be told; 0 is none")
    pooled: int = setting(0, doc="channels of the pooled text; 0 is none")
    told: Literal["modulation", "token"] = setting(
        "modulation", doc="how blocks hear of time and label: by modulations (S-AdaLN), or by a token in every frame (all tokens)"
    )
    text: int = setting(0, doc="channels of the text's tokens, seen by cross-attention; 0 is none")
    variance: bool = setting(False, doc="whether a variance is predicted beside the mean")
    video: bool = setting(False, doc="whether the 3D patchify branch is there")
    given: Given = setting("refused", doc=GIVEN_DOC)
    hints: bool = setting(False, doc=HINTS_DOC)
    picture: int = setting(0, doc=PICTURE_DOC)
    normed: bool = setting(False, doc="whether queries and keys are normalised")
    places: Places = setting(Cropped(side=16, base=16), doc="the table of rows and columns")
    time: Literal["table", "rotary", "space-time", "none"] = setting(
        "table",
        doc="what tells frames apart, beside the 3D branch: a table of sines and cosines (table), queries and keys that turn with frame "
        "(rotary) or with frame, row and column (space-time), or nothing (none)",
    )
    length: Length = setting(Length(), doc="for clips longer than those of training")
    eps: float = setting(1e-6, doc="what keeps the feed-forward's normalisation from dividing by zero; 1e-5 in diffusers' DiT")
    reached: bool = setting(False, doc="whether the slowest wave of t is 10,000 itself, as in diffusers' DiT, and not one step faster")

    def __post_init__(self) -> None:
        sound(self)
        if self.told == "token" and self.layout in SHAPED:
            raise UserError(f"The layout {self.layout} has no place for a token beside the grid: tell it by modulation.")
        if self.told == "token" and self.time == "space-time":
            raise UserError("A token beside the grid has no row or column: set time=rotary, or tell it by modulation.")
        if self.picture and not self.text:
            raise UserError("What a picture shows is told to the words, and this transformer sees none: leave the picture out.")

    @property
    def arrangement(self) -> tuple[str, ...]:
        """What each block is, a name of BLOCKS."""
        return arranged(self.layout, self.depth)


class SingleTransformer(nn.Module):
    """Tokens of all frames through blocks that attend in space, in time, or both; a clip of one frame is a picture."""

    def __init__(self, settings: DiT) -> None:
        super().__init__()
        self.settings, width = settings, settings.width
        grid, out = (settings.channels, width, settings.patch), settings.channels * (2 if settings.variance else 1)
        tubes = settings.tube > 1
        self.patches = TubeEmbedding(*grid, settings.places, settings.tube) if tubes else PatchEmbedding(*grid, settings.places)
        self.video = VideoBranch(*grid, settings.tube, scale=settings.length.scale) if settings.video else None
        self.given = GivenBranch(*grid, settings.tube) if settings.given == "channels" else None
        self.hints = GivenBranch(*grid, settings.tube) if settings.hints else None
        self.signal = Signal(width, pooled=settings.pooled, labels=settings.labels, reached=settings.reached)
        self.text = nn.Sequential(nn.Linear(settings.text, width), nn.GELU("tanh"), nn.Linear(width, width)) if settings.text else None
        self.picture = PictureBranch(settings.picture, width, settings.heads) if settings.picture else None
        self.blocks = nn.ModuleList(self._block(name) for name in settings.arrangement)
        modulated = settings.told == "modulation"
        self.modulation = Modulation(width, 2) if modulated else Unmodulated(2)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=not modulated)
        self.out = TubeHead(width, out, settings.patch, settings.tube) if tubes else Head(width, out, settings.patch)
        if settings.layout == "beside":
            freeze(self)

    def _block(self, name: str) -> SingleBlock | SingleBeside:
        if name == "beside":
            return SingleBeside(self.settings.width, *(self._plain(each) for each in ("spatial", "global")))
        return self._plain(name)

    def _plain(self, name: str) -> SingleBlock:
        s = self.settings
        block = TemporalBlock if name == "temporal" else SingleBlock
        words, modulated = s.text > 0 and name != "temporal", s.told == "modulation"
        return block(s.width, s.heads, BLOCKS[name](s.window), words=words, normed=s.normed, eps=s.eps, modulated=modulated)

    def forward(
        self,
        noisy: Float[Tensor, "b c f h w"],
        t: Float[Tensor, "b *f"],
        text: Texts = NOTHING,
        given: Float[Tensor, "b 1 f h w"] | None = None,
        *,
        images: int = 0,
        hint: Float[Tensor, "b k f h w"] | None = None,
        when: When = None,
    ) -> Float[Tensor, "b _ f h w"]:
        """The prediction; latent frames stand at the places `when` in time, or one after the other.

        The last `images` frames are pictures of their own, with their words (`appended`).
        """
        if images or not isinstance(text, Text):
            return appended(self.forward, noisy, t, text, given, images, hint=hint, when=when, tube=self.settings.tube)
        if given is not None and self.settings.given == "refused":
            raise ValueError("this network takes no given frames")
        layout = self._layout(noisy, when)
        if t.ndim == 2 and t.shape[1] not in (1, layout.grid.frames):
            raise UserError(f"A token of this network holds {self.settings.tube} latent frames, which have one time: set times.each=clip.")
        if given is not None and self.settings.given == "time":
            t = frame_times(t, given, self.settings.tube)
        x = hinted(embedded(noisy, given, self.patches, self.video, self.given, when), hint, self.hints)
        words, signal = self._words(text), self.signal(t, text)
        if self.settings.told == "token":
            x = _with_signal(x, signal, layout.grid.frames)
        first = self._first_in_time()
        for i, block in enumerate(self.blocks):
            x = block(self._timed(x, layout, when) if i == first else x, signal, words, layout)
        if self.settings.told == "token":
            x = rearrange(x, "b (f s) d -> b f s d", f=layout.grid.frames)[:, :, :-1].flatten(1, 2)
        shift, scale = self.modulation(signal, x.shape[1])
        return self.out(modulate(self.norm(x), shift, scale), Size(*noisy.shape[2:]))

    def _layout(self, noisy: Tensor, when: When) -> Layout:
        s = self.settings
        if when is not None and s.tube > 1:
            raise UserError(f"A token of this network holds {s.tube} latent frames, so none can stand at a place of its own.")
        grid = token_size(Size(*noisy.shape[2:]), (s.tube, s.patch, s.patch))
        grid = Size(grid.frames, 1, grid.rows * grid.columns + 1) if s.told == "token" else grid
        turns = TURNS.get(s.time)
        angles = rotary_angles(grid, s.width // s.heads, turns, like=noisy, length=s.length, when=when) if turns else None
        return Layout(None, angles, grid, still=grid.frames == 1)

    def _words(self, text: Text) -> Words | None:
        if self.text is None:
            return None
        assert text.sequence is not None
        return shown(self.text(text.sequence), text.picture, self.picture), text.mask

    def _first_in_time(self) -> int:
        """The block before which frames get their places: the first that sees more than one."""
        return next((i for i, name in enumerate(self.settings.arrangement) if name not in STILL), -1)

    def _timed(self, x: Tensor, layout: Layout, when: When) -> Tensor:
        """Frames of a clip with their places in time, unless they turn; pictures have none."""
        if self.settings.time != "table" or layout.still:
            return x
        frames = layout.grid.frames
        steps = range(frames) if when is None else when
        places = torch.tensor(steps, dtype=torch.float32, device=x.device) / self.settings.length.scale
        table = waves(places, x.shape[-1]).to(x.dtype)
        return rearrange(rearrange(x, "b (f s) d -> b f s d", f=frames) + table[:, None], "b f s d -> b (f s) d")


def _with_signal(x: Tensor, signal: Tensor, frames: int) -> Tensor:
    """Every frame's tokens with the signal behind them."""
    places = rearrange(x, "b (f s) d -> b f s d", f=frames)
    return torch.cat([places, signal.expand(-1, frames, -1)[:, :, None]], dim=2).flatten(1, 2)
