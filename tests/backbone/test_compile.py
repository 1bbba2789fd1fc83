"""Every network is one graph: nothing in a forward pass is decided by Python at the sight of a tensor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GRAPHS = """
import sys
import torch
from dataclasses import replace
from typing import get_args
import tiny
from videodit import backbone
from videodit.backbone import PRESETS
from videodit.backbone.variants import Variant

said, behind = (tiny.text(words, 32)._replace(pooled=torch.randn(len(words), 32)) for words in ([3, 2], [1, 4, 2, 3]))
texts = said._replace(label=torch.tensor([0, 1])), behind._replace(label=torch.tensor([2, 2, 1, 0]))
dual = replace(PRESETS["sd3-medium-tiny"], pooled=32, video=True, depth=2, window=2)
single = replace(PRESETS["latte-xl-v2-tiny"], channels=8, labels=3, text=32, depth=2, window=2)
depths = {"windows": 3}  # the third are shifted
quick = [replace(dual, given="time", rotary="time"), replace(single, layout="windows", depth=3)]
kinds = {
    "quick": quick,
    "dual": [replace(dual, layout=x, depth=depths.get(x, 2), given="channels", hints=True) for x in get_args(Variant)],
    "single": [replace(single, layout=x, depth=depths.get(x, 2), given="channels", time="rotary") for x in get_args(Variant)],
    "others": [replace(dual, twice=2, normed=True), replace(single, told="token", given="time"), replace(single, tube=2, given="time")],
}
for settings in kinds[sys.argv[1]]:
    network, noisy = tiny.randomised(backbone.build(settings)), torch.randn(2, 8, 6, 8, 8)
    given = None if settings.given == "refused" else torch.ones(2, 1, 6, 8, 8)
    tube = getattr(settings, "tube", 1)
    behind = texts[0], texts[1].map(lambda x: x[::tube])
    t, told = torch.rand(2), dict(images=2)
    if getattr(settings, "hints", False):
        told["hint"] = torch.randn(2, 9, 6, 8, 8)
    expected = network(noisy, t, behind, given, **told)  # clips, and pictures behind them: both are traced
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="eager")(noisy, t, behind, given, **told), expected)
    if settings in quick:
        expected = network(noisy, t, texts[0], given)
        for block in network.blocks:
            block.compile(fullgraph=True, backend="eager")
        torch.testing.assert_close(network(noisy, t, texts[0], given), expected)
    torch.compiler.reset()  # or networks would count as recompilations of one, which are limited
print("one graph each")
"""


@pytest.mark.parametrize("kinds", ["quick", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("dual", "single", "others"))])
def test_every_network_compiles_to_one_graph(kinds: str) -> None:
    """In a process of its own: the checks of shapes are Python that cannot be traced."""
    here = Path(__file__).parents[1]
    environment = os.environ | {"JAXTYPING_DISABLE": "1", "PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", GRAPHS, kinds], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "one graph each" in done.stdout, done.stderr[-3000:]
