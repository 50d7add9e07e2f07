"""The gated delta rule: two forms, one recurrence."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize
from torch.testing import assert_close

from tests.attention.kernels.linear_recurrence.token_by_token import delta_rule
from xformer.attention.kernels.linear_recurrence.delta_rule import chunked_delta_rule, recurrent_delta_rule

ROWS, HEADS, KEYS, VALUES = 2, 3, 6, 5
LENGTHS = [1, 2, 3, 7, 8, 13, 64, 65, 150]


def draw(length: int, *, strength: float = 1.0) -> tuple[Tensor, ...]:
    """Queries, keys of norm 1, values, shares and logarithms of decays, in float64."""
    generator = torch.Generator().manual_seed(0)

    def normal(features: int) -> Tensor:
        return torch.randn(ROWS, HEADS, length, features, generator=generator, dtype=torch.float64)

    q, k, v = normal(KEYS), normalize(normal(KEYS), dim=-1), normal(VALUES)
    return q, k, v, normal(1).sigmoid(), logsigmoid(normal(1)) * strength


def initial() -> Tensor:
    return torch.randn(ROWS, HEADS, KEYS, VALUES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("begun", [False, True])
def test_both_forms_are_the_recurrence(length: int, begun: bool) -> None:
    q, k, v, beta, g = draw(length)
    state = initial() if begun else None
    expected, last = delta_rule(q, k, v, beta, g.exp(), state)
    for form in (recurrent_delta_rule, chunked_delta_rule):
        found, after = form(q, k, v, beta, g, state)
        assert_close(found, expected, atol=1e-10, rtol=1e-10)
        assert_close(after, last.mT, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("chunk", [1, 2, 4, 8, 16, 128])
def test_the_chunk_changes_nothing(chunk: int) -> None:
    inputs = draw(37)
    for found, expected in zip(
        chunked_delta_rule(*inputs, initial(), chunk=chunk), recurrent_delta_rule(*inputs, initial()), strict=True
    ):
        assert_close(found, expected, atol=1e-10, rtol=1e-10)


def test_cut_anywhere_it_is_the_whole() -> None:
    inputs = draw(150)
    whole, last = chunked_delta_rule(*inputs)
    state, parts, start = None, [], 0
    for end in (1, 2, 70, 71, 150):
        part, state = chunked_delta_rule(*(x[:, :, start:end] for x in inputs), state)
        parts.append(part)
        start = end
    assert_close(torch.cat(parts, dim=2), whole, atol=1e-10, rtol=1e-10)
    assert_close(state, last, atol=1e-10, rtol=1e-10)


def test_without_decay_a_key_that_comes_again_is_replaced() -> None:
    """With beta 1 and orthogonal keys the state is a table: a query reads the last value of its key."""
    keys = torch.eye(4, dtype=torch.float64)[torch.tensor([0, 1, 2, 0, 3, 1, 0])][None, None]
    values = torch.arange(7.0, dtype=torch.float64).view(1, 1, 7, 1)
    one, zero = torch.ones(1, 1, 7, 1, dtype=torch.float64), torch.zeros(1, 1, 7, 1, dtype=torch.float64)
    _, state = chunked_delta_rule(keys, keys, values, one, zero)
    assert_close(state.flatten(), torch.tensor([6.0, 5.0, 2.0, 4.0], dtype=torch.float64))


@pytest.mark.parametrize("strength", [1e-3, 10.0, 1e3])
def test_float32_keeps_its_digits_whatever_the_gates(strength: float) -> None:
    inputs = draw(150, strength=strength)
    exact, _ = recurrent_delta_rule(*inputs)
    leaves = [x.float().requires_grad_() for x in inputs]
    found, _ = chunked_delta_rule(*leaves)
    assert (found - exact).norm() / exact.norm() < 4e-6
    assert all(x.isfinite().all() for x in torch.autograd.grad(found.square().sum(), leaves))


def test_gradients_are_those_of_the_recurrence() -> None:
    inputs = [x.requires_grad_() for x in (*draw(37), initial())]
    gradients = []
    for form in (recurrent_delta_rule, chunked_delta_rule):
        outputs, last = form(*inputs)
        gradients.append(torch.autograd.grad(outputs.square().sum() + last.sin().sum(), inputs))
    for found, expected in zip(*gradients, strict=True):
        assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("chunk", [2, 8])
def test_gradcheck(chunk: int) -> None:
    inputs = [x[:1, :1].requires_grad_() for x in (*draw(6), initial())]
    assert torch.autograd.gradcheck(lambda *x: chunked_delta_rule(*x, chunk=chunk), inputs)
