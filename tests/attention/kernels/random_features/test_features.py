"""The feature maps are the paper's, and so is the distribution of the rows."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tests.attention.kernels.random_features.equation import DIM, phi
from xformer.attention.kernels.random_features.features import RandomFeatures, orthogonal

KERNELS: list[Any] = ["exp", "relu"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_feature_map_is_the_paper_s(kernel: Any) -> None:
    features = RandomFeatures(40, DIM, kernel)
    x = torch.randn(3, 5, DIM)
    assert_close(features(x).exp(), phi(x, features.projection, kernel))


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_gradient_of_the_projections(kernel: Any) -> None:
    features = RandomFeatures(40, DIM, kernel)
    projected = torch.randn(7, 40, requires_grad=True)
    grad = torch.randn(7, 40)
    (expected,) = torch.autograd.grad(features.map.log(projected), projected, grad)
    assert_close(features.map.backward(grad.clone(), projected.detach()), expected)


def test_products_of_exponential_features_estimate_the_softmax_kernel() -> None:
    torch.manual_seed(0)
    features = RandomFeatures(200_000, DIM, "exp")
    query, key = torch.randn(2, 6, DIM) / 2
    estimate = features(query).exp() @ features(key).exp().T / 200_000
    assert_close(estimate, (query @ key.T / DIM**0.5).exp(), atol=0.02, rtol=0.02)


def test_rows_are_orthogonal_blocks_with_norms_chi_of_d() -> None:
    rows = orthogonal(4 * 16 + 3, 16, torch.Generator().manual_seed(0))
    for block in rows.split(16):
        product = block @ block.T
        assert_close(product, product.diagonal().diag(), atol=1e-4, rtol=0.0)
    norms = orthogonal(4000, 16, torch.Generator().manual_seed(1)).square().sum(-1)
    assert abs(float(norms.mean()) - 16) < 0.4  # chi^2(16): mean 16, variance 32
    assert abs(float(norms.var()) - 32) < 4
    assert len(set(norms[:16].tolist())) == 16


def test_a_draw_depends_on_the_stored_seed_and_its_number_alone() -> None:
    torch.manual_seed(3)
    one, other = RandomFeatures(40, DIM, "exp"), RandomFeatures(40, DIM, "exp")
    assert not torch.equal(one.projection, other.projection)
    other.load_state_dict(one.state_dict())
    for number in (2, 1):
        one.draw(number)
        torch.rand(3)
        other.draw(number)
        assert torch.equal(one.projection, other.projection)
    before = one.projection.clone()
    one.draw(2)
    assert not torch.equal(one.projection, before)
