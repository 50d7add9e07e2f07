"""The kernel for biases of the distance alone, against the equation with everything written out."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from xformer.attention import distance_bias
from xformer.attention.distance_bias import mix_by_distance
from xformer.core.bias import TableBias
from xformer.core.mask import Mask

BATCH, HEADS, HEAD_DIM, LONGEST = 3, 2, 4, 40


class Table(TableBias):
    """Any number for any distance."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    def table(self, distances: Tensor) -> Tensor:
        return self.numbers[:, distances + LONGEST]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distance_bias, "ROWS", 4)
    monkeypatch.setattr(distance_bias, "SCORES", 4 * 11 * 2)  # two sequences of eleven at a time


def numbers(trained: bool = True) -> Tensor:
    return torch.randn(HEADS, 2 * LONGEST + 1, dtype=torch.float64, requires_grad=trained)


def tensors(queries: int, keys: int) -> list[Tensor]:
    shapes = [(BATCH, HEADS, length, HEAD_DIM) for length in (queries, keys, keys)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def written_out(query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Table) -> Tensor:
    scores = query @ key.mT / math.sqrt(HEAD_DIM) + bias.scores(query, mask.distances())
    allowed = torch.ones_like(scores, dtype=torch.bool) if mask.dense() is None else mask.dense()
    weights = scores.masked_fill(~allowed, -1e30).softmax(-1).masked_fill(~allowed, 0.0)
    return weights @ value


def placed(queries: int, keys: int, start: int, causal: bool, padded: bool) -> Mask:
    real = torch.arange(keys) < torch.tensor([[keys], [keys - 2], [0]]) if padded else None
    places = torch.arange(start, start + queries)[None], torch.arange(3, 3 + keys)[None]
    return Mask(*places, causal, real)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys", "start"), [(11, 11, 3), (3, 3, 3), (8, 4, 3), (5, 13, 11), (6, 9, 0)])
def test_equals_the_equation(queries: int, keys: int, start: int, causal: bool, padded: bool) -> None:
    """Blocks that do not fill up, queries behind the keys and before them: these have nothing to read."""
    mask, bias, inputs = placed(queries, keys, start, causal, padded), Table(numbers()), tensors(queries, keys)
    mixed, expected = mix_by_distance(*inputs, mask=mask, bias=bias), written_out(*inputs, mask, bias)
    assert_close(mixed, expected)
    upstream, leaves = torch.randn_like(mixed), (*inputs, bias.numbers)
    for found, known in zip(*(torch.autograd.grad(y, leaves, upstream) for y in (mixed, expected)), strict=True):
        assert_close(found, known)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_a_bias_that_is_not_trained(causal: bool, padded: bool) -> None:
    mask, bias, inputs = placed(11, 11, 3, causal, padded), Table(numbers(trained=False)), tensors(11, 11)
    mixed, expected = mix_by_distance(*inputs, mask=mask, bias=bias), written_out(*inputs, mask, bias)
    assert_close(mixed, expected)
    upstream = torch.randn_like(mixed)
    for found, known in zip(*(torch.autograd.grad(y, inputs, upstream) for y in (mixed, expected)), strict=True):
        assert_close(found, known)


def test_a_number_that_is_none_stays_one() -> None:
    """Only rows that may read nothing are zero; a fault upstream must show."""
    query, key, value = (x.detach() for x in tensors(6, 6))
    query[0, 0, 3, 0] = math.nan
    mixed = mix_by_distance(query, key, value, mask=placed(6, 6, 3, True, True), bias=Table(numbers()))
    assert mixed[0, 0, 3].isnan().all()
    assert mixed.isnan().sum() == HEAD_DIM


@pytest.mark.parametrize("causal", [False, True])
def test_bfloat16(causal: bool) -> None:
    mask, bias, inputs = placed(11, 11, 3, causal, False), Table(numbers()), tensors(11, 11)
    small = [x.detach().bfloat16().requires_grad_() for x in inputs]
    exact = [x.detach().double().requires_grad_() for x in small]
    mixed = mix_by_distance(*small, mask=mask, bias=bias)
    assert mixed.dtype == torch.bfloat16
    expected = written_out(*exact, mask, bias)
    assert_close(mixed.double(), expected, rtol=0.01, atol=0.01)
    upstream = torch.randn_like(mixed)
    found = torch.autograd.grad(mixed, (*small, bias.numbers), upstream)
    for one, known in zip(found, torch.autograd.grad(expected, (*exact, bias.numbers), upstream.double()), strict=True):
        assert_close(one.double(), known, rtol=0.02, atol=0.02)


def test_the_operators_keep_what_they_declare() -> None:
    """Gradients, shapes, and what a compiler makes of them."""
    inputs, table = tensors(5, 5), numbers()[:, :9].detach().clone().requires_grad_()
    real = torch.ones(BATCH, 5, dtype=torch.bool)
    torch.library.opcheck(distance_bias._attend, (*inputs, table, real, 1))


def test_scores_are_not_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The room for scores is a block's, and there are one forward and two backward."""
    rooms: list[int] = []
    make = distance_bias._room

    def counted(*arguments: Tensor, **options: int) -> Tensor:
        rooms.append((room := make(*arguments, **options)).numel())
        return room

    monkeypatch.setattr(distance_bias, "_room", counted)
    query, key, value = tensors(40, 40)
    mix_by_distance(query, key, value, mask=Mask.counting(0, 40, causal=False), bias=Table(numbers())).sum().backward()
    assert len(rooms) == 3
    assert max(rooms) <= 4 * (40 + 4)
