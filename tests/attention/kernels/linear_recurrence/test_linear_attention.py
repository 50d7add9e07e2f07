"""Linear attention with decay: three forms, one recurrence."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.testing import assert_close

from tests.attention.kernels.linear_recurrence.token_by_token import linear_attention
from xformer.attention.kernels.linear_recurrence.linear_attention import (
    chunked_linear_attention,
    parallel_linear_attention,
    recurrent_linear_attention,
)

ROWS, HEADS, KEYS, VALUES = 2, 3, 6, 5
LENGTHS = [1, 2, 3, 7, 8, 13, 64, 65, 150]


def draw(length: int, each: bool, *, shared: bool = False, strength: float = 1.0, seed: int = 0) -> tuple[Tensor, ...]:
    """Queries, keys, values and logarithms of decays, one for each feature or one for all; in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(heads: int, features: int) -> Tensor:
        return torch.randn(ROWS, heads, length, features, generator=generator, dtype=torch.float64)

    heads = 1 if shared else HEADS
    decay = logsigmoid(normal(HEADS, KEYS if each else 1)) * strength
    return normal(heads, KEYS), normal(heads, KEYS), normal(HEADS, VALUES), decay


def initial() -> Tensor:
    return torch.randn(ROWS, HEADS, KEYS, VALUES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_every_form_is_the_recurrence(length: int, each: bool) -> None:
    q, k, v, g = draw(length, each)
    expected = linear_attention(q, k, v, g.exp())
    recurrent, state = recurrent_linear_attention(q, k, v, g)
    chunked, last = chunked_linear_attention(q, k, v, g)
    for found in (recurrent, chunked, parallel_linear_attention(q, k, v, g)):
        assert_close(found, expected, atol=1e-10, rtol=1e-10)
    assert_close(last, state, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 4, 8, 16, 128])
def test_the_chunk_changes_nothing(chunk: int, each: bool) -> None:
    inputs = draw(37, each)
    for found, expected in zip(
        chunked_linear_attention(*inputs, initial(), chunk=chunk),
        recurrent_linear_attention(*inputs, initial()),
        strict=True,
    ):
        assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("length", [5, 70])
def test_a_state_is_continued(length: int, each: bool) -> None:
    q, k, v, g = draw(length, each)
    expected = linear_attention(q, k, v, g.exp(), initial())
    for form in (recurrent_linear_attention, chunked_linear_attention):
        assert_close(form(q, k, v, g, initial())[0], expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("each", [False, True])
def test_cut_anywhere_it_is_the_whole(each: bool) -> None:
    inputs = draw(150, each)
    whole, last = chunked_linear_attention(*inputs)
    state, parts, start = None, [], 0
    for end in (1, 2, 70, 71, 150):
        part, state = chunked_linear_attention(*(x[:, :, start:end] for x in inputs), state)
        parts.append(part)
        start = end
    assert_close(torch.cat(parts, dim=2), whole, atol=1e-10, rtol=1e-10)
    assert_close(state, last, atol=1e-10, rtol=1e-10)


def test_keys_and_queries_that_heads_share_and_a_decay_that_rows_share() -> None:
    q, k, v, g = draw(70, False, shared=True)
    repeated = q.expand(-1, HEADS, -1, -1), k.expand(-1, HEADS, -1, -1)
    expected = linear_attention(*repeated, v, g[:1].exp().expand(ROWS, -1, -1, -1))
    for form in (recurrent_linear_attention, chunked_linear_attention):
        assert_close(form(q, k, v, g[:1])[0], expected, atol=1e-10, rtol=1e-10)
    assert_close(parallel_linear_attention(q, k, v, g[:1]), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("strength", [1e-3, 10.0, 1e3])
def test_float32_keeps_its_digits_whatever_the_gates(each: bool, strength: float) -> None:
    """Gates that forget all at once overflow where a product of gates is divided by; gates near 1 lose no digits."""
    inputs = draw(150, each, strength=strength)
    exact, _ = recurrent_linear_attention(*inputs)
    rounded = [x.float() for x in inputs]
    found, state = chunked_linear_attention(*rounded)
    assert (found - exact).norm() / exact.norm() < 2e-6
    assert state.isfinite().all()
    leaves = [x.requires_grad_() for x in rounded]
    gradients = torch.autograd.grad(chunked_linear_attention(*leaves)[0].square().sum(), leaves)
    assert all(x.isfinite().all() for x in gradients)


def test_digits_survive_a_token_that_forgets_all() -> None:
    """The logarithm -1e6 has no digits left for the decay of 0.9 that follows, unless it is left out of the sums."""
    q, k, v, g = draw(64, False)
    g = torch.full_like(g, 0.9).log()
    g[:, :, 5] = -1e6
    exact, _ = recurrent_linear_attention(q, k, v, g)
    found, _ = chunked_linear_attention(*(x.float() for x in (q, k, v, g)))
    assert_close(found.double(), exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("each", [False, True])
def test_gradients_are_those_of_the_recurrence(each: bool) -> None:
    inputs = [x.requires_grad_() for x in (*draw(37, each), initial())]
    gradients = []
    for form in (recurrent_linear_attention, chunked_linear_attention):
        outputs, last = form(*inputs)
        gradients.append(torch.autograd.grad(outputs.square().sum() + last.sin().sum(), inputs))
    for found, expected in zip(*gradients, strict=True):
        assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("each", [False, True])
def test_gradcheck(each: bool) -> None:
    inputs = [x[:1, :1].requires_grad_() for x in (*draw(6, each), initial())]
    assert torch.autograd.gradcheck(lambda *x: chunked_linear_attention(*x, chunk=8), inputs)
    assert torch.autograd.gradcheck(lambda *x: chunked_linear_attention(*x, chunk=2), inputs)
