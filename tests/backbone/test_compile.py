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
import tiny
from videodit import backbone
from videodit.backbone import PRESETS

text = tiny.text([3, 2], 32)._replace(pooled=torch.randn(2, 32), label=torch.tensor([0, 1]))
dual = replace(PRESETS["sd3-medium-tiny"], pooled=32, video=True)
single = replace(PRESETS["latte-xl-v2-tiny"], channels=8, labels=3, text=32)
kinds = {
    "quick": [replace(dual, given="time", rotary="time"), replace(single, layout="windows")],
    "slow": [replace(dual, layout="beside", given="channels"), *(replace(single, layout=x) for x in ("split", "axial", "local-global"))],
}
for settings in kinds[sys.argv[1]]:
    network, noisy = backbone.build(settings), torch.randn(2, 8, 4, 8, 8)
    tiny.randomised(network)
    given = None if settings.given == "refused" else torch.ones(2, 1, 4, 8, 8)
    t = torch.rand(2)
    expected = network(noisy, t, text, given)
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="eager")(noisy, t, text, given), expected)
    for block in network.blocks:
        block.compile(fullgraph=True, backend="eager")
    torch.testing.assert_close(network(noisy, t, text, given), expected)
print("one graph each")
"""


@pytest.mark.parametrize("kinds", ["quick", pytest.param("slow", marks=pytest.mark.slow)])
def test_every_network_compiles_to_one_graph(kinds: str) -> None:
    """In a process of its own: the checks of shapes are Python that cannot be traced."""
    here = Path(__file__).parents[1]
    environment = os.environ | {"JAXTYPING_DISABLE": "1", "PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", GRAPHS, kinds], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "one graph each" in done.stdout, done.stderr[-3000:]
