"""Our transformers beside diffusers' own classes with the same weights: forward, a training step, and what the machine could do.

    python benchmarks/backbone.py [--model sd3 dit] [--tokens 256 1024] [--precision fp32 bf16] [--repeats 7] [--fixed] [--json]

Outputs and the gradients of the input and of every weight are compared first: within 1e-5 of the largest in fp32, 2e-2 in bf16.
`ceiling` is all matrix products of the linear layers of one forward pass and nothing else, by the fastest kernel that PyTorch has here;
a training step has three times as many.
Our kernels are those that `videodit.kernels` measures first (`--fixed`: PyTorch's own), and they are on when outputs are compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial

import torch
from side_by_side import Noisy, least_times
from torch import Tensor, nn
from torch.nn import functional as F

from videodit import backbone, kernels
from videodit.backbone import Cropped, DiT, DualTransformer, SingleTransformer, Transformer
from videodit.convert import names
from videodit.convert.foreign import SD3
from videodit.convert.foreign_dit import DIT
from videodit.convert.names import Project
from videodit.shapes import Text

TYPES, BOUND = {"fp32": torch.float32, "bf16": torch.bfloat16}, {"fp32": 1e-5, "bf16": 2e-2}
BATCH, WORDS, HEAD = 2, 77, 64
Step = Callable[[], Tensor]
Network = DualTransformer | SingleTransformer


def sd3(width: int, depth: int, side: int) -> Transformer:
    places = Cropped(side=2 * side, base=side)
    return Transformer(width=width, depth=depth, heads=width // HEAD, text=512, pooled=512, normed=False, places=places)


def dit(width: int, depth: int, side: int) -> DiT:
    places = Cropped(side=side, base=side)
    return DiT(width=width, depth=depth, heads=width // HEAD, layout="spatial", labels=10, places=places, eps=1e-5, reached=True)


MODELS: dict[str, tuple[Project, Callable[[int, int, int], Transformer | DiT]]] = {"sd3": (SD3, sd3), "dit": (DIT, dit)}


def pair(model: str, tokens: int, width: int, depth: int, dtype: torch.dtype) -> tuple[Network, nn.Module, dict[str, Step], Tensor]:
    """Our network and theirs; a forward pass of each on the same inputs; and the input."""
    project, shape = MODELS[model]
    side = round(tokens**0.5)
    settings = shape(width, depth, side)
    torch.manual_seed(0)
    ours = backbone.build(settings)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    theirs = project.kind.from_config(project.described(settings))  # type: ignore[attr-defined]
    theirs.load_state_dict(names.theirs(ours.state_dict(), project.pairs(settings)), strict=False)
    ours, theirs = ours.to(dtype).eval(), theirs.to(dtype).eval()
    noisy, t = torch.randn(BATCH, settings.channels, 1, 2 * side, 2 * side, dtype=dtype), torch.tensor([0.2, 0.7])
    wide = settings.text or 1
    text = Text(sequence=torch.randn(BATCH, WORDS, wide, dtype=dtype), pooled=torch.randn(BATCH, settings.pooled, dtype=dtype))
    text = text._replace(label=torch.tensor([1, 2]))
    return ours, theirs, {"ours": partial(ours, noisy, t, text), "theirs": partial(project.call, theirs, noisy, t, text)}, noisy


def ceiling(network: nn.Module, forward: Step, dtype: torch.dtype) -> Callable[[], None]:
    """All products of the linear layers of one forward pass."""
    shapes: list[tuple[int, int, int]] = []

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Linear)
        shapes.append((given[0].numel() // module.in_features, module.in_features, module.out_features))

    hooks = [module.register_forward_pre_hook(note) for module in network.modules() if isinstance(module, nn.Linear)]
    forward()
    for hook in hooks:
        hook.remove()
    made = {shape: (torch.randn(shape[0], shape[1], dtype=dtype), torch.randn(shape[2], shape[1], dtype=dtype)) for shape in set(shapes)}

    def products(multiply: Callable[[Tensor, Tensor], Tensor]) -> None:
        for shape in shapes:
            multiply(*made[shape])

    def onednn(x: Tensor, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")

    kernels: dict[str, Callable[[], object]] = {"linear": partial(products, F.linear)}
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        kernels["onednn"] = partial(products, onednn)
    times = least_times(kernels, repeats=3)
    return kernels[min(times, key=lambda name: times[name])]  # type: ignore[return-value]


def trained(forward: Step, network: nn.Module) -> Tensor:
    network.zero_grad(set_to_none=True)
    out = forward()
    out.float().square().mean().backward()
    return out


def close(what: str, one: Tensor, other: Tensor, bound: float, largest: float = 0.0) -> None:
    """Within a part of the largest: of these, or of all that they are among."""
    one, other = one.float(), other.float()
    difference = ((one - other).abs().max() / (largest or other.abs().max())).item()
    assert difference <= bound, f"{what}: ours and theirs differ by {difference:.2g} of the largest"


def weights_alike(project: Project, ours: Network, theirs: nn.Module, bound: float) -> None:
    """The gradients of every weight, by the table of names; where blocks of theirs have copies of one, its gradient is their sum."""
    copies: dict[tuple[tuple[str, ...], str], list[tuple[str, ...]]] = {}
    for pair in project.pairs(ours.settings):
        for end in pair.ends:
            copies.setdefault((pair.ours, end), []).append(pair.theirs)
    parts = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    same = {
        f"{one[0]}.{end}": [parts.pop(f"{name}.{end}") for name in one]
        for (_, end), found in copies.items()
        for one in zip(*found, strict=True)
    }
    assert not parts, f"{next(iter(parts))} of theirs is not compared"
    expected = {name: torch.stack(found).sum(0) for name, found in same.items()}
    gradients = names.theirs({name: p.grad for name, p in ours.named_parameters() if p.grad is not None}, project.pairs(ours.settings))
    largest = max(value.float().abs().max().item() for value in expected.values())
    for name, value in expected.items():
        close(f"gradient of {name}", gradients[name], value, bound, largest)


def measure(model: str, tokens: int, precision: str, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    ours, theirs, forward, noisy = pair(model, tokens, given.width, given.depth, TYPES[precision])
    if not given.fixed:
        chosen = [kernels.measured(ours, forward["ours"], learning=learning) for learning in (True, False)]
        kernels.use(ours, chosen[0] | chosen[1])
    gradients = []
    for name, network in (("ours", ours), ("theirs", theirs)):
        noisy.requires_grad_(True).grad = None
        trained(forward[name], network)
        gradients.append(noisy.grad)
    noisy.requires_grad_(False)
    with torch.no_grad():
        close("output", forward["ours"](), forward["theirs"](), BOUND[precision])
        close("gradient of the input", *gradients, BOUND[precision])
        weights_alike(MODELS[model][0], ours, theirs, BOUND[precision])
        top = ceiling(ours, forward["ours"], TYPES[precision])
        found = {"forward": least_times({**forward, "ceiling": top}, repeats=given.repeats)}
    steps = {"ours": partial(trained, forward["ours"], ours), "theirs": partial(trained, forward["theirs"], theirs)}
    found["train"] = least_times({**steps, "ceiling": lambda: [top() for _ in range(3)]}, repeats=given.repeats)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--tokens", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--precision", nargs="+", choices=TYPES, default=list(TYPES))
    for name, default in (("width", 768), ("depth", 4), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--fixed", action="store_true", help="leave all kernels as PyTorch has them")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = {}
    for model in given.model:
        for tokens in given.tokens:
            for precision in given.precision:
                try:
                    times = measure(model, tokens, precision, given)
                except Noisy as error:
                    sys.exit(str(error))
                result[f"{model} {tokens} {precision}"] = times
                for what, row in times.items() if not given.json else ():
                    shares = f"theirs {row['theirs'] / row['ours']:.2f} x, ceiling {row['ceiling'] / row['ours']:.2f}"
                    print(f"{model:4} {tokens:5} tokens {precision} {what:8} ours {row['ours']:.4f} s, {shares}")
    if given.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
