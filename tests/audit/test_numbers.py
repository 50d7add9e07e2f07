"""Errors of 16 bits, extreme inputs and sizes, each against the same by hand."""

import torch

from tests.audit.made import subject
from xformer.audit.numbers import EXTREMES, extreme, precision, roundings, sizes


def test_the_error_is_that_of_computing_in_the_type() -> None:
    made = subject("Window")
    found = precision(made, 32, 1)
    narrow = made.at(0, dtype=torch.float32).copy_to(torch.bfloat16)
    x = narrow.draw(2, 32)
    weight, bias = narrow.module.linear.weight.double(), narrow.module.linear.bias.double()  # type: ignore[union-attr]
    near = torch.ones(32, 32).tril().triu(-2).double()
    exact = near / near.sum(-1, keepdim=True) @ (x.double() @ weight.T + bias)
    target_overrides = float((narrow(x).double() - exact).detach().norm() / exact.detach().norm())
    assert found["bfloat16"] == target_overrides
    assert 0.1 < roundings(found)["bfloat16"] < 3
    assert 0.1 < roundings(found)["float16"] < 3


def test_what_cannot_run_or_overflows_is_said() -> None:
    assert "cannot run (TypeError: no 16 bits)" in str(precision(subject("tests.audit.test_numbers.Wide"), 4, 1))


class Wide(torch.nn.Module):
    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype.itemsize == 2:
            raise TypeError("no 16 bits")
        return self.linear(x)


def test_extreme_inputs() -> None:
    fails = {kind for kind in EXTREMES if extreme(subject("Overflows"), 4, 1, 0, kind=kind).fails}
    assert fails == {"x 1e3", "x 1e6"}
    assert not any(extreme(subject("Right"), 4, 1, 0, kind=kind).fails for kind in EXTREMES)


def test_sizes() -> None:
    assert sizes(subject("Window")) == {"trained": 16 * 17, "fixed": 0, "buffers": 0}
    assert sizes(subject("Counter"))["buffers"] == 1
