r"""ALiBi: attention with linear biases.

Press et al. 2022, "Train Short, Test Long", section 3:

    softmax(q_i . k_j / sqrt(d) - m_h |i - j|)

with a fixed slope per head. For H = 2^a heads the slopes are 2^(-8/H), 2^(-16/H), ..., 2^-8; for another number, those
of the power of two below, then every other one of those of the power above, beginning with its first (the authors'
code). Time and memory O(1) a distance, no parameters, any length.

|i - j| is i - j wherever a causal mask lets a query read. The bidirectional form is a choice (the paper has none): the
symmetric one, which the authors recommend for encoders.

Not supported: attention without scores to add to, nor cross-attention, whose positions have no common origin.
"""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xformer.core.bias import TableBias
from xformer.core.capability import Capability
from xformer.core.precision import at_least_float32
from xformer.position.base import Position, PositionContext


class LinearBias(TableBias):
    """The bias -slope |distance|.

    Args:
        slopes: how steeply each head forgets; a kernel method may turn them into decays exp(-slope) of running sums.
    """

    slopes: Float[Tensor, " h"]

    def __init__(self, slopes: Float[Tensor, " h"]) -> None:
        self.slopes = slopes

    def table(self, distances: Int[Tensor, "*shape"]) -> Float[Tensor, "h *shape"]:
        """The bias at these distances."""
        return self.slopes.view(-1, *[1] * distances.dim()) * -distances.abs()


class ALiBi(Position):
    """ALiBi: a penalty on scores that grows linearly with distance, with a fixed slope per head."""

    needs: ClassVar[Capability] = Capability.BIAS

    def __init__(self, context: PositionContext) -> None:
        super().__init__(context)
        below = 1 << (context.heads.bit_length() - 1)
        # Slope = 2^(-4 e / below): even e are the slopes of `below` heads, odd e lie between them, where twice as many
        # heads have theirs. Whole numbers survive the cast of a model to 16 bits, the slopes themselves would not.
        exponents = [*range(2, 2 * below + 1, 2), *range(1, 2 * below, 2)][: context.heads]
        self.register_buffer("exponents", torch.tensor(exponents, dtype=torch.float32), persistent=False)
        self.below = below

    def bias(self, layer: int) -> LinearBias:
        """The bias, which is the same for every layer."""
        assert isinstance(self.exponents, Tensor)
        return LinearBias(2.0 ** (-4.0 / self.below * at_least_float32(self.exponents)))
