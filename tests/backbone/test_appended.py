"""Pictures behind a clip, each with words of its own: the clip is what it is without them, and each is what it is alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import tiny
from videodit import backbone
from videodit.backbone import PRESETS, DualTransformer, SingleTransformer
from videodit.backbone.variants import Variant
from videodit.shapes import Text, UserError

CLIP, IMAGES = 4, 2
NOISY, T = tiny.grid(2, 8, CLIP + IMAGES, 4, 8), torch.tensor([0.2, 0.9])
LABELS, PLAIN = torch.tensor([0, 2]), torch.tensor([1, 0, 2, 1])
TEXTS = tiny.text([5, 2])._replace(label=LABELS), tiny.text([1, 3, 2, 3], seed=5)._replace(label=PLAIN)  # two clips, two pictures each
GIVEN = torch.zeros(2, 1, CLIP + IMAGES, 4, 8)
GIVEN[:, :, 0] = GIVEN[:, :, -1] = 1
HINT = torch.cat([GIVEN, tiny.grid(2, 8, CLIP + IMAGES, 4, 8, seed=7)], dim=1)
KINDS = {
    "dual": replace(PRESETS["toybox-tiny"], depth=4, window=1, text=tiny.TEXT.width, pooled=tiny.TEXT.width, video=True),
    "single": replace(PRESETS["latte-xl-v2-tiny"], channels=8, variance=False, window=1, labels=3, text=tiny.TEXT.width, video=True),
}
LAYOUTS = [*(("dual", layout) for layout in get_args(Variant)), *(("single", layout) for layout in get_args(Variant))]


def network(kind: str, **changes: object) -> DualTransformer | SingleTransformer:
    torch.manual_seed(2)
    made = backbone.build(replace(KINDS[kind], **changes)).eval()
    tiny.randomised(made)
    return made


def apart(model: Any, noisy: Tensor, t: Tensor, texts: tuple[Text, Text], tube: int = 1, **more: Tensor) -> Tensor:
    """The same in calls that know nothing of each other: the clips, then every picture."""
    count, at = IMAGES // tube, slice(None, CLIP)
    out = [model(noisy[:, :, at], t if t.ndim == 1 else t[:, : CLIP // tube], texts[0], **{name: x[:, :, at] for name, x in more.items()})]
    for i in range(count):
        at = slice(CLIP + i * tube, CLIP + (i + 1) * tube)
        text = texts[1].map(lambda x, i=i: x[i::count])
        time = t if t.ndim == 1 else t[:, CLIP // tube + i]
        out.append(model(noisy[:, :, at], time, text, **{name: x[:, :, at] for name, x in more.items()}))
    return torch.cat(out, dim=2)


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "layout"), LAYOUTS)
@torch.no_grad()
def test_one_call_is_the_clip_alone_and_each_picture_alone(kind: str, layout: str) -> None:
    model = network(kind, layout=layout)
    close(model(NOISY, T, TEXTS, images=IMAGES), apart(model, NOISY, T, TEXTS))


@pytest.mark.parametrize(("kind", "layout"), LAYOUTS)
def test_neither_hears_another(kind: str, layout: str) -> None:
    """By gradients: of what belongs to the first clip, each part depends on its own frames and its own words, and on nothing else."""
    model, noisy = network(kind, layout=layout), NOISY.clone().requires_grad_()
    fields = ("sequence", "pooled") if kind == "dual" else ("sequence",)
    texts = [text._replace(**{name: getattr(text, name).clone().requires_grad_() for name in fields}) for text in TEXTS]
    told = [getattr(text, name) for name in fields for text in texts]
    out = model(noisy, T, tuple(texts), images=IMAGES)
    clip = out[0, :, :CLIP], [*range(CLIP)], [[0], []]  # what of it, its frames, its rows of the clips' texts and of the pictures'
    pictures = [(out[0, :, CLIP + i], [CLIP + i], [[], [i]]) for i in range(IMAGES)]
    for part, frames, rows in (clip, *pictures):
        of_noisy, *of_told = torch.autograd.grad(part.square().sum(), [noisy, *told], retain_graph=True)
        assert [i for i, frame in enumerate(of_noisy[0].unbind(1)) if frame.any()] == frames and not of_noisy[1].any()
        assert [[i for i, row in enumerate(gradient) if row.any()] for gradient in of_told] == rows * len(fields)


OTHERS: list[tuple[str, dict[str, Any], dict[str, Tensor]]] = [
    ("dual", {"given": "time"}, {"given": GIVEN}),
    ("dual", {"given": "channels", "hints": True, "rotary": "space-time", "layout": "divided"}, {"given": GIVEN, "hint": HINT}),
    ("single", {"given": "time"}, {"given": GIVEN}),
    ("single", {"given": "channels", "hints": True, "time": "rotary"}, {"given": GIVEN, "hint": HINT}),
    ("single", {"told": "token", "layout": "split"}, {}),
    ("single", {"tube": 2, "given": "time"}, {"given": GIVEN.repeat_interleave(2, dim=2)[:, :, :6]}),
]


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize(("kind", "changes", "more"), OTHERS)
@torch.no_grad()
def test_so_it_is_with_given_frames_hints_and_times_of_their_own(kind: str, changes: dict, more: dict, each: bool) -> None:
    model, tube = network(kind, **changes), changes.get("tube", 1)
    t = torch.rand(2, (CLIP + IMAGES) // tube, generator=torch.Generator().manual_seed(6)) if each else T
    count = IMAGES // tube
    texts = TEXTS[0], TEXTS[1].map(lambda x: x[:: IMAGES // count])
    close(model(NOISY, t, texts, images=IMAGES, **more), apart(model, NOISY, t, texts, tube, **more))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_places_are_the_clips_and_pictures_have_none(kind: str) -> None:
    model, when = network(kind), [0, 1.5, 2, 7]
    for places in (when, [*when, 8, 9]):
        out = model(NOISY, T, TEXTS, images=IMAGES, when=places)
        close(out[:, :, :CLIP], model(NOISY[:, :, :CLIP], T, TEXTS[0], when=when))
        close(out[:, :, CLIP:], model(NOISY, T, TEXTS, images=IMAGES)[:, :, CLIP:])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_one_text_is_told_of_all_and_what_a_first_frame_shows_of_the_clip(kind: str) -> None:
    model, shared = network(kind, picture=5), TEXTS[0]._replace(picture=tiny.grid(2, 5))
    again = shared._replace(picture=None).map(lambda x: x.repeat_interleave(IMAGES, dim=0))
    close(model(NOISY, T, shared, images=IMAGES), model(NOISY, T, (shared, again), images=IMAGES))
    assert (model(NOISY, T, shared, images=IMAGES) - model(NOISY, T, TEXTS[0], images=IMAGES))[:, :, :CLIP].abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_is_refused(kind: str) -> None:
    model = network(kind)
    for images in (-1, 6, 7):
        with pytest.raises(UserError, match=f"{images} of 6 latent frames cannot be pictures behind a clip: use 1 to 5"):
            model(NOISY, T, TEXTS, images=images)
    with pytest.raises(UserError, match="0 of 6 latent frames"):
        model(NOISY, T, TEXTS)
    with pytest.raises(UserError, match="2 clips with 3 pictures each take 6 texts of pictures, clip by clip, not 4"):
        model(NOISY, T, TEXTS, images=3)


def test_tubes_and_packed_clips_are_told_what_to_do_instead() -> None:
    with pytest.raises(UserError, match="use 1 to 5, in multiples of 2"):
        network("single", tube=2)(NOISY, T, TEXTS, images=1)
    with pytest.raises(UserError, match="give each picture as a clip of one frame"):
        network("dual")([NOISY[0], NOISY[1]], T, TEXTS[0], images=1)
