r"""T5's relative bias: one learned number per head and bucket of distances.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", section 2.1,
and the authors' code for the buckets: with e = B / 2 of the B buckets for one distance each,

    bucket(n) = n                                                          for n < e
    bucket(n) = min(B - 1, e + floor((B - e) log(n / e) / log(max / e)))   else
    softmax(q_i . k_j / sqrt(d) + table[bucket(max(i - j, 0))])

A bidirectional stack halves B, and the upper half of the buckets is for keys after the query. The floor is taken in
whole numbers, so that no rounding of a logarithm moves a boundary. One table per stack, shared by its layers. Time and
memory O(1) a distance; every length is defined, since the last bucket has no end.

Deviation: T5 does not scale its logits by 1 / sqrt(d), but divides the initial W_Q by it instead. Ours are scaled, as
with every other position scheme; the two start alike and differ by the step size of W_Q.

Not supported: attention without scores to add to, nor cross-attention, where T5 has no bias either.
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding

from xformer.core.bias import TableBias
from xformer.core.capability import Capability
from xformer.errors import ConfigError
from xformer.position.base import Position, PositionContext


class BucketBias(TableBias):
    """The bias weight[bucket(distance)].

    Args:
        weight: the learned table.
        starts: the smallest distance of every bucket but the first.
        causal: whether all buckets are for keys before the query.
        reach: the distance from which all share one bucket.
    """

    def __init__(
        self, weight: Float[Tensor, "buckets h"], starts: Int[Tensor, " rest"], causal: bool, reach: int
    ) -> None:
        self.weight, self.starts, self.causal, self.reach = weight, starts, causal, reach

    def table(self, distances: Int[Tensor, "*shape"]) -> Float[Tensor, "h *shape"]:
        """The bias at these distances."""
        return embedding(self.bucket(distances), self.weight).movedim(-1, 0)

    def bucket(self, distances: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """The row of the table for these distances."""
        if self.causal:
            return torch.bucketize((-distances).clamp(min=0), self.starts, right=True)
        after = (distances > 0) * (len(self.starts) + 1)
        return after + torch.bucketize(distances.abs(), self.starts, right=True)


class T5(Position):
    """T5's relative position bias: a learned number per head and bucket of distances.

    Args:
        context: the stack's dimensions.
        buckets: rows of the table; 32 in the paper.
        max_distance: the distance from which all share a bucket; 128 in the paper.

    Raises:
        ConfigError: the buckets cannot be halved, or the exact ones alone reach `max_distance`.
    """

    needs: ClassVar[Capability] = Capability.BIAS
    vectors: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(
        self, context: PositionContext, *, buckets: Annotated[int, Ge(1)], max_distance: Annotated[int, Ge(1)]
    ) -> None:
        super().__init__(context)
        self.max_distance = max_distance
        divisor = 2 if context.causal else 4
        if buckets < divisor or buckets % divisor:
            raise ConfigError(
                f"{context.path}.buckets={buckets} cannot be split evenly; use a multiple of {divisor}, such as 32."
            )
        exact = buckets // divisor
        if max_distance <= exact:
            raise ConfigError(
                f"{context.path}.max_distance={max_distance} does not exceed the {exact} buckets of one distance each; "
                f"use more than {exact}, or fewer buckets."
            )
        self.register_buffer("starts", torch.tensor(_starts(exact, max_distance)), persistent=False)
        self.weight = nn.Parameter(torch.empty(buckets, context.heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table from N(0, 1 / d_model), as T5 does."""
        nn.init.normal_(self.weight, std=self.context.d_model**-0.5)

    def bias(self, layer: int) -> BucketBias:
        """The bias, which is the same for every layer."""
        assert isinstance(self.starts, Tensor)
        return BucketBias(self.weight, self.starts, self.context.causal, self.max_distance)


def _starts(exact: int, max_distance: int) -> list[int]:
    """The smallest distance of every bucket but the first: `exact` buckets of one distance, then as many wider ones."""

    def start(step: int) -> int:
        """The smallest n with log(n / exact) / log(max_distance / exact) >= step / exact."""
        n = int(exact * (max_distance / exact) ** (step / exact)) - 1  # at most two too small
        while n**exact * exact**step < max_distance**step * exact**exact:
            n += 1
        return n

    return [*range(1, exact + 1), *(start(step) for step in range(1, exact))]
