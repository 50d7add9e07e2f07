"""The feed-forward layers, against their equations."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from xformer.layers.feed_forward import Activation, SwiGLU, feed_forward

D_MODEL, HIDDEN = 6, 10


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.0)


def gelu(x: Tensor) -> Tensor:
    """X times the share of a normal distribution below x."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


@pytest.mark.parametrize("activation", [relu, gelu])
def test_plain_is_two_linear_layers_around_an_activation(activation) -> None:
    layer, x = feed_forward(activation.__name__, D_MODEL, HIDDEN, gain=1.0), torch.randn(2, 3, D_MODEL)
    for bias in (layer.expand.bias, layer.contract.bias):
        torch.nn.init.normal_(bias)
    inner = activation(x @ layer.expand.weight.T + layer.expand.bias)
    assert_close(layer(x), inner @ layer.contract.weight.T + layer.contract.bias)


def test_swiglu_is_shazeers_equation_6() -> None:
    layer, x = SwiGLU(D_MODEL, HIDDEN, gain=1.0), torch.randn(2, 3, D_MODEL)
    assert [name for name, _ in layer.named_parameters()] == ["expand.weight", "contract.weight"]  # no bias
    opened, passed = x @ layer.expand.weight[:HIDDEN].T, x @ layer.expand.weight[HIDDEN:].T
    swish = opened / (1 + torch.exp(-opened))
    assert_close(layer(x), (swish * passed) @ layer.contract.weight.T)


@pytest.mark.parametrize("activation", get_args(Activation))
def test_gain_scales_what_is_added_to_the_residual_sum(activation: Activation) -> None:
    layer = feed_forward(activation, 256, 512, gain=0.25)
    assert layer.contract.weight.std().item() == pytest.approx(0.25 * 512**-0.5, rel=0.02)
    assert layer.expand.weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
