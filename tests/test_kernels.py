"""Kernels by measurement: every one says the same, what is recorded is used, and without a record nothing changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tiny
from videodit import backbone, kernels, models, record
from videodit.backbone import PRESETS, attention
from videodit.cli.main import main
from videodit.kernels import ONEDNN, OWN, VARIABLE
from videodit.request import Request
from videodit.shapes import Text, UserError

NOISY, TIMES = tiny.grid(2, 8, 3, 4, 4), torch.tensor([0.2, 0.7])
TEXT = Text(sequence=tiny.grid(2, 5, 32, seed=1), pooled=tiny.grid(2, 24, seed=2))
needs_onednn = pytest.mark.skipif(not kernels.available(), reason="this PyTorch has no oneDNN operator")


@pytest.fixture(autouse=True)
def unchosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(VARIABLE, raising=False)
    with attention.choosing():
        yield


def network() -> nn.Module:
    torch.manual_seed(0)
    return tiny.randomised(backbone.build(replace(PRESETS["sd3-medium-tiny"], video=True)))


def forward(model: nn.Module) -> Tensor:
    return model(NOISY, TIMES, TEXT)


def everything(model: nn.Module, kernel: str) -> kernels.Record:
    """A record that has this kernel wherever there is a choice."""
    found = {}
    for learning in (True, False):
        for name in kernels.measured(model, lambda: forward(model), learning=learning):
            found[name] = "plain" if name.startswith("attention") else kernel
    return found


def with_gradients(model: nn.Module) -> list[Tensor]:
    model.zero_grad(set_to_none=True)
    out = forward(model)
    (out * tiny.grid(*out.shape, seed=9)).sum().backward()
    return [out.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@needs_onednn
def test_other_kernels_say_the_same() -> None:
    """Outputs and gradients to rounding, and other bits somewhere, so other kernels they are."""
    plain, other = network(), network()
    kernels.use(other, everything(other, ONEDNN))
    for one, two in zip(with_gradients(other), with_gradients(plain), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5 * two.abs().max().item())
    with torch.no_grad():
        torch.testing.assert_close(forward(other), forward(plain), rtol=1e-4, atol=1e-5)
    replaced = [name for name, module in other.named_modules() if "forward" in vars(module)]
    assert "blocks.0.video.qkv" in replaced and "blocks.0.video.mlp" in replaced
    assert other.state_dict().keys() == plain.state_dict().keys()


def test_the_default_record_changes_no_bit() -> None:
    plain, other = network(), network()
    expected = with_gradients(plain)
    record = {name: OWN for name in everything(other, OWN) if not name.startswith("attention")}
    kernels.use(other, record)
    assert not [name for name, module in other.named_modules() if "forward" in vars(module)]
    assert all(torch.equal(one, two) for one, two in zip(with_gradients(other), expected, strict=True))


def test_everything_that_is_met_is_measured() -> None:
    model = network()
    record = kernels.measured(model, lambda: forward(model), learning=True)
    width = 48
    for what in ("linear", "linear.input", "linear.weight"):
        assert {f"{what} float32 {width} {3 * width}", f"{what} float32 {4 * width} {width}"} <= record.keys() or not kernels.available()
    assert "attention float32 learning 32 24" in record
    using = kernels.measured(model, lambda: forward(model))
    assert f"gelu float32 {width} {4 * width}" in using or not kernels.available()
    with torch.autocast("cpu", torch.bfloat16):
        half = kernels.measured(model, lambda: forward(model), learning=True)
    assert "attention bfloat16 learning 32 24" in half


@needs_onednn
def test_the_fastest_is_taken_if_it_is_clearly_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = {"first": 0.0, "second": 0.0}

    def run(name: str, seconds: float) -> None:
        spent[name] += seconds

    monkeypatch.setattr(kernels.time, "thread_time", lambda: sum(spent.values()))
    monkeypatch.setattr(kernels.time, "perf_counter", lambda: sum(spent.values()))
    for second, chosen in ((0.5, "second"), (0.99, "first"), (2.0, "first")):
        both = {"first": lambda: run("first", 1.0), "second": lambda second=second: run("second", second)}
        assert kernels._fastest(both) == chosen

    def refuses() -> None:
        raise RuntimeError("no such kernel")

    assert kernels._fastest({"first": lambda: run("first", 1.0), "second": refuses}) == "first"


def test_without_the_private_operator_pytorchs_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    record = everything(model, ONEDNN)

    def missing(*given: object) -> Tensor:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(kernels, "_onednn", missing)
    kernels.available.cache_clear()
    try:
        assert not kernels.available()
        kernels.use(model, record)
        forward(model)
        assert all(name.startswith("attention") for name in kernels.measured(model, lambda: forward(model)))
    finally:
        monkeypatch.undo()
        kernels.available.cache_clear()


def test_a_record_is_kept_and_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, kept = network(), tmp_path / "run" / "kernels.json"
    record = kernels.settle(model, lambda: forward(model), kept=kept)
    assert json.loads(kept.read_text()) == record == kernels.read(kept)
    assert set(record.values()) <= {*kernels.PRODUCTS, *attention.KERNELS}
    monkeypatch.setattr(kernels, "measured", lambda *given, **more: pytest.fail("it was measured again"))
    assert kernels.settle(network(), lambda: None, kept=kept) == record


def test_the_environment_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, mine = network(), tmp_path / "mine.json"
    monkeypatch.setattr(kernels, "measured", lambda *given, **more: pytest.fail("it was measured"))
    monkeypatch.setenv(VARIABLE, "fixed")
    assert kernels.settle(model, lambda: None) == {}
    mine.write_text(json.dumps({"linear float32 48 144": ONEDNN}))
    monkeypatch.setenv(VARIABLE, str(mine))
    assert kernels.settle(model, lambda: None) == {"linear float32 48 144": ONEDNN}
    other = "is no record of kernels"
    for wrong, said in (
        ('{"linear float32 48 144": "magic"}', other),
        ('{"attention float32 using 64 32": "onednn"}', other),  # which is a linear layer's
        ('{"linear float32 48 144": ["onednn"]}', other),
        ('["onednn"]', other),
        ("{", "cannot be read"),
    ):
        mine.write_text(wrong)
        with pytest.raises(UserError, match=said):
            kernels.settle(model, lambda: None)


# --- A clip's own kernels ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models.save(tmp_path / "model", tiny.model(tiny.dpvae(trained=True), tiny.CLIP))
    return tmp_path / "model"


@pytest.fixture
def other_kernels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[kernels.Record, Counter[str]]:
    """A record of other kernels for all that a clip of the tiny model goes through, and how often they are called."""
    one, called = Request(prompt="a red circle", steps=1), Counter[str]()
    model = one.load(str(folder))
    names = kernels.measured(model.model.backbone, lambda: one._made(model, None, None, None))
    onednn, plain = kernels._onednn, attention.KERNELS["plain"]
    monkeypatch.setattr(kernels, "_onednn", lambda *given: (called.update(["onednn"]), onednn(*given))[1])
    monkeypatch.setitem(attention.KERNELS, "plain", lambda *given: (called.update(["plain"]), plain(*given))[1])
    return {name: "plain" if name.startswith("attention") else ONEDNN for name in names}, called


@needs_onednn
@pytest.mark.usefixtures("unchecked")
def test_a_clip_is_made_by_its_own_kernels_which_are_no_other_clips(
    folder: Path, other_kernels: tuple[kernels.Record, Counter[str]]
) -> None:
    chosen, called = other_kernels
    fixed, other = Request(prompt="a red circle", steps=1), Request(prompt="a red circle", steps=1, kernels=chosen)
    loaded = [one.load(str(folder)) for one in (fixed, other)]
    before = fixed.make(loaded[0])
    assert not called
    assert abs(other.make(loaded[1]).astype(int) - before).max() <= 1
    assert called["onednn"] and called["plain"] and attention.CHOSEN == {}
    called.clear()
    kernels.use_layers(network(), chosen)
    attention.choose(chosen)  # as a run leaves it that measured
    assert (fixed.make(loaded[0]) == before).all() and not called


@needs_onednn
@pytest.mark.usefixtures("unchecked")
def test_a_clip_carries_the_kernels_that_made_it(
    folder: Path,
    other_kernels: tuple[kernels.Record, Counter[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (chosen, called), here = other_kernels, folder.parent
    (here / "mine.json").write_text(json.dumps(chosen))

    def made(name: str, *options: str) -> tuple[bytes, bool, bool]:
        """The file, whether other kernels were called, whether that was said."""
        called.clear()
        assert main(["generate", *options, "--model", str(folder), "--steps", "1", "-o", str(here / name)]) == 0
        return (here / name).read_bytes(), bool(called), "kernels are not those" in capsys.readouterr().err

    words = "a red circle"
    fixed = made("fixed.webp", words)
    assert fixed == made("again.webp", words) and fixed[1:] == (False, False)
    monkeypatch.setenv(VARIABLE, str(here / "mine.json"))
    assert made("deterministic.webp", words, "--deterministic") == fixed
    other = made("other.webp", words)
    assert other[1:] == (True, False) and record.read_record(here / "other.webp")["videodit"]["kernels"] == chosen
    assert made("said.webp", "--like", str(here / "fixed.webp"))[1:] == (True, True)
    monkeypatch.delenv(VARIABLE)
    assert made("like.webp", "--like", str(here / "other.webp")) == other
    assert made("told.webp", "--like", str(here / "other.webp"), "--deterministic") == (fixed[0], False, True)
    monkeypatch.setenv(VARIABLE, "fixed")
    assert made("told.webp", "--like", str(here / "other.webp")) == (fixed[0], False, True)


GRAPH = """
import torch
import tiny, test_kernels
from videodit import kernels
model = test_kernels.network()
kernels.use(model, test_kernels.everything(model, kernels.ONEDNN))
expected = test_kernels.with_gradients(model)
compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
model.zero_grad(set_to_none=True)
out = compiled(test_kernels.NOISY, test_kernels.TIMES, test_kernels.TEXT)
(out * tiny.grid(*out.shape, seed=9)).sum().backward()
found = [out.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
for one, other in zip(found, expected, strict=True):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())
print("one graph")
"""


@needs_onednn
@pytest.mark.slow
def test_it_compiles_to_one_graph() -> None:
    here = Path(__file__).parent
    environment = os.environ | {"JAXTYPING_DISABLE": "1", "PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", GRAPH], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "one graph" in done.stdout, done.stderr[-3000:]
