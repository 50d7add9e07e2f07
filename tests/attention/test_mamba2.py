"""Mamba-2: the paper's recurrence token by token, what it begins with, and what its optimiser leaves alone."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from xformer.attention.base import AttentionContext
from xformer.attention.mamba2 import Mamba2
from xformer.errors import ConfigError
from xformer.layers.initialise import initialise
from xformer.optimization.optimizer import adamw

HEADS, HEAD_DIM, LENGTH, STATE = 2, 4, 21, 5
D_MODEL = HEADS * HEAD_DIM


def made(expand: int = 2, groups: int = 1, convolution: int = 4) -> Mamba2:
    mixer = Mamba2(
        AttentionContext(HEADS, HEAD_DIM, 100, 100, True),
        state_size=STATE,
        expand=expand,
        groups=groups,
        convolution=convolution,
        step_low=0.001,
        step_high=0.1,
        kernel="torch",
    )
    initialise(mixer, seed=0)
    with torch.no_grad():
        torch.nn.init.normal_(mixer.norm.weight), torch.nn.init.normal_(mixer.skip)
    return mixer.double()


def sequence(length: int = LENGTH) -> Tensor:
    return torch.randn(2, length, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def written_out(one: Tensor, mixer: Mamba2) -> Tensor:
    """h_t = exp(A dt_t) h_(t-1) + dt_t B_t x_t, y_t = C_t . h_t + D x_t feature by feature."""
    inner, groups, width = mixer.heads * HEAD_DIM, mixer.groups, mixer.convolve.width
    projected = [mixer.input.weight @ x for x in one]
    outputs = torch.zeros(len(one), inner, dtype=torch.float64)
    hidden = torch.zeros(mixer.heads, HEAD_DIM, STATE, dtype=torch.float64)
    for t in range(len(one)):
        z, _, step = projected[t].split([inner, inner + 2 * groups * STATE, mixer.heads])
        tokens = [projected[t - j][inner : -mixer.heads] for j in range(width) if t >= j]
        mixed = mixer.convolve.bias + sum(mixer.convolve.weight[:, 0, width - 1 - j] * x for j, x in enumerate(tokens))
        u, b, c = silu(mixed).split([inner, groups * STATE, groups * STATE])
        for h in range(mixer.heads):
            group = h // (mixer.heads // groups)
            dt = torch.log(1 + torch.exp(step[h] + mixer.step_bias[h]))
            decay = torch.exp(-torch.exp(mixer.log_rate[h]) * dt)
            for p in range(HEAD_DIM):
                x = u[h * HEAD_DIM + p]
                hidden[h, p] = decay * hidden[h, p] + dt * b[group * STATE :][:STATE] * x
                outputs[t, h * HEAD_DIM + p] = c[group * STATE :][:STATE] @ hidden[h, p] + mixer.skip[h] * x
        gated = (outputs[t] * silu(z)).view(groups, -1)
        normed = gated / (gated.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        outputs[t] = normed.flatten() * mixer.norm.weight
    return outputs @ mixer.output.weight.T


@pytest.mark.parametrize(("expand", "groups", "convolution"), [(2, 1, 4), (1, 2, 1), (3, 2, 2), (2, 4, 4)])
@pytest.mark.parametrize("length", [1, LENGTH, 70])
def test_is_the_paper_s_recurrence(length: int, expand: int, groups: int, convolution: int) -> None:
    mixer, x = made(expand, groups, convolution), sequence(length)
    with torch.no_grad():
        expected = torch.stack([written_out(one, mixer) for one in x])
    assert_close(mixer(x).detach(), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("cuts", [range(1, LENGTH + 1), [7, 8, 9, LENGTH], [20, 21]])
@pytest.mark.parametrize("groups", [1, 2])
def test_decoding_is_the_whole(cuts: list[int], groups: int) -> None:
    mixer, x = made(groups=groups), sequence()
    state, parts, start = mixer.init_state(LENGTH), [], 0
    for end in cuts:
        parts.append(mixer(x[:, start:end], state=state))
        start = end
    assert_close(torch.cat(parts, dim=1), mixer(x), atol=1e-10, rtol=1e-10)
    assert state.bytes == 2 * (2 * HEADS * STATE * HEAD_DIM + 3 * (2 * D_MODEL + 2 * groups * STATE)) * 8


def test_parameters_are_as_documented() -> None:
    for r, g, w in ((1, 2, 4), (2, 1, 3)):
        count, wide = sum(parameter.numel() for parameter in made(r, g, w).parameters()), 2 * g * STATE
        vectors = r * D_MODEL + 3 * HEADS * r
        assert count == 3 * r * D_MODEL**2 + (wide + HEADS * r) * D_MODEL + (w + 1) * (r * D_MODEL + wide) + vectors


def test_rates_and_time_steps_begin_as_in_the_paper() -> None:
    context = AttentionContext(512, 2, 8, 8, True)
    options = {"expand": 1, "groups": 1, "convolution": 2, "step_low": 0.002, "step_high": 0.05}
    mixer = Mamba2(context, state_size=2, kernel="torch", **options)  # type: ignore[arg-type]
    initialise(mixer, seed=0)
    rate, step = mixer.log_rate.exp(), torch.log1p(mixer.step_bias.exp())
    assert 1 <= rate.min() < 1.5 < 15 < rate.max() <= 16
    assert_close(rate.mean(), torch.tensor(8.5), atol=0.6, rtol=0)
    assert 0.00199 < step.min() < 0.0024
    assert 0.04 < step.max() < 0.0501
    assert_close(step.log().mean().exp(), torch.tensor(0.01), atol=0.001, rtol=0)
    assert torch.equal(mixer.skip, torch.ones(512))


def test_the_optimiser_decays_matrices_alone() -> None:
    mixer = made()
    settings = {"lr": 1e-3, "betas": [0.9, 0.99], "eps": 1e-8, "weight_decay": 0.1}
    decayed, undecayed = partial(adamw, **settings)(mixer, False).param_groups  # type: ignore[arg-type]
    assert {id(parameter) for parameter in decayed["params"]} == {id(mixer.input.weight), id(mixer.output.weight)}
    assert undecayed["weight_decay"] == 0


def test_groups_that_do_not_divide_the_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"attention.groups=3 does not divide the 4 heads .* use 1, 2, 4\."):
        made(groups=3)


def test_time_steps_in_the_wrong_order_are_refused() -> None:
    context = AttentionContext(HEADS, HEAD_DIM, 8, 8, True)
    options = {"state_size": 2, "expand": 1, "groups": 1, "convolution": 2, "step_low": 0.2, "step_high": 0.1}
    with pytest.raises(ConfigError, match=r"attention.step_low=0.2 is more than attention.step_high=0.1"):
        Mamba2(context, kernel="torch", **options)  # type: ignore[arg-type]
