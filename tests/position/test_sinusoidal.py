"""Sinusoidal positions, against the paper's formula number by number."""

import math

import pytest
import torch
from torch.testing import assert_close

from xformer.position.base import PositionContext
from xformer.position.sinusoidal import Sinusoidal


def build(d_model: int, base: float = 10_000.0) -> Sinusoidal:
    return Sinusoidal(PositionContext(d_model, 1, d_model, 1, 16, False), base=base)


@pytest.mark.parametrize("base", [100.0, 10_000.0])
@pytest.mark.parametrize("d_model", [7, 8])
def test_a_wave_is_that_of_section_3_5(d_model: int, base: float) -> None:
    positions = torch.tensor([[0, 1, 2], [9, 500, 70_000]])  # far beyond the length it was built for
    added = build(d_model, base).embed(torch.zeros(2, 3, d_model, dtype=torch.float64), positions)
    for row in range(2):
        for token in range(3):
            for feature in range(d_model):
                angle = positions[row, token].item() / base ** (2 * (feature // 2) / d_model)
                expected = math.cos(angle) if feature % 2 else math.sin(angle)
                assert added[row, token, feature].item() == pytest.approx(expected, abs=1e-9)


def test_a_step_is_the_same_linear_map_at_every_position() -> None:
    """Section 3.5: PE(pos + k) is a linear function of PE(pos), here fitted on some positions and tried on others."""
    waves = build(8).embed(torch.zeros(1, 60, 8, dtype=torch.float64), torch.arange(60)[None])[0]
    step = torch.linalg.lstsq(waves[:20], waves[5:25]).solution
    assert_close(waves[30:50] @ step, waves[35:55], atol=1e-6, rtol=0)


def test_it_is_added_in_the_type_of_the_embeddings() -> None:
    x = torch.randn(1, 4, 8)
    exact = build(8).embed(x.double(), torch.arange(1000, 1004)[None])
    assert_close(build(8).embed(x.bfloat16(), torch.arange(1000, 1004)[None]), exact.bfloat16(), atol=0.03, rtol=0)
