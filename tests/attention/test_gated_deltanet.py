"""Gated DeltaNet: the paper's equation token by token, what it begins with, and what its optimiser leaves alone."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from xformer.attention.base import AttentionContext
from xformer.attention.gated_deltanet import GatedDeltaNet
from xformer.layers.initialise import initialise
from xformer.optimization.optimizer import adamw

HEADS, HEAD_DIM, LENGTH = 3, 4, 21
D_MODEL = HEADS * HEAD_DIM


def made(expand_value: int = 2, convolution: int = 4) -> GatedDeltaNet:
    context = AttentionContext(HEADS, HEAD_DIM, 100, 100, True)
    mixer = GatedDeltaNet(context, expand_value=expand_value, convolution=convolution, kernel="torch")
    initialise(mixer, seed=0)
    with torch.no_grad():
        torch.nn.init.normal_(mixer.norm.weight)
    return mixer.double()


def sequence(length: int = LENGTH) -> Tensor:
    return torch.randn(2, length, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def convolved(projected: list[Tensor], weight: Tensor, t: int) -> Tensor:
    """sum_j w_j x_(t - j) over tokens from the first on, then silu; the last weight is the token's own."""
    width = weight.shape[-1]
    reached = [weight[:, 0, width - 1 - j] * projected[t - j] for j in range(width) if t >= j]
    return silu(torch.stack(reached).sum(0))


def written_out(one: Tensor, mixer: GatedDeltaNet) -> Tensor:
    """Equation 10 for one sequence: heads and tokens one by one, with the paper's S of e x d."""
    keys, values = HEAD_DIM, len(mixer.value.weight) // HEADS
    projected = [torch.cat([p.weight @ x for p in (mixer.query, mixer.key, mixer.value)]) for x in one]
    identity, normed = torch.eye(keys, dtype=torch.float64), torch.zeros(len(one), HEADS * values, dtype=torch.float64)
    for h in range(HEADS):
        state = torch.zeros(values, keys, dtype=torch.float64)
        for t, x in enumerate(one):
            q, k, v = convolved(projected, mixer.convolve.weight, t).split(mixer.widths)
            q, k, v = q[h * keys :][:keys], k[h * keys :][:keys], v[h * values :][:values]
            q, k = q / (q @ q + 1e-6).sqrt() / keys**0.5, k / (k @ k + 1e-6).sqrt()
            dt = torch.log(1 + torch.exp(mixer.step.weight[h] @ x + mixer.step_bias[h]))
            alpha, beta = torch.exp(-torch.exp(mixer.log_rate[h]) * dt), 1 / (1 + torch.exp(-mixer.write.weight[h] @ x))
            state = state @ (alpha * (identity - beta * torch.outer(k, k))) + beta * torch.outer(v, k)
            o = state @ q
            normed[t, h * values :][:values] = o / (o.square().mean() + 1e-5).sqrt() * mixer.norm.weight
    return (normed * silu(one @ mixer.gate.weight.T)) @ mixer.output.weight.T


@pytest.mark.parametrize(("expand_value", "convolution"), [(2, 4), (1, 1), (3, 2)])
@pytest.mark.parametrize("length", [1, LENGTH, 70])
def test_is_the_paper_s_equation(length: int, expand_value: int, convolution: int) -> None:
    mixer, x = made(expand_value, convolution), sequence(length)
    with torch.no_grad():
        expected = torch.stack([written_out(one, mixer) for one in x])
    assert_close(mixer(x).detach(), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("cuts", [range(1, LENGTH + 1), [7, 8, 9, LENGTH], [20, 21]])
def test_decoding_is_the_whole(cuts: list[int]) -> None:
    mixer, x = made(), sequence()
    state, parts, start = mixer.init_state(LENGTH), [], 0
    for end in cuts:
        parts.append(mixer(x[:, start:end], state=state))
        start = end
    assert_close(torch.cat(parts, dim=1), mixer(x), atol=1e-10, rtol=1e-10)
    assert state.bytes == 2 * (HEADS * HEAD_DIM * 2 * HEAD_DIM + 3 * 4 * D_MODEL) * 8


def test_parameters_are_as_documented() -> None:
    for r, w in ((1, 4), (2, 3)):
        count = sum(parameter.numel() for parameter in made(r, w).parameters())
        vectors = 2 * HEADS + r * HEAD_DIM
        assert count == (2 + 3 * r) * D_MODEL**2 + (2 * HEADS + w * (2 + r)) * D_MODEL + vectors


def test_rates_and_time_steps_begin_as_in_the_paper() -> None:
    mixer = GatedDeltaNet(AttentionContext(512, 2, 8, 8, True), expand_value=1, convolution=2, kernel="torch")
    initialise(mixer, seed=0)
    rate, step = mixer.log_rate.exp(), torch.log1p(mixer.step_bias.exp())
    assert 0.01 <= rate.min() < 0.5 < 15 < rate.max() <= 16
    assert_close(rate.mean(), torch.tensor(8.0), atol=0.6, rtol=0)
    assert 0.00099 < step.min() < 0.0012
    assert 0.08 < step.max() < 0.101
    assert_close(step.log().mean().exp(), torch.tensor(0.01), atol=0.001, rtol=0)


def test_the_optimiser_decays_matrices_alone() -> None:
    mixer = made()
    settings = {"lr": 1e-3, "betas": [0.9, 0.99], "eps": 1e-8, "weight_decay": 0.1}
    _, undecayed = partial(adamw, **settings)(mixer, False).param_groups  # type: ignore[arg-type]
    assert undecayed["weight_decay"] == 0
    vectors = (mixer.log_rate, mixer.step_bias, mixer.norm.weight, mixer.convolve.weight)
    assert {id(parameter) for parameter in undecayed["params"]} == {id(parameter) for parameter in vectors}
