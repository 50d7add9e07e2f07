"""Gated linear attention: the paper's equation token by token, and its parallel form."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from xformer.attention.base import AttentionContext
from xformer.attention.gla import GLA
from xformer.errors import ConfigError
from xformer.layers.initialise import initialise

HEADS, HEAD_DIM, LENGTH, RANK, TAU = 3, 8, 21, 5, 16.0
D_MODEL = HEADS * HEAD_DIM


def made(expand_key: float = 0.5, expand_value: float = 1.0, temperature: float = TAU) -> GLA:
    context = AttentionContext(HEADS, HEAD_DIM, 100, 100, True)
    options = {"expand_key": expand_key, "expand_value": expand_value, "temperature": temperature}
    gla = GLA(context, rank=RANK, kernel="torch", **options)
    initialise(gla, seed=0)
    with torch.no_grad():
        for vector in (gla.norm.weight, gla.norm.bias, gla.gate.bias, gla.forget_up.bias):
            torch.nn.init.normal_(vector)
    return gla.double()


def sequence(length: int = LENGTH) -> Tensor:
    return torch.randn(2, length, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def written_out(one: Tensor, gla: GLA, temperature: float) -> Tensor:
    """Section 4.4 for one sequence: heads and tokens one by one."""
    keys, values = len(gla.query.weight) // HEADS, len(gla.value.weight) // HEADS
    normed = torch.zeros(len(one), HEADS * values, dtype=torch.float64)
    for h in range(HEADS):
        narrow, broad = slice(h * keys, (h + 1) * keys), slice(h * values, (h + 1) * values)
        state = torch.zeros(keys, values, dtype=torch.float64)
        for t, x in enumerate(one):
            low = gla.forget_up.weight[narrow] @ (gla.forget_down.weight @ x) + gla.forget_up.bias[narrow]
            alpha = (1 / (1 + torch.exp(-low))) ** (1 / temperature)
            state = torch.outer(alpha, torch.ones(values, dtype=torch.float64)) * state
            state = state + torch.outer(gla.key.weight[narrow] @ x, gla.value.weight[broad] @ x)
            o = (gla.query.weight[narrow] @ x) @ state / keys**0.5
            o = (o - o.mean()) / (o.var(unbiased=False) + 1e-5).sqrt()
            normed[t, broad] = o * gla.norm.weight[broad] + gla.norm.bias[broad]
    gate = one @ gla.gate.weight.T + gla.gate.bias
    return (gate / (1 + torch.exp(-gate)) * normed) @ gla.output.weight.T


@pytest.mark.parametrize(("expand_key", "expand_value", "temperature"), [(0.5, 1.0, TAU), (1.0, 2.0, 1.0)])
@pytest.mark.parametrize("length", [1, LENGTH, 70])
def test_is_the_paper_s_equation(length: int, expand_key: float, expand_value: float, temperature: float) -> None:
    gla, x = made(expand_key, expand_value, temperature), sequence(length)
    expected = torch.stack([written_out(one, gla, temperature) for one in x])
    assert_close(gla(x), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("cuts", [range(1, LENGTH + 1), [7, 8, 9, LENGTH], [20, 21]])
def test_decoding_is_the_whole(cuts: list[int]) -> None:
    gla, x = made(), sequence()
    state, parts, start = gla.init_state(LENGTH), [], 0
    for end in cuts:
        parts.append(gla(x[:, start:end], state=state))
        start = end
    assert_close(torch.cat(parts, dim=1), gla(x), atol=1e-10, rtol=1e-10)
    assert state.bytes == 2 * HEADS * (HEAD_DIM // 2) * HEAD_DIM * 8


def test_parameters_are_as_documented() -> None:
    for s, r in ((0.5, 1.0), (1.0, 2.0)):
        count = sum(parameter.numel() for parameter in made(s, r).parameters())
        vectors = s * D_MODEL + r * D_MODEL + 2 * r * D_MODEL
        assert count == (2 * s + 3 * r) * D_MODEL**2 + RANK * (1 + s) * D_MODEL + vectors


def test_gates_that_close_at_once_leave_finite_results_and_gradients() -> None:
    gla = made(temperature=1.0).float()
    with torch.no_grad():
        gla.forget_up.bias.copy_(torch.linspace(-300, 300, len(gla.forget_up.bias)))
    x = sequence(100).float().requires_grad_()
    mixed = gla(x)
    assert mixed.isfinite().all()
    gradients = torch.autograd.grad(mixed.square().sum(), [x, *gla.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert_close(mixed[0].double(), written_out(x[0].double(), gla.double(), 1.0), atol=1e-4, rtol=1e-4)


def test_keys_of_a_fraction_of_a_feature_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"attention.expand_key=0.3 of the 8 features of a head is 2.4, not a whole"):
        made(expand_key=0.3)
