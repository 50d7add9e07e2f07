"""What every position scheme must show."""

import pytest
import torch
from torch.testing import assert_close

from tests.contracts.variants import (
    HEAD_DIM,
    HEADS,
    MAX_LENGTH,
    POSITION_ROWS,
    POSITIONS,
    build_position,
    position_class,
)


def test_every_yaml_has_a_row_and_every_row_a_yaml() -> None:
    assert sorted(POSITION_ROWS) == sorted(POSITIONS)


@pytest.mark.parametrize("name", POSITIONS)
def test_embedding_depends_on_the_position_alone(name: str) -> None:
    position = build_position(name, causal=False)
    x = torch.randn(1, 6, 8)
    positions = torch.tensor([[0, 3, 1, 7, 2, 5]])
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert_close(position.embed(x, positions)[:, order], position.embed(x[:, order], positions[:, order]))


@pytest.mark.parametrize("name", POSITIONS)
def test_rotation_keeps_the_norm(name: str) -> None:
    query = torch.randn(2, HEADS, 6, HEAD_DIM)
    rotated = build_position(name, causal=False).rotate(query, torch.arange(6)[None])
    assert_close(rotated.norm(dim=-1), query.norm(dim=-1))


@pytest.mark.parametrize("name", [name for name in POSITIONS if position_class(name).extrapolates])
def test_positions_beyond_the_training_length_are_defined(name: str) -> None:
    position, far = build_position(name, causal=True), torch.arange(3 * MAX_LENGTH)[None]
    assert position.embed(torch.randn(1, 3 * MAX_LENGTH, 8), far).isfinite().all()
