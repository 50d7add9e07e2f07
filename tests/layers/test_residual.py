"""The residual branch: where its norm stands, and what is left of a branch that is dropped."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from xformer.layers.residual import PLACEMENTS
from xformer.layers.stochastic_depth import StochasticDepth


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_dropped_branch_leaves_the_sum_alone(norm: str) -> None:
    class Drop(StochasticDepth):
        def forward(self, branch: Tensor, layer: int) -> Tensor:
            return branch * 0

    ours = PLACEMENTS[norm](nn.LayerNorm(3), nn.Linear(3, 3), 0.0, Drop(0.5, 1))  # type: ignore[index]
    x = torch.randn(4, 2, 3)
    assert_close(ours(x, 0), x if norm == "pre" else ours.norm(x))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_norm_stands_where_its_paper_puts_it(norm: str) -> None:
    ours = PLACEMENTS[norm](nn.LayerNorm(3), nn.Linear(3, 3), 0.5, StochasticDepth(0.5, 1)).eval()  # type: ignore[index]
    x = torch.randn(4, 2, 3)
    expected = x + ours.branch(ours.norm(x)) if norm == "pre" else ours.norm(x + ours.branch(x))
    assert_close(ours(x, 0), expected)


def test_dropout_thins_the_branch_and_not_the_sum() -> None:
    class Ones(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones_like(x)

    ours = PLACEMENTS["pre"](nn.Identity(), Ones(), 0.25, StochasticDepth(0.0, 1))
    added = ours(torch.full((40, 50, 20), 7.0), 0) - 7
    assert_close(added.unique(), torch.tensor([0.0, 4 / 3]))
    assert_close((added == 0).float().mean(), torch.tensor(0.25), atol=0.01, rtol=0)
