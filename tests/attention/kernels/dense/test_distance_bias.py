"""The kernel for biases of the distance alone, against the equation with everything written out."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from xformer.attention.kernels.dense import distance_bias
from xformer.attention.kernels.dense.distance_bias import BLOCK, distance_biased_attention
from xformer.benchmark.live_bytes import extra_bytes
from xformer.core.bias import TableBias
from xformer.core.mask import Mask

BATCH, HEADS, HEAD_DIM, LONGEST = 3, 2, 16, 2048


class Table(TableBias):
    """Any number for any distance."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    def table(self, distances: Tensor) -> Tensor:
        return self.numbers[:, distances + LONGEST]


def numbers(trained: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(HEADS, 2 * LONGEST + 1, dtype=torch.float64, generator=generator).requires_grad_(trained)


def tensors(queries: int, keys: int, batch: int = BATCH) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(batch, HEADS, length, HEAD_DIM) for length in (queries, keys, keys)]
    return [torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_() for shape in shapes]


def written_out(query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Table) -> Tensor:
    scores = query @ key.mT / math.sqrt(HEAD_DIM) + bias.scores(query, mask.distances())
    allowed = torch.ones_like(scores, dtype=torch.bool) if mask.dense() is None else mask.dense()
    weights = scores.masked_fill(~allowed, -1e30).softmax(-1).masked_fill(~allowed, 0.0)
    return weights @ value


def placed(queries: int, keys: int, start: int, causal: bool, padded: bool, batch: int = BATCH) -> Mask:
    """Queries from `start`, keys from 3; the rows of the batch are padded at their end, the last one as a whole."""
    valid = None
    if padded:
        valid = torch.arange(keys) < torch.tensor([keys, max(1, keys - 2), *[0] * (batch - 2)])[:, None]
    return Mask(torch.arange(start, start + queries)[None], torch.arange(3, 3 + keys)[None], causal, valid)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("queries", "keys", "start", "batch"),
    [
        (11, 11, 3, 3),  # less than a block
        (1100, 1100, 3, 3),  # blocks that do not fill up
        (300, 300, 3, 15),  # several sequences in a block, and the rest of them
        (400, 300, 3, 3),  # queries after the last key
        (200, 1024, 900, 3),
        (300, 400, 0, 3),  # queries before the first key
    ],
)
def test_equals_the_equation(queries: int, keys: int, start: int, batch: int, causal: bool, padded: bool) -> None:
    mask, bias = placed(queries, keys, start, causal, padded, batch), Table(numbers())
    inputs = tensors(queries, keys, batch)
    mixed, expected = distance_biased_attention(*inputs, mask=mask, bias=bias), written_out(*inputs, mask, bias)
    assert_close(mixed, expected)
    grad, leaves = torch.randn_like(mixed), (*inputs, bias.numbers)
    for found, known in zip(*(torch.autograd.grad(y, leaves, grad) for y in (mixed, expected)), strict=True):
        assert_close(found, known)


def test_those_sizes_make_several_blocks_and_several_sequences_of_one() -> None:
    query = torch.zeros(15, HEADS, 300, HEAD_DIM)
    blocks = list(distance_bias._blocks(query, query, 300))
    assert {block.rows.stop - block.rows.start for block in blocks} == {BLOCK, 300 % BLOCK}
    assert len({block.batch.start for block in blocks}) == 2


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_a_bias_that_is_not_trained(causal: bool, padded: bool) -> None:
    mask, bias, inputs = placed(1100, 1100, 3, causal, padded), Table(numbers(trained=False)), tensors(1100, 1100)
    mixed, expected = distance_biased_attention(*inputs, mask=mask, bias=bias), written_out(*inputs, mask, bias)
    assert_close(mixed, expected)
    grad = torch.randn_like(mixed)
    for found, known in zip(*(torch.autograd.grad(y, inputs, grad) for y in (mixed, expected)), strict=True):
        assert_close(found, known)


def test_nan_stays_nan() -> None:
    """Only rows without a key are zero; a fault upstream must show."""
    query, key, value = (x.detach() for x in tensors(200, 200))
    query[0, 0, 150, 0] = math.nan
    mixed = distance_biased_attention(query, key, value, mask=placed(200, 200, 3, True, True), bias=Table(numbers()))
    assert mixed[0, 0, 150].isnan().all()
    assert mixed.isnan().sum() == HEAD_DIM


@pytest.mark.parametrize("causal", [False, True])
def test_bfloat16(causal: bool) -> None:
    mask, bias, inputs = placed(300, 300, 3, causal, False), Table(numbers()), tensors(300, 300)
    small = [x.detach().bfloat16().requires_grad_() for x in inputs]
    exact = [x.detach().double().requires_grad_() for x in small]
    mixed = distance_biased_attention(*small, mask=mask, bias=bias)
    assert mixed.dtype == torch.bfloat16
    expected = written_out(*exact, mask, bias)
    assert_close(mixed.double(), expected, rtol=0.01, atol=0.01)
    grad = torch.randn_like(mixed)
    found = torch.autograd.grad(mixed, (*small, bias.numbers), grad)
    for one, known in zip(found, torch.autograd.grad(expected, (*exact, bias.numbers), grad.double()), strict=True):
        assert_close(one.double(), known, rtol=0.02, atol=0.02)


def test_the_operators_keep_what_they_declare() -> None:
    """Gradients, shapes, and what a compiler makes of them."""
    inputs, table = tensors(5, 5), numbers()[:, :9].detach().clone().requires_grad_()
    valid = torch.ones(BATCH, 5, dtype=torch.bool)
    torch.library.opcheck(distance_bias._attend, (*inputs, table, valid, 1))


@pytest.mark.parametrize("causal", [False, True])
def test_scores_are_not_written_out(causal: bool) -> None:
    """Forward and backward hold some blocks of scores, where all of them would be thirty-two."""
    inputs, bias = tensors(LONGEST, LONGEST, batch=1), Table(numbers())
    mask = Mask.consecutive(0, LONGEST, causal=causal)

    def training() -> None:
        distance_biased_attention(*inputs, mask=mask, bias=bias).sum().backward()

    scores_of_a_block = BLOCK * LONGEST * inputs[0].element_size()
    of_tensors = 8 * sum(x.numel() * x.element_size() for x in (*inputs, bias.numbers))
    assert extra_bytes(training) < 3.5 * scores_of_a_block + of_tensors < HEADS * LONGEST**2 * inputs[0].element_size()
