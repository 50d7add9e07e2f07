"""Learned positions: a row of the table for each position, and no more rows than it was built for."""

import pytest
import torch
from torch.testing import assert_close

from xformer.position.base import PositionContext
from xformer.position.learned import Learned


def build() -> Learned:
    return Learned(PositionContext(8, 2, 4, 1, 6, False))


def test_each_token_gets_the_row_of_its_position_on_the_scale_of_the_embeddings() -> None:
    scheme, x = build(), torch.randn(2, 3, 8)
    positions = torch.tensor([[0, 1, 2], [5, 3, 4]])
    rows = torch.stack([torch.stack([scheme.table.weight[p] for p in row]) for row in positions.tolist()])
    assert_close(scheme.embed(x, positions), x + rows * 8**0.5)


def test_there_is_nothing_beyond_the_longest_sequence() -> None:
    scheme = build()
    assert not scheme.extrapolates
    assert scheme.table.weight.shape == (6, 8)
    with pytest.raises(IndexError):
        scheme.embed(torch.zeros(1, 1, 8), torch.tensor([[6]]))


def test_only_the_rows_that_were_read_are_trained() -> None:
    scheme = build()
    scheme.embed(torch.zeros(1, 2, 8), torch.tensor([[1, 4]])).sum().backward()
    assert scheme.table.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [1, 4]  # type: ignore[union-attr]
