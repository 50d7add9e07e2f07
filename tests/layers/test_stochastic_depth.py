"""Stochastic depth: how often a branch is dropped, and that its mean stays."""

import pytest
import torch
from torch.testing import assert_close

from xformer.layers.stochastic_depth import StochasticDepth


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_linear_rule_and_the_mean(layer: int) -> None:
    depth, rate = StochasticDepth(0.6, 3), 0.2 * (layer + 1)
    branch = torch.ones(20_000, 2, 3)
    dropped = depth(branch, layer)
    kept = dropped[:, 0, 0] != 0
    assert_close((~kept).float().mean(), torch.tensor(rate), atol=0.015, rtol=0)
    assert_close(dropped.mean(), torch.tensor(1.0), atol=0.04, rtol=0)
    assert_close(dropped[kept], torch.full_like(dropped[kept], 1 / (1 - rate)))
    assert (dropped == dropped[:, :1, :1]).all()  # whole sequences


def test_evaluation_and_rate_zero_change_nothing_and_draw_nothing() -> None:
    branch = torch.randn(4, 2, 3)
    before = torch.get_rng_state()
    assert StochasticDepth(0.5, 2).eval()(branch, 1) is branch
    assert StochasticDepth(0.0, 2)(branch, 1) is branch
    assert torch.equal(before, torch.get_rng_state())
