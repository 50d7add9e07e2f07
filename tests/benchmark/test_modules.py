"""What is timed computes the same thing: our variants, torch's own, and what lies between projections."""

import pytest
import torch
from torch import nn

from xformer.benchmark.modules import (
    Fused,
    FusedWithDenseBias,
    FusedWithWrittenOutBias,
    Mixing,
    Projected,
    Shape,
)

SHAPE = Shape(2, 8, 64, 128, causal=False)
CAUSAL = Shape(2, 8, 64, 128, causal=True)


def tensors(shape: Shape) -> tuple[torch.Tensor, ...]:
    size = shape.batch, shape.heads, shape.length, shape.head_dim
    return tuple(torch.randn(size, requires_grad=True) for _ in range(3))


@pytest.mark.parametrize("shape", [SHAPE, CAUSAL])
def test_full_and_all_of_torchs_are_the_same(shape: Shape) -> None:
    inputs = tensors(shape)
    expected = Fused(shape)(*inputs)
    torch.testing.assert_close(Mixing({"attention": "full"}, shape)(*inputs), expected)
    before, by_distance, by_pair = 3, FusedWithWrittenOutBias(shape), FusedWithDenseBias(shape)
    for biased in (by_distance, by_pair):
        torch.testing.assert_close(biased(*inputs), expected)
    with torch.no_grad():
        by_distance.table[:, shape.length - 1 - before] = 100.0
        by_pair.bias.diagonal(-before, 1, 2).fill_(100.0)
    for biased in (by_distance, by_pair):
        mixed = biased(*inputs)[:, :, before:]
        torch.testing.assert_close(mixed, inputs[2][:, :, :-before], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("position", ["rotary", "transformer_xl", "t5"])
def test_what_is_measured_is_what_lies_between_the_projections(position: str) -> None:
    settings = {"attention": "full", "position": position}
    mixing, projected = Mixing(settings, CAUSAL), Projected(settings, CAUSAL)
    mixing.position = projected.position
    for parameter in projected.position.parameters():
        nn.init.normal_(parameter)
    attention = projected.attention
    for linear in (attention.query, attention.key, attention.value, attention.output):
        nn.init.eye_(linear.weight)
    x = torch.randn(CAUSAL.batch, CAUSAL.length, CAUSAL.d_model)
    split = x.view(*x.shape[:2], CAUSAL.heads, CAUSAL.head_dim).transpose(1, 2)
    torch.testing.assert_close(mixing(split, split, split).transpose(1, 2).flatten(-2), projected(x))
