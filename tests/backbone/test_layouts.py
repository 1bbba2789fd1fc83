"""Who attends to whom: every way to compute it is the same attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tiny
from videodit.backbone import attention
from videodit.backbone.attention import KERNELS, PART, attend

QUERY, KEY, VALUE = (tiny.grid(2, 3, 7, 4, seed=i) for i in range(3))
VISIBLE = torch.tensor([[True] * 7, [True, True, False, False, True, True, True]])[:, None, None]


def with_gradients(dtype: torch.dtype, visible: Tensor | None) -> list[Tensor]:
    leaves = [x.to(dtype, copy=True).requires_grad_() for x in (QUERY, KEY, VALUE)]
    out = attend(*leaves, visible)
    (out * tiny.grid(*out.shape, seed=9)).sum().backward()
    return [out.detach().float(), *(leaf.grad.float() for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("visible", [None, VISIBLE, VISIBLE[..., :4]])
def test_plain_products_are_the_same_attention(visible: Tensor | None, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = with_gradients(torch.float32, visible)
    plain = with_gradients(torch.bfloat16, visible)
    monkeypatch.setattr(attention, "PLAIN_TOKENS", 0)
    kernel = with_gradients(torch.bfloat16, visible)
    for truth, one, other in zip(exact, plain, kernel, strict=True):
        assert not torch.equal(one, truth)  # half precision it was
        torch.testing.assert_close(one, truth, rtol=0.03, atol=0.03)
        torch.testing.assert_close(one, other, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("visible", [None, VISIBLE, VISIBLE[..., :4]])
@pytest.mark.parametrize("part", [PART, 100, 1])
@torch.no_grad()
def test_parts_of_any_size_are_the_same_attention(visible: Tensor | None, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, two heads at a time, one; and it is what half precision uses where nothing learns."""
    monkeypatch.setattr(attention, "PART", part)
    expected = KERNELS["fused"](QUERY, KEY, VALUE, visible)
    torch.testing.assert_close(KERNELS["parts"](QUERY, KEY, VALUE, visible), expected, rtol=1e-5, atol=1e-6)
    half = [x.bfloat16() for x in (QUERY, KEY, VALUE)]
    assert torch.equal(attend(*half, visible), KERNELS["parts"](*half, visible))
    assert torch.equal(attend(QUERY, KEY, VALUE, visible), expected)


def test_a_choice_overrides_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    with attention.noted() as cases, torch.no_grad():
        before = attend(QUERY, KEY, VALUE, None)
    (case,) = cases
    assert case.name == "attention float32 using 8 4" and (case.groups, case.queries, case.keys) == (6, 7, 7)
    monkeypatch.setitem(attention.CHOSEN, case.name, "plain")
    with torch.no_grad():
        after = attend(QUERY, KEY, VALUE, None)
        assert torch.equal(after, KERNELS["plain"](QUERY, KEY, VALUE, None))
        torch.testing.assert_close(after, before)


FEW = [(256, 16, 64), (256, 31, 8)]
OTHERS = [(256, 15, 8), (256, 32, 8), (255, 16, 8), (256, 16, 72)]


@pytest.mark.parametrize("learning", [False, True])
@pytest.mark.parametrize(("groups", "tokens", "width"), FEW + OTHERS)
def test_few_frames_of_many_places_take_plain_products(
    groups: int, tokens: int, width: int, learning: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In single precision; and their outputs and gradients are the fused kernel's."""
    leaves = [tiny.grid(groups, 1, tokens, width, seed=i).requires_grad_(learning) for i in range(3)]
    visible = torch.arange(tokens).expand(groups, 1, 1, tokens) % 5 > 0
    expected, called = KERNELS["fused"](*leaves, visible), []
    for name, one in KERNELS.items():
        monkeypatch.setitem(KERNELS, name, lambda *given, name=name, one=one: (called.append(name), one(*given))[1])
    found = attend(*leaves, visible)
    assert called == ["plain" if (groups, tokens, width) in FEW else "fused"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    if learning:
        pulls = [torch.autograd.grad(out.square().sum(), leaves) for out in (found, expected)]
        torch.testing.assert_close(*pulls, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_seen_has_no_gradient() -> None:
    _, _, key, value = with_gradients(torch.bfloat16, VISIBLE)
    assert not key[1, :, 2:4].any() and not value[1, :, 2:4].any() and value[1, :, 4].any()
