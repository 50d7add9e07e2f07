"""Performer against its equation written out: every pair of a query and a key, in float64."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
from xformer.attention.base import AttentionContext
from xformer.attention.performer import Performer
from xformer.core.mask import Mask

LONG = 1100


def build(causal: bool, features: int = FEATURES, kernel: Any = "exp", interval: int | None = None) -> Performer:
    torch.manual_seed(0)
    context = AttentionContext(HEADS, DIM, LONG, LONG, causal)
    return Performer(context, features=features, kernel=kernel, redraw_interval=interval)


@pytest.mark.parametrize("kernel", ["exp", "relu"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("length", [1, 2, 64, 129, LONG])
def test_equals_the_equation(length: int, name: str, causal: bool, kernel: str) -> None:
    attention, bias = build(causal, kernel=kernel), biases()[name]
    query, key, value = inputs(length)
    mask = self_mask(length, causal)
    expected = equation(attention.log_features, query, key, value, mask, bias)
    assert_close(attention(query, key, value, mask=mask, bias=bias).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize(("queries", "keys"), [(1, 400), (70, 330), (400, 190)])
def test_queries_and_keys_of_different_length(queries: int, keys: int, name: str, causal: bool) -> None:
    attention, bias = build(causal), biases()[name]
    query, key, value = inputs(queries, keys)
    mask = Mask(torch.arange(queries)[None] + 12, torch.arange(keys)[None], causal)
    expected = equation(attention.log_features, query, key, value, mask, bias)
    assert_close(attention(query, key, value, mask=mask, bias=bias).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", BIASES)
def test_a_padded_batch_equals_single_sequences(name: str, causal: bool, side: str) -> None:
    attention, bias = build(causal), biases()[name]
    query, key, value = inputs(LONG, batch=3)
    lengths = [LONG, 623, 0]
    slots = torch.arange(LONG).expand(3, -1)
    starts = torch.tensor([LONG - length if side == "left" else 0 for length in lengths])[:, None]
    padding = (slots >= starts) & (slots < starts + torch.tensor(lengths)[:, None])
    key[~padding[:, None, :].expand(-1, HEADS, -1)] = 1e4
    value[~padding[:, None, :].expand(-1, HEADS, -1)] = float("nan")
    mask = self_mask(LONG, causal, padding, (slots - starts).clamp(min=0))
    query.requires_grad_()
    mixed = attention(query, key, value, mask=mask, bias=bias)
    mixed.sum().backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()
    assert_close(mixed[2], torch.zeros_like(mixed[2]))
    for row, length in enumerate(lengths[:2]):
        real = slice(int(starts[row]), int(starts[row]) + length)
        single = [tensor[row : row + 1, :, real] for tensor in (query, key, value)]
        alone = attention(*single, mask=self_mask(length, causal), bias=bias)
        assert_close(mixed[row : row + 1, :, real], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_no_bit_of_the_past_depends_on_the_future(scale: float, name: str) -> None:
    attention, bias = build(causal=True), biases()[name]
    query, key, value = inputs(389, scale=scale)
    before = attention(query, key, value, mask=self_mask(query.shape[2], True), bias=bias)
    for cut in (1, 64, 128, 259, query.shape[2] - 1):
        for factor in (3.0, -1.0, 50.0):
            for late in (query, key, value):
                kept = late.clone()
                late[:, :, cut:] *= factor
                after = attention(query, key, value, mask=self_mask(query.shape[2], True), bias=bias)
                late.copy_(kept)
                assert_close(after[:, :, :cut], before[:, :, :cut], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_no_norm_gives_nan(scale: float, name: str, causal: bool) -> None:
    attention, bias = build(causal), biases()[name]
    tensors = [tensor.requires_grad_() for tensor in inputs(400, scale=scale)]
    mixed = attention(*tensors, mask=self_mask(400, causal), bias=bias)
    assert mixed.isfinite().all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(mixed.sum(), tensors))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["none", "clipped", "alibi", "unknown"])
def test_gradients_equal_the_equation_s(name: str, causal: bool) -> None:
    attention, bias = build(causal), biases()[name]
    tensors = [tensor.requires_grad_() for tensor in inputs(LONG)]
    weight = bias.weight.requires_grad_() if isinstance(bias, Clipped) else None
    wanted = [*tensors, *([] if weight is None else [weight])]
    mask = self_mask(LONG, causal, torch.arange(LONG) < torch.tensor([[LONG], [700]]))
    towards = torch.randn(2, HEADS, LONG, DIM, generator=torch.Generator().manual_seed(4))
    found = torch.autograd.grad((attention(*tensors, mask=mask, bias=bias) * towards).sum(), wanted)
    expected = torch.autograd.grad((equation(attention.log_features, *tensors, mask, bias) * towards).sum(), wanted)
    for ours, theirs in zip(found, expected, strict=True):
        scale = max(1.0, theirs.abs().max().item())  # that of a table is a sum over all pairs
        assert_close(ours / scale, theirs / scale, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("first", [1, 3, 300])
@pytest.mark.parametrize("side", ["none", "left"])
@pytest.mark.parametrize("name", BIASES)
def test_steps_equal_forward(name: str, side: str, first: int) -> None:
    attention, bias, length = build(causal=True), biases()[name], first + 32
    query, key, value = inputs(length)
    skipped = torch.tensor([[0], [2 if side == "left" else 0]])
    positions = (torch.arange(length) - skipped).clamp(min=0)
    padding = None if side == "none" else torch.arange(length) >= skipped
    expected = attention(query, key, value, mask=self_mask(length, True, padding, positions), bias=bias)
    state, found = attention.init_state(length), []
    cuts = [0, *range(first, length + 1)]
    for start, stop in pairwise(cuts):
        part = slice(start, stop)
        mask = self_mask(0, True, None if padding is None else padding[:, part], positions[:, part])
        new = (tensor[:, :, part] for tensor in (query, key, value))
        found.append(attention.step(*new, state, mask=mask, bias=bias))
    assert state.length == length
    real = slice(2, None) if side == "left" else slice(None)
    assert_close(torch.cat(found, dim=2)[:, :, real], expected[:, :, real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["none", "alibi", "clipped"])
def test_the_state_does_not_grow_and_follows_its_beams(name: str) -> None:
    attention, bias = build(causal=True), biases()[name]
    query, key, value = inputs(30)
    state, sizes = attention.init_state(30), []

    def step(index: int, rows: Tensor) -> Tensor:
        new = (tensor[rows, :, index : index + 1] for tensor in (query, key, value))
        return attention.step(*new, state, mask=self_mask(1, True, None, torch.tensor([[index]])), bias=bias)

    for index in range(28):
        step(index, torch.tensor([0, 1]))
        sizes.append(state.bytes)
    assert len(set(sizes[8:])) == 1
    state.reorder(torch.tensor([1, 1]))
    mixed = step(28, torch.tensor([1, 1]))
    assert_close(mixed[0], mixed[1])
    whole = attention(query, key, value, mask=self_mask(30, True), bias=bias)
    assert_close(mixed[0], whole[1, :, 28:29], atol=1e-5, rtol=1e-5)


def test_the_error_against_softmax_falls_with_the_root_of_the_features() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 1, 64, 16) * size for size in (0.25, 0.25, 1.0))
    exact = torch.nn.functional.scaled_dot_product_attention(query, key, value)

    def error(features: int) -> float:
        context = AttentionContext(1, 16, 64, 64, False)
        attention = Performer(context, features=features, kernel="exp", redraw_interval=None)
        errors = []
        for draw in range(24):
            attention.log_features.draw(draw)
            errors.append((attention(query, key, value, mask=self_mask(64, False)) - exact).square().mean())
        return float(torch.stack(errors).mean().sqrt())

    errors = [error(features) for features in (32, 128, 512, 2048)]
    rates = [math.log(a / b, 4) for a, b in pairwise(errors)]
    assert errors[-1] < 0.002
    assert all(0.4 < rate < 0.6 for rate in rates), rates


def ranks() -> Iterator[Performer]:
    for _ in range(2):
        yield build(causal=True, interval=10)


def test_redrawing_depends_on_the_step_and_the_stored_seed_alone() -> None:
    one, other = ranks()
    first = one.log_features.projection.clone()
    drawn = []
    for step in range(31):
        one.before_batch(step)
        torch.rand(3)
        one.before_batch(step)  # a second batch of the same step
        other.before_batch(step)
        assert_close(one.log_features.projection, other.log_features.projection, atol=0.0, rtol=0.0)
        drawn.append(one.log_features.projection.clone())
    assert all(torch.equal(first, drawn[step]) for step in range(10))
    changes = [step for step in range(1, 31) if not torch.equal(drawn[step], drawn[step - 1])]
    assert changes == [10, 20, 30]


def test_a_resumed_run_goes_on_with_its_features() -> None:
    one = build(causal=True, interval=10)
    one.before_batch(10)
    resumed = build(causal=True, interval=10)
    resumed.log_features.reset_parameters()
    resumed.load_state_dict(one.state_dict())
    assert torch.equal(resumed.log_features.projection, one.log_features.projection)
    for module in (one, resumed):
        module.before_batch(20)
    assert torch.equal(resumed.log_features.projection, one.log_features.projection)


def test_neither_evaluation_nor_forward_redraws() -> None:
    attention = build(causal=True, interval=1)
    before = attention.log_features.projection.clone()
    attention.eval().before_batch(3)
    attention.train()
    query, key, value = inputs(5)
    attention(query, key, value, mask=self_mask(5, True))
    assert torch.equal(attention.log_features.projection, before)


def test_autocast_keeps_the_sums_in_float32() -> None:
    attention = build(causal=True)
    query, key, value = (tensor.bfloat16() for tensor in inputs(50))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = attention(query, key, value, mask=self_mask(50, True))
    assert mixed.dtype == torch.bfloat16
    expected = equation(attention.log_features, query, key, value, self_mask(50, True), None)
    assert_close(mixed.double(), expected, atol=1e-2, rtol=1e-2)


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.numel = max(self.numel, leaf.untyped_storage().nbytes() // leaf.element_size())
        return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", BIASES)
def test_no_tensor_is_quadratic(name: str, causal: bool) -> None:
    attention, bias = build(causal), biases()[name]

    def largest(length: int) -> int:
        tensors = [tensor.requires_grad_() for tensor in inputs(length, batch=1)]
        with LargestTensor() as recorder:
            attention(*tensors, mask=self_mask(length, causal), bias=bias).sum().backward()
        return recorder.numel

    assert largest(2048) <= 2.1 * largest(1024)
