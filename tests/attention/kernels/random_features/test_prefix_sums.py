"""Prefix sums against the equation with every pair written out, and their state against the whole sequence."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.attention.kernels.random_features.equation import (
    BIASES,
    DIM,
    FEATURES,
    HEADS,
    Clipped,
    biases,
    equation,
    inputs,
    self_mask,
)
from xformer.attention.kernels.random_features.features import RandomFeatures
from xformer.attention.kernels.random_features.prefix_sums import (
    CHUNK,
    PrefixSumState,
    prefix_sum_attention,
)
from xformer.core.mask import Mask
from xformer.position.alibi import LinearBias

LONG = 8 * CHUNK + 77
both_directions = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])


def phi(kernel: Any = "exp") -> RandomFeatures:
    torch.manual_seed(0)
    return RandomFeatures(FEATURES, DIM, kernel)


@pytest.mark.parametrize("kernel", ["exp", "relu"])
@both_directions
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("length", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, LONG])
def test_equals_the_equation(length: int, name: str, causal: bool, kernel: str) -> None:
    features, bias, mask, tensors = phi(kernel), biases()[name], self_mask(length, causal), inputs(length)
    expected = equation(features, *tensors, mask, bias)
    assert_close(
        prefix_sum_attention(features, *tensors, mask=mask, bias=bias).double(), expected, atol=1e-5, rtol=1e-5
    )


@both_directions
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize(("queries", "keys"), [(1, 1024), (300, 1024), (1024, 200)])
def test_queries_and_keys_of_different_length(queries: int, keys: int, name: str, causal: bool) -> None:
    features, bias, tensors = phi(), biases()[name], inputs(queries, keys)
    mask = Mask(torch.arange(queries)[None] + 12, torch.arange(keys)[None], causal)
    # A decay over a thousand positions is an exponent of hundreds, which float32 rounds.
    expected = equation(features, *tensors, mask, bias)
    assert_close(
        prefix_sum_attention(features, *tensors, mask=mask, bias=bias).double(), expected, atol=3e-5, rtol=1e-5
    )


@both_directions
@pytest.mark.parametrize("name", BIASES)
def test_gradients_equal_the_equation_s(name: str, causal: bool) -> None:
    """One row is padded, for more than a chunk at its end; the other is not."""
    features, bias, length = phi(), biases()[name], LONG
    tensors = [tensor.requires_grad_() for tensor in inputs(length)]
    trained = [bias.weight.requires_grad_()] if isinstance(bias, Clipped) else []
    mask = self_mask(length, causal, torch.arange(length) < torch.tensor([[length], [length - 2 * CHUNK]]))
    grad = torch.randn(2, HEADS, length, DIM, generator=torch.Generator().manual_seed(4))
    mixed = prefix_sum_attention(features, *tensors, mask=mask, bias=bias), equation(features, *tensors, mask, bias)
    found, expected = (torch.autograd.grad((x * grad).sum(), [*tensors, *trained]) for x in mixed)
    for ours, theirs in zip(found, expected, strict=True):
        scale = max(1.0, theirs.abs().max().item())  # that of a table is a sum over all pairs
        assert_close(ours / scale, theirs / scale, atol=2e-5, rtol=1e-4)


@both_directions
def test_gradcheck(causal: bool) -> None:
    """Three chunks, with the slopes of a decay."""
    length, features = 2 * CHUNK + 3, phi().double()
    tensors = [tensor[:, :1].double().requires_grad_() for tensor in inputs(length, batch=1)]
    slopes = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)

    def mixed(query: Tensor, key: Tensor, value: Tensor, slopes: Tensor) -> Tensor:
        mask = self_mask(length, causal)
        return prefix_sum_attention(features, query, key, value, mask=mask, bias=LinearBias(slopes))

    assert torch.autograd.gradcheck(mixed, (*tensors, slopes), fast_mode=True)


@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("sizes", [[1000, 1, 1, 300, 1, 1], [1] * 20], ids=["context_first", "one_by_one"])
def test_steps_equal_the_whole_sequence(name: str, sizes: list[int]) -> None:
    features, bias, tensors = phi(), biases()[name], inputs(sum(sizes))
    expected = prefix_sum_attention(features, *tensors, mask=self_mask(sum(sizes), True), bias=bias)
    state, found = PrefixSumState(), []
    for start, stop in pairwise([sum(sizes[:i]) for i in range(len(sizes) + 1)]):
        mask = self_mask(0, True, None, torch.arange(start, stop)[None])
        new = (tensor[:, :, start:stop] for tensor in tensors)
        found.append(prefix_sum_attention(features, *new, mask=mask, bias=bias, state=state))
    assert state.length == sum(sizes)
    assert_close(torch.cat(found, dim=2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "window"), [("none", 0), ("alibi", 0), ("clipped", 5), ("unknown", 60)])
def test_the_state_holds_the_sums_and_the_window_alone(name: str, window: int) -> None:
    """Not the storage of what the window was cut from."""
    features, bias, tensors, state = phi(), biases()[name], inputs(60), PrefixSumState()
    prefix_sum_attention(features, *tensors, mask=self_mask(60, True), bias=bias, state=state)
    assert state.window is not None
    assert state.window.key.shape[2] == window
    for tensor in state.window:
        assert tensor is None or tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_nothing_but_padding_is_zeros() -> None:
    features, tensors = phi(), [tensor.requires_grad_() for tensor in inputs(300, batch=3)]
    valid = torch.arange(300) < torch.tensor([[300], [1], [0]])
    mixed = prefix_sum_attention(features, *tensors, mask=self_mask(300, True, valid), bias=biases()["clipped"])
    assert (mixed[2] == 0).all()
    assert (mixed[:2] != 0).all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(mixed.sum(), tensors))
