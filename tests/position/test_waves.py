"""The angles of the waves, and that no type of few bits rounds them."""

import pytest
import torch
from torch.testing import assert_close

from xformer.position.waves import angles


@pytest.mark.parametrize("features", [1, 5, 6])
def test_an_angle_is_the_position_over_a_power_of_the_base(features: int) -> None:
    positions = torch.tensor([[0, 3], [7, 2000]])
    found = angles(positions, features, 50.0, torch.float64)
    assert found.shape == (2, 2, (features + 1) // 2)
    for i in range(found.shape[-1]):
        assert_close(found[..., i], positions.double() / 50.0 ** (2 * i / features))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_neighbours_far_away_are_a_position_apart_in_16_bits_too(dtype: torch.dtype) -> None:
    found = angles(torch.tensor([40_000, 40_001]), 2, 10_000.0, dtype)
    assert found.dtype == torch.float32
    assert found.diff(dim=0).item() == 1.0
