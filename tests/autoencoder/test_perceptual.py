"""A perceptual distance is 0 between equal pictures, the same both ways, and reads the files its nets are published in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import tiny
from videodit.autoencoder import perceptual
from videodit.autoencoder.perceptual import NETS, Blur, Perceptual
from videodit.shapes import UserError

LAYERS = {  # of each slice, as the .pth files number them: convolutions, and the filters that blur
    "st-lpips-alex": (("0", "1"), ("4", "5"), ("8", "9"), ("11",), ("13",)),
    "st-lpips-vgg": (("0", "2"), ("5", "6", "8"), ("11", "12", "14", "16"), ("19", "20", "22", "24"), ("27", "28", "30", "32")),
    "lpips-alex": (("0",), ("3",), ("6",), ("8",), ("10",)),
    "lpips-vgg": (("0", "2"), ("5", "7"), ("10", "12", "14"), ("17", "19", "21"), ("24", "26", "28")),
}
nets = pytest.mark.parametrize("name", NETS)


def network(name: str) -> Perceptual:
    torch.manual_seed(0)
    net = Perceptual(name)
    for weight in net.weights:
        nn.init.uniform_(weight, 0, 1)
    return net


def pictures(side: int = 32) -> tuple[Tensor, Tensor]:
    return tiny.grid(2, 3, side, side + 4, seed=6).clamp(-1, 1), tiny.grid(2, 3, side, side + 4, seed=7).clamp(-1, 1)


def published(net: Perceptual) -> dict[str, Tensor]:
    """The state as the two projects' classes write it."""
    state = net.state_dict()
    held = {"scaling_layer.shift": net.shift[None], "scaling_layer.scale": net.scale[None]}
    for number, layers in enumerate(LAYERS[net.name], start=1):
        for name, value in state.items():
            if name.startswith("features.") and name.split(".")[1] in layers:
                held[f"net.slice{number}.{name.removeprefix('features.')}"] = value
    for number, weight in enumerate(net.weights):
        held[f"lin{number}.model.1.weight"] = held[f"lins.{number}.model.1.weight"] = weight.detach()
    return held


@nets
def test_equal_pictures_are_at_no_distance_and_both_ways_are_as_long(name: str):
    net, (one, other) = network(name), pictures()
    assert torch.equal(net(one, one), torch.zeros(2))
    assert (net(one, other) > 0).all()
    torch.testing.assert_close(net(one, other), net(other, one))
    torch.testing.assert_close(net(one, other)[1:], net(one[1:], other[1:]))


@nets
def test_gradients_reach_the_pictures_and_nothing_else(name: str):
    net, (one, other) = network(name), pictures()
    one[0] = 0.0  # one colour, where features are most alike
    one.requires_grad_()
    net(one, other).sum().backward()
    assert one.grad is not None and one.grad.isfinite().all() and all(picture.abs().sum() > 0 for picture in one.grad)
    assert not any(parameter.requires_grad for parameter in net.parameters()) and not net.training


def test_places_without_features_have_no_broken_gradients():
    net, (one, other) = network("lpips-vgg"), pictures()
    for layer in net.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.bias, -10.0)  # pyright: ignore[reportArgumentType]
    one.requires_grad_()
    net(one, other).sum().backward()
    assert one.grad is not None and one.grad.isfinite().all()


def test_a_blur_keeps_one_colour_and_averages_a_checkerboard():
    board = torch.ones(1, 2, 8, 8)
    torch.testing.assert_close(Blur(2)(board), torch.ones(1, 2, 5, 5))
    board[..., ::2, 1::2] = board[..., 1::2, ::2] = 0
    torch.testing.assert_close(Blur(2)(board), torch.full((1, 2, 5, 5), 0.5))


@nets
def test_the_smallest_picture_is_stated(name: str):
    least = NETS[name][1]
    net = network(name)
    assert net(torch.zeros(1, 3, least, least), torch.ones(1, 3, least, least)).isfinite().all()
    with pytest.raises(UserError, match=f"{name} sees nothing in {least - 1}x40: use {least}x{least} or more"):
        net(torch.zeros(1, 3, least - 1, 40), torch.zeros(1, 3, least - 1, 40))
    net.smallest = 0
    with pytest.raises(RuntimeError):
        net(torch.zeros(1, 3, least - 1, 40), torch.zeros(1, 3, least - 1, 40))


@nets
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_published_files_are_read_and_named_by_what_they_hold(name: str, suffix: str, tmp_path: Path):
    net, path = network(name), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(published(net), path)
    else:
        save_file({key: value.clone() for key, value in published(net).items()}, path)
    read = perceptual.load(path)
    assert read.name == name
    assert torch.equal(read(*pictures()), net(*pictures()))


def test_an_image_classifier_with_the_channels_weights_beside_it_is_read(tmp_path: Path):
    net = network("lpips-alex")
    held = {**published(net), **net.state_dict(), "classifier.1.weight": torch.zeros(2, 2)}
    torch.save({key: value for key, value in held.items() if not key.startswith(("net.", "weights."))}, tmp_path / "a.pth")
    assert perceptual.load(tmp_path / "a.pth").name == "lpips-alex"


def test_a_wrong_file_is_one_sentence(tmp_path: Path):
    full = published(network("lpips-alex"))
    wrong = {
        "missing.pth": (None, "There is no file"),
        "words.pth": (b"nothing", "cannot be read as tensors alone"),
        "words.safetensors": (b"nothing", "cannot be read as tensors alone"),
        "code.pth": ({"a": Path("x")}, "cannot be read as tensors alone"),
        "list.pth": ([torch.zeros(1)], "more than tensors by name"),
        "nested.pth": ({"state": {"a": torch.zeros(1)}}, "more than tensors by name"),
        "other.pth": ({"a": torch.zeros(1)}, "is none of st-lpips-alex, st-lpips-vgg, lpips-alex, lpips-vgg"),
        "less.pth": ({k: v for k, v in full.items() if k != "net.slice4.8.bias"}, "is none of"),
        "channels.pth": ({k: v for k, v in full.items() if k.startswith("lin")}, "without a network"),
    }
    for name, (content, words) in wrong.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif content is not None:
            torch.save(content, tmp_path / name)
        with pytest.raises(UserError, match=words) as caught:
            perceptual.load(tmp_path / name)
        assert "\n" not in str(caught.value)
