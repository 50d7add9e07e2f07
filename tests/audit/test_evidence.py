"""How exactly a module computes is measured, and the smallest failing input is the smallest."""

import pytest
import torch
from torch import Tensor, nn

from tests.audit.made import subject
from tests.audit.planted import Window
from xformer.audit.evidence import Evidence, computes_in, input_code, relative, rounding, smallest, tolerance_at
from xformer.audit.subject import Subject


def test_rounding_is_that_of_the_type_inside() -> None:
    for name, low, high in (("Window", 1e-17, 1e-14), ("Inside32", 1e-9, 1e-6)):
        module = subject(name).at(0)
        assert low < rounding(module, module.draw(2, 9)) < high


def test_curvature_is_not_taken_for_rounding() -> None:
    module = subject("tests.audit.test_evidence.Curved").at(0)
    assert rounding(module, module.draw(2, 9)) < 1e-12


class Curved(Window):
    def forward(self, x: Tensor) -> Tensor:
        return (10 * super().forward(x)).sin()


class Angles(nn.Module):
    """Float32 that depends on positions alone, which no change of x shows."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.arange(x.shape[1]).float().cos()[:, None].to(x.dtype)


def test_positions_in_float32_are_seen_where_tokens_move() -> None:
    module = subject("tests.audit.test_evidence.Angles").at(0)
    x = module.draw(1, 9)
    assert computes_in(module, x) == torch.finfo(torch.float32).eps
    assert tolerance_at(module, x) < 1e-12
    assert tolerance_at(module, x, moved=True) > 1e-6


def test_a_difference_is_relative_to_the_largest_and_no_number_is_infinite() -> None:
    assert relative(torch.tensor([0.5]), torch.tensor([2.0, -4.0])) == 0.125
    assert relative(torch.tensor([float("nan")]), torch.ones(1)) == float("inf")
    assert relative(torch.tensor([0.5]), torch.tensor([2.0, float("inf")])) == 0.25
    assert relative(torch.empty(0), torch.ones(1)) == 0
    assert Evidence(float("nan"), 1.0).fails


def test_the_line_draws_what_is_drawn() -> None:
    module = subject("Window").at(4)
    space = {"torch": torch}
    exec(input_code(module, 2, 3, 1), space)
    torch.testing.assert_close(space["x"], module.draw(2, 3, 1), rtol=0, atol=0)


@pytest.mark.parametrize(("length", "batch", "seed"), [(1, 1, 0), (7, 2, 1), (23, 3, 2), (61, 1, 0)])
def test_the_smallest_is_found_also_between_the_lengths_that_were_tried(length: int, batch: int, seed: int) -> None:
    def measure(subject: Subject, n: int, rows: int, draw: int) -> Evidence:
        return Evidence(float(n >= length and rows >= batch and draw >= seed), 0.5)

    assert smallest(measure, subject("Window"), 64, (1, 2, 3), 3) == (length, batch, seed)
