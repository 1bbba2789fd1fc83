"""Which of several kernels a finished transformer uses on this machine: chosen once by measurement, or left as PyTorch has it.

On some processors PyTorch's own linear layer runs well below what oneDNN gives in single precision. The products of linear layers
(forward, and the two of the backward pass), a linear layer with the GELU behind it, and attention are timed at the transformer's own
shapes. What was chosen is a record of names that can be kept: with it the same sums are taken in the same order again. oneDNN's operator
is private to PyTorch, so wherever it is missing or refuses, PyTorch's own stays.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.backbone import attention
from videodit.shapes import UserError

VARIABLE = "VIDEODIT_KERNELS"  # fixed: nothing is measured; or a record's file, which is used as it is
OWN, ONEDNN = "default", "onednn"
REPEATS, GAIN = 5, 0.97  # another kernel has to take less than this of the default's time
TYPES = (torch.float32, torch.bfloat16)
Record = dict[str, str]  # what is computed -> the kernel


class Linear(NamedTuple):
    """A linear layer where it was met."""

    dtype: torch.dtype
    rows: int
    taken: int
    given: int

    def name(self, what: str) -> str:
        return f"{what} {str(self.dtype).removeprefix('torch.')} {self.taken} {self.given}"


# --- Products ---


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "tanh" if then == "gelu" else "")


@cache
def available() -> bool:
    """Whether oneDNN's operator is there and gives what PyTorch's own does."""
    x, weight, bias = torch.ones(3, 4), torch.arange(8.0).reshape(2, 4) / 8, torch.ones(2)
    try:
        with torch.no_grad():
            plain, then = _onednn(x, weight, bias), _onednn(x, weight, bias, "gelu")
            turned = _onednn(x.mT[:3, :3], weight.mT[:, :2].mT[:, :3])  # strides as in a backward pass
        expected = F.linear(x, weight, bias)
        same = [(plain, expected), (then, F.gelu(expected, approximate="tanh")), (turned, F.linear(x.mT[:3, :3], weight[:, :3]))]
        return all(torch.allclose(one, other, atol=1e-5) for one, other in same)
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {OWN: F.linear, ONEDNN: _onednn}


class _Learning(torch.autograd.Function):
    """A linear layer whose three products are each by their kernel: forward, towards the input, towards the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kernels: tuple[str, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.kernels, ctx.biased = kernels, bias is not None
        return F.linear(x, weight, bias) if kernels[0] == OWN else _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *pulls: Tensor) -> tuple[Tensor | None, ...]:
        (pull,), (x, weight) = pulls, ctx.saved_tensors
        flat = pull.reshape(-1, pull.shape[-1])
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        return (
            PRODUCTS[ctx.kernels[1]](flat, weight.mT).view_as(x) if to_x else None,
            PRODUCTS[ctx.kernels[2]](flat.mT, x.reshape(-1, x.shape[-1]).mT) if to_weight else None,
            flat.sum(0) if to_bias and ctx.biased else None,
            None,
        )


def _linear(layer: nn.Linear, kernels: tuple[str, ...], dtype: torch.dtype, x: Tensor) -> Tensor:
    weight, bias = layer.weight, layer.bias
    if x.dtype != dtype or weight.dtype != dtype or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in layer.parameters())):
        return _Learning.apply(x, weight, bias, kernels)  # pyright: ignore[reportReturnType]
    return F.linear(x, weight, bias) if kernels[0] == OWN else _onednn(x, weight, bias)


def _feed_forward(layers: Any, dtype: torch.dtype, x: Tensor) -> Tensor:
    """Nothing is kept for a backward pass, so the GELU happens on what the product just wrote."""
    first, act, last = layers
    plain = x.dtype == dtype == first.weight.dtype and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if plain and not (torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in first.parameters()))):
        return last(_onednn(x, first.weight, first.bias, "gelu"))
    return last(act(first(x)))


# --- Measuring ---


def measured(network: nn.Module, forward: Callable[[], object], *, learning: bool = False) -> Record:
    """The fastest kernels for all that a forward pass calls, and the backward pass behind it (`learning`)."""
    linears, thens, cases = _met(network, forward)
    found: Record = {}
    for met in linears if available() else ():
        x, weight, pull = (
            torch.randn(*shape, dtype=met.dtype) for shape in ((met.rows, met.taken), (met.given, met.taken), (met.rows, met.given))
        )
        products = {"linear": (x, weight), "linear.input": (pull, weight.mT), "linear.weight": (pull.mT, x.mT)}
        for what in products if learning else ("linear",):
            found[met.name(what)] = _fastest({name: partial(product, *products[what]) for name, product in PRODUCTS.items()})
        if met in thens and not learning:
            both = {OWN: partial(_then, x, weight, found[met.name("linear")]), ONEDNN: partial(_onednn, x, weight, None, "gelu")}
            found[met.name("gelu")] = _fastest(both)
    for case in cases:
        found[case._replace(learning=learning).name] = _attention(case._replace(learning=learning))
    return found


def _met(network: nn.Module, forward: Callable[[], object]) -> tuple[list[Linear], set[Linear], list[attention.Case]]:
    """The linear layers that a pass goes through, those with a GELU behind them, and attention; of each the one with most rows."""
    met: dict[str, Linear] = {}
    thens: set[str] = set()
    firsts = {id(layers[0]) for layers in network.modules() if _is_feed_forward(layers)}  # pyright: ignore[reportIndexIssue]

    def note(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Linear)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else given[0].dtype
        here = Linear(dtype, given[0].numel() // layer.in_features, layer.in_features, layer.out_features)
        met[here.name("")] = max(here, met.get(here.name(""), here), key=lambda one: one.rows)
        thens.update([here.name("")] * (id(layer) in firsts))

    hooks = [layer.register_forward_pre_hook(note) for layer in network.modules() if type(layer) is nn.Linear]
    with attention.noted() as cases, torch.no_grad():
        forward()
    for hook in hooks:
        hook.remove()
    largest = {case.name: case for case in sorted(cases, key=lambda case: case.groups * case.queries * case.keys)}
    return list(met.values()), {met[name] for name in thens}, list(largest.values())


def _is_feed_forward(layers: nn.Module) -> bool:
    return (
        isinstance(layers, nn.Sequential)
        and len(layers) == 3
        and type(layers[0]) is nn.Linear
        and isinstance(layers[1], nn.GELU)
        and layers[1].approximate == "tanh"
    )


def _then(x: Tensor, weight: Tensor, kernel: str) -> Tensor:
    return F.gelu(PRODUCTS[kernel](x, weight), approximate="tanh")


def _attention(case: attention.Case) -> str:
    query, key, value = (
        torch.randn(1, case.groups, n, case.width, dtype=case.dtype, requires_grad=case.learning)
        for n in (case.queries, case.keys, case.keys)
    )
    fitting = [name for name in attention.KERNELS if name != "parts" or not case.learning]
    if case.learning and case.keys > attention.PLAIN_TOKENS:
        fitting = ["fused"]  # for memory's sake

    def run(kernel: str) -> None:
        out = attention.KERNELS[kernel](query, key, value, None)
        if case.learning:
            out.backward(torch.ones_like(out))

    return _fastest({name: partial(run, name) for name in fitting})


def _fastest(kernels: Mapping[str, Callable[[], object]]) -> str:
    """Taken in turns; the first is the default, which another has to beat clearly."""
    least = dict.fromkeys(kernels, float("inf"))
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter  # a thread's own time is not another's
    for turn in range(REPEATS + 1):
        for name, kernel in kernels.items():
            start = clock()
            try:
                kernel()
            except RuntimeError:  # a kernel that refuses is none
                continue
            least[name] = min(least[name], clock() - start if turn else float("inf"))
    default = next(iter(kernels))
    best = min(least, key=lambda name: least[name])
    return best if least[best] < GAIN * least[default] else default


# --- Using ---


def use(network: nn.Module, record: Mapping[str, str]) -> None:
    """Let a network's linear layers and feed-forwards, and attention, go by a record; what it does not say stays as it was."""
    attention.choose(record)
    use_layers(network, record)


def use_layers(network: nn.Module, record: Mapping[str, str]) -> None:
    """The same without attention, whose choices are the process's."""
    if not available():
        return
    for layer in network.modules():
        for dtype in TYPES:
            if type(layer) is nn.Linear:
                here = Linear(dtype, 0, layer.in_features, layer.out_features)
                kernels = tuple(record.get(here.name(what), OWN) for what in ("linear", "linear.input", "linear.weight"))
                if ONEDNN in kernels:
                    _replace(layer, partial(_linear, layer, kernels, dtype))
            elif _is_feed_forward(layer):
                here = Linear(dtype, 0, layer[0].in_features, layer[0].out_features)  # pyright: ignore
                if record.get(here.name("gelu")) == ONEDNN:
                    _replace(layer, partial(_feed_forward, layer, dtype))


def _replace(layer: Any, forward: Callable[[Tensor], Tensor]) -> None:
    layer.forward = forward


def settle(network: nn.Module, forward: Callable[[], object], *, learning: bool = False, kept: Path | None = None) -> Record:
    """By the record in `kept` where there is one, else as the environment says, else by measurement, which is then kept."""
    there = read(kept) if kept is not None and kept.is_file() else told()
    record = measured(network, forward, learning=learning) if there is None else there
    if kept is not None and not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(record, indent=1) + "\n")
    use(network, record)
    return record


def told() -> Record | None:
    """What the environment says, if anything: the record of a file, or the empty one, by which nothing changes."""
    said = os.environ.get(VARIABLE, "")
    return None if not said else {} if said == "fixed" else read(Path(said))


def read(path: Path) -> Record:
    """A record as `settle` keeps it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): give a record of kernels, or {VARIABLE}=fixed.") from error
    if not is_record(found):
        kinds = [f"{what} {' or '.join(kernels)}" for what, kernels in (("of attention", attention.KERNELS), ("of all else", PRODUCTS))]
        raise UserError(f"{path} is no record of kernels: it says {', '.join(kinds)}; `kernels.settle(..., kept=FILE)` writes one.")
    return found


def is_record(found: Any) -> bool:
    """Whether each thing that is computed has one of its own kernels."""
    return isinstance(found, dict) and all(
        isinstance(kernel, str) and kernel in (attention.KERNELS if name.startswith(attention.NAME) else PRODUCTS)
        for name, kernel in found.items()
    )
