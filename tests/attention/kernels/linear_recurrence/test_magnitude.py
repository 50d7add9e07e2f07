"""Vectors of ordinary size stay as they are, and a norm of large ones is that of float64."""

import pytest
import torch
from torch.nn.functional import group_norm, layer_norm, rms_norm
from torch.testing import assert_close

from xformer.attention.kernels.linear_recurrence.magnitude import limit_magnitude


def vectors(scale: float) -> torch.Tensor:
    return scale * torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e8])
def test_nothing_of_ordinary_size_changes(scale: float) -> None:
    x = vectors(scale).requires_grad_()
    limited = limit_magnitude(x)
    assert torch.equal(limited, x)
    (gradient,) = torch.autograd.grad(limited.sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


def test_each_vector_has_a_factor_of_its_own() -> None:
    x = vectors(1.0)
    x[2, 1] *= 1e30
    limited = limit_magnitude(x)
    changed = torch.zeros(5, 3, dtype=torch.bool)
    changed[2, 1] = True
    assert torch.equal(limited[~changed], x[~changed])
    assert limited[2, 1].abs().max().log2() == pytest.approx(32)


@pytest.mark.parametrize("scale", [1e8, 1e12, 1e18, 1e25, 1e35])
@pytest.mark.parametrize("norm", ["layer", "rms", "group"])
def test_a_norm_and_its_gradients_are_those_of_float64(norm: str, scale: float) -> None:
    found = []
    for dtype in (torch.float32, torch.float64):
        x = vectors(scale).to(dtype).requires_grad_()
        limited = limit_magnitude(x)
        if norm == "layer":
            y = layer_norm(limited, (8,), eps=1e-5)
        elif norm == "rms":
            y = rms_norm(limited, (8,), eps=1e-5)
        else:
            y = group_norm(limited.flatten(1), 3, eps=1e-5).view_as(x)
        weight = vectors(1.0).roll(1, 0).to(dtype)
        (gradient,) = torch.autograd.grad((y * weight).sum(), x)
        found.append((y.double(), gradient.double() * scale))
    for ours, exact in zip(*found, strict=True):
        assert_close(ours, exact, atol=1e-4, rtol=1e-4)


def test_what_is_not_finite_stays_so() -> None:
    for wrong in (torch.nan, torch.inf):
        assert not limit_magnitude(torch.tensor([1.0, wrong])).isfinite().all()
