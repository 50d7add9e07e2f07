"""Retention: the paper's equations token by token, the decays of its heads, and its rotation."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from xformer.attention.base import AttentionContext
from xformer.attention.retention import Retention
from xformer.layers.initialise import initialise

HEADS, HEAD_DIM, LENGTH = 4, 6, 21
D_MODEL = HEADS * HEAD_DIM


def made(expand_value: int = 2) -> Retention:
    retention = Retention(AttentionContext(HEADS, HEAD_DIM, 100, 100, True), expand_value=expand_value, kernel="torch")
    initialise(retention, seed=0)
    with torch.no_grad():
        torch.nn.init.normal_(retention.norm.weight), torch.nn.init.normal_(retention.norm.bias)
    return retention.double()


def sequence(length: int = LENGTH) -> Tensor:
    return torch.randn(2, length, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def complex_rotation(x: Tensor, position: int) -> Tensor:
    """x e^(i position theta) of features (j, j + d / 2) as complex numbers."""
    half = len(x) // 2
    theta = torch.tensor([10000 ** (-2 * j / len(x)) for j in range(half)], dtype=torch.float64)
    turned = torch.complex(x[:half], x[half:]) * torch.exp(1j * position * theta)
    return torch.cat([turned.real, turned.imag])


def group_normed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt() * weight + bias


def recurrent(one: Tensor, retention: Retention, expand: int) -> Tensor:
    """Equation 6 for one sequence: heads and tokens one by one."""
    wq, wk, wv, wg, wo = (getattr(retention, name).weight for name in ("query", "key", "value", "gate", "output"))
    wide, normed = HEAD_DIM * expand, torch.zeros(len(one), HEADS * HEAD_DIM * expand, dtype=torch.float64)
    for h in range(HEADS):
        narrow, broad = slice(h * HEAD_DIM, (h + 1) * HEAD_DIM), slice(h * wide, (h + 1) * wide)
        state, gamma = torch.zeros(HEAD_DIM, wide, dtype=torch.float64), 1 - 2.0 ** (-5 - h)
        for t, x in enumerate(one):
            q, k = complex_rotation(wq[narrow] @ x, t), complex_rotation(wk[narrow] @ x, t) / math.sqrt(HEAD_DIM)
            state = gamma * state + torch.outer(k, wv[broad] @ x)
            normed[t, broad] = group_normed(q @ state, retention.norm.weight[broad], retention.norm.bias[broad])
    gate = one @ wg.T
    return (gate * gate.sigmoid() * normed) @ wo.T


def parallel(one: Tensor, retention: Retention, expand: int) -> Tensor:
    """Equation 5: every pair of tokens, with sums over all scores."""
    wq, wk, wv, wg, wo = (getattr(retention, name).weight for name in ("query", "key", "value", "gate", "output"))
    wide, normed = HEAD_DIM * expand, torch.zeros(len(one), HEADS * HEAD_DIM * expand, dtype=torch.float64)
    for h in range(HEADS):
        narrow, broad = slice(h * HEAD_DIM, (h + 1) * HEAD_DIM), slice(h * wide, (h + 1) * wide)
        q, k = (torch.stack([complex_rotation(w[narrow] @ x, t) for t, x in enumerate(one)]) for w in (wq, wk))
        distance = torch.arange(len(one))[:, None] - torch.arange(len(one))
        d = torch.where(distance >= 0, (1 - 2.0 ** (-5 - h)) ** distance.double(), 0.0)
        mixed = (q @ k.T / math.sqrt(HEAD_DIM) * d) @ (one @ wv[broad].T)
        for t in range(len(one)):
            normed[t, broad] = group_normed(mixed[t], retention.norm.weight[broad], retention.norm.bias[broad])
    gate = one @ wg.T
    return (gate * gate.sigmoid() * normed) @ wo.T


@pytest.mark.parametrize("form", [recurrent, parallel])
@pytest.mark.parametrize("expand", [1, 2])
@pytest.mark.parametrize("length", [1, LENGTH, 70])
def test_is_the_paper_s_equation(form: Callable[[Tensor, Retention, int], Tensor], expand: int, length: int) -> None:
    retention, x = made(expand), sequence(length)
    expected = torch.stack([form(one, retention, expand) for one in x])
    assert_close(retention(x), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("cuts", [range(1, LENGTH + 1), [7, 8, 9, LENGTH], [20, 21]])
def test_decoding_is_the_whole(cuts: list[int]) -> None:
    retention, x = made(), sequence()
    state, parts, start = retention.init_state(LENGTH), [], 0
    for end in cuts:
        parts.append(retention(x[:, start:end], state=state))
        start = end
    assert_close(torch.cat(parts, dim=1), retention(x), atol=1e-10, rtol=1e-10)
    assert state.bytes == 2 * HEADS * HEAD_DIM * 2 * HEAD_DIM * 8


def test_parameters_are_as_documented() -> None:
    for r in (1, 2, 3):
        count = sum(parameter.numel() for parameter in made(r).parameters())
        assert count == (2 + 3 * r) * D_MODEL**2 + 2 * r * D_MODEL


def test_the_divisions_that_are_left_out_change_nothing() -> None:
    """Section 2.1: a head's output may be divided by any number, as its norm divides by its size."""
    x = torch.randn(12, dtype=torch.float64)
    one, zero = torch.ones(12, dtype=torch.float64), torch.zeros(12, dtype=torch.float64)
    assert_close(group_normed(x * 37.0, one, zero), group_normed(x, one, zero), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("head_dim", [1, 3])
def test_the_last_of_an_odd_number_of_features_is_not_rotated(head_dim: int) -> None:
    retention = Retention(AttentionContext(2, head_dim, 8, 8, True), expand_value=2, kernel="torch")
    x, positions = torch.randn(1, 2, 5, head_dim), torch.arange(5)[None]
    assert_close(retention.rotary.rotate(x, positions)[..., -1], x[..., -1])
