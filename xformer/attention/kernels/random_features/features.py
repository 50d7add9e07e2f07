r"""Positive orthogonal random features: vectors whose products estimate a kernel.

Choromanski et al. 2021, "Rethinking Attention with Performers", lemma 1 and section 2.3. With rows w_r of W normal,

    exp(q . k / sqrt(d)) = E_w [ phi_r(q) phi_r(k) ],     phi_r(x) = exp(w_r . x' - |x'|^2 / 2),     x' = x / d^(1/4)

The rows come in blocks of d orthogonal ones, uniform on the sphere, with independent norms chi(d), so that each row is
normal and the blocks estimate with less variance than independent rows. `relu` is the generalised kernel that the
paper finds to train better in places; it estimates no softmax:

    phi_r(x) = max(w_r . x', 0) + 0.001

The factor 1 / m of the mean is left out: attention divides it away. What is computed are the logarithms of features,
which float32 holds where it would not hold the features.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Kernel = Literal["exp", "relu"]

RELU_OFFSET = 1e-3
"""Keeps every weight positive, as in the authors' code."""


class Exponential:
    """Exponential features: phi(x) = exp(W x' - |x'|^2 / 2), as a function of the projections W x'."""

    normed: ClassVar[bool] = True
    """Whether features have a factor exp(-|x'|^2 / 2), which `log` and `backward` omit."""

    def log(self, projected: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """The logarithm of the features."""
        return projected

    def backward(
        self, grad: Float[Tensor, "*batch m"], projected: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch m"]:
        """The gradient of the projections from that of the logarithm, which is overwritten."""
        return grad


class Rectified:
    """ReLU features: phi(x) = max(W x', 0) + 0.001, as a function of the projections W x'."""

    normed: ClassVar[bool] = False

    def log(self, projected: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """The logarithm of the features."""
        return (projected.relu() + RELU_OFFSET).log_()

    def backward(
        self, grad: Float[Tensor, "*batch m"], projected: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch m"]:
        """The gradient over the feature where the projection is positive, 0 elsewhere."""
        return grad.div_(projected + RELU_OFFSET).masked_fill_(projected <= 0, 0.0)


FeatureMap = Exponential | Rectified


class RandomFeatures(nn.Module):
    """Random features of queries and keys; computes the logarithm of phi.

    The features depend only on `seed` and the number of the draw, so ranks with the same values have the same features.
    Both are in the state dict, so that a resumed run continues with its features.

    Args:
        features: the number of features, m in the paper.
        dim: the features of one head.
        kernel: the kind of phi.
    """

    projection: Tensor
    seed: Tensor

    def __init__(self, features: int, dim: int, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.map: FeatureMap = Rectified() if kernel == "relu" else Exponential()
        self.register_buffer("projection", torch.empty(features, dim))
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw a seed from torch's generator, and the first features."""
        self.seed.copy_(torch.randint(2**62, ()))
        self.draw(0)

    def draw(self, number: int) -> None:
        """The features of draw number `index`, which are the same on every call and device."""
        generator = torch.Generator().manual_seed(int(self.seed) + number)
        features, dim = self.projection.shape
        self.projection.copy_(orthogonal(features, dim, generator))

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Compute log phi(x)."""
        log = self.map.log(x @ self.scaled(x.dtype).T)
        return log - half_norm(x) if self.map.normed else log

    def scaled(self, dtype: torch.dtype) -> Float[Tensor, "m d"]:
        """W / d^(1/4): its products with x are those of W with x'."""
        projection: Tensor = self.projection.to(dtype) * self.projection.shape[1] ** -0.25
        return projection


def half_norm(x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch 1"]:
    """|x'|^2 / 2."""
    half: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() * (0.5 * x.shape[-1] ** -0.5)
    return half


def orthogonal(features: int, dim: int, generator: torch.Generator) -> Float[Tensor, "features dim"]:
    """Draw random normal rows, orthogonal within each block of `dim` rows, in float64."""
    blocks = -(-features // dim)
    normal = torch.randn(blocks, dim, dim, generator=generator, dtype=torch.float64)
    directions, triangular = torch.linalg.qr(normal)
    # QR leaves the signs open; these make the directions uniform.
    directions = directions * triangular.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    norms = torch.randn(features, dim, generator=generator, dtype=torch.float64).norm(dim=-1, keepdim=True)
    # Q^T's rows are a block: orthogonal columns of Q.
    rows: Tensor = directions.mT.flatten(0, 1)[:features] * norms
    return rows
