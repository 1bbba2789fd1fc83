"""A perceptual distance as training loss and as measure: what a network trained on photographs, and on people's judgements, sees.

Two pictures go through a frozen network; at five depths their features, scaled to length one, are subtracted, squared, weighted
by channel and averaged over places (LPIPS, arXiv:1801.03924). ST-LPIPS (arXiv:2207.13686) is the same with nets that hardly notice
a shift: where those halve by leaving out, these blur first. The two are different measures, so each net has its own name.

Weights come from a file that the user names. Both projects publish theirs as .pth alone, so such files are read beside safetensors, by
`weights_only`: an unpickler that builds tensors and calls nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import accumulate
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from videodit.shapes import UserError

Pictures = Float[Tensor, "n 3 h w"]
Slices = list[list[nn.Module]]  # features are taken at the end of each

TINY = 1e-10  # added to a length before dividing by it, as both projects do


class Blur(nn.Module):
    """Halves rows and columns behind a binomial filter; the edges are mirrored."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", (torch.tensor([[1.0, 2, 1]]).T * torch.tensor([1.0, 2, 1]) / 16).repeat(channels, 1, 1, 1))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c y x"]:
        filt = self.filt
        assert isinstance(filt, Tensor)
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), filt, stride=2, groups=x.shape[1])


class Perceptual(nn.Module):
    """The distance of two pictures; 0 for equal ones. It is frozen, and gradients reach the pictures."""

    shift: Tensor
    scale: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        build, self.smallest = NETS[name]
        self.name, slices = name, build()
        self.ends = [count - 1 for count in accumulate(map(len, slices))]
        # Numbered from the first layer to the last, as torchvision's `features` are, and as both projects number theirs.
        self.features = nn.Sequential(*(layer for layers in slices for layer in layers))
        widths = [next(layer.out_channels for layer in reversed(layers) if isinstance(layer, nn.Conv2d)) for layers in slices]
        self.weights = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in widths)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, one: Pictures, other: Pictures) -> Float[Tensor, "n"]:
        """The distance of each picture, -1..1, from its counterpart."""
        distance = one.new_zeros(len(one), dtype=torch.float32)
        for weight, a, b in zip(self.weights, self._seen(one), self._seen(other), strict=True):
            distance = distance + (weight * (a - b).square()).sum(1).mean((1, 2))
        return distance

    def _seen(self, pictures: Pictures) -> Iterable[Tensor]:
        if min(pictures.shape[2:]) < self.smallest:
            raise UserError(
                f"{self.name} sees nothing in {pictures.shape[2]}x{pictures.shape[3]}: use {self.smallest}x{self.smallest} or more."
            )
        x = (pictures - self.shift) / self.scale
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.ends:
                square = x.float().square().sum(1, keepdim=True)
                # The root of an exact 0 has no gradient, and all of a place's features may be 0 behind a ReLU.
                yield x.float() / (square.clamp_min(TINY**2).sqrt() + TINY)


# --- The nets ---


def _alex(halve: Callable[[int], list[nn.Module]], first: list[nn.Module]) -> Slices:
    return [
        [*first, nn.ReLU()],
        [*halve(64), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()],
        [*halve(192), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()],
    ]


def _vgg(halve: Callable[[int], list[nn.Module]]) -> Slices:
    slices, before = [], 3
    for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers = halve(before) if slices else []
        for _ in range(convolutions):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        slices.append(layers)
    return slices


def _left_out(window: int) -> Callable[[int], list[nn.Module]]:
    return lambda channels: [nn.MaxPool2d(window, 2)]


def _blurred(window: int) -> Callable[[int], list[nn.Module]]:
    return lambda channels: [nn.MaxPool2d(window, 1), Blur(channels)]


# A name, how it is built, and the fewest rows and columns that leave a feature at every depth.
NETS: dict[str, tuple[Callable[[], Slices], int]] = {
    "st-lpips-alex": (lambda: _alex(_blurred(3), [nn.Conv2d(3, 64, 11, padding=2), Blur(64)]), 21),
    "st-lpips-vgg": (lambda: _vgg(_blurred(2)), 18),
    "lpips-alex": (lambda: _alex(_left_out(3), [nn.Conv2d(3, 64, 11, stride=4, padding=2)]), 31),
    "lpips-vgg": (lambda: _vgg(_left_out(2)), 16),
}


# --- Their files ---


def load(path: str | Path) -> Perceptual:
    """The network whose weights a file holds: .pth as stlpips-pytorch publishes them, or the whole state of lpips.LPIPS."""
    path = Path(path)
    found = _renamed(_read(path))
    shapes = {name: value.shape for name, value in found.items()}
    for name in NETS:
        with torch.device("meta"):
            wanted = {key: value.shape for key, value in Perceptual(name).state_dict().items()}
        if shapes == wanted:
            network = Perceptual(name)
            network.load_state_dict(found)
            return network
    if found and all(name.startswith("weights.") for name in found):
        raise UserError(f"{path} holds the weights of channels without a network: save the state_dict() of a whole lpips.LPIPS.")
    raise UserError(f"{path} is none of {', '.join(NETS)}: name a file of stlpips-pytorch, or the state_dict() of a whole lpips.LPIPS.")


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"There is no file {path}: name one with the weights of a perceptual network.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what bytes that are no weights make of a reader is anything
        raise UserError(
            f"{path} cannot be read as tensors alone: name a .safetensors, or a .pth with nothing but weights in it."
        ) from error
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise UserError(f"{path} holds more than tensors by name: save a state_dict() and name that.")
    return held


def _renamed(held: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as `Perceptual` has them: layers by their number, whatever slice they are in; what is repeated or fixed is left out."""
    found = {}
    for name, value in held.items():
        if layer := re.fullmatch(r"(?:net\.slice\d+|features)\.(\d+\.\w+)", name):
            found[f"features.{layer[1]}"] = value.float()
        elif channels := re.fullmatch(r"lin(\d+)\.model\.\d+\.weight", name):
            found[f"weights.{channels[1]}"] = value.float()
    return found
