"""Relative bias: a function of the distance `key position - query position`, never a queries x keys tensor of its own.

The attention evaluates it where it needs it: a dense kernel on all distances, a block-sparse kernel on those of its
blocks. `#b` is 1 where all rows share their positions; `*block` are the dimensions of blocks, none in a dense kernel.
"""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor


class RelativeBias(ABC):
    """One layer's bias for one forward pass."""

    @abstractmethod
    def scores(
        self, query: Float[Tensor, "b h *block q d"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "#b h *block q k"]:
        """What is added to the scaled scores of queries and the keys at these distances."""

    def values(
        self, weights: Float[Tensor, "b h *block q k"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "b h *block q d"] | None:
        """What is added to the mixed values, given the attention's weights; None where there is no such term."""
        return None


class TableBias(RelativeBias):
    """A bias of the distance alone, one number per head; it needs BIAS, any other needs CONTENT_BIAS."""

    @abstractmethod
    def table(self, distances: Int[Tensor, "*shape"]) -> Float[Tensor, "h *shape"]:
        """The bias at these distances."""

    def scores(
        self, query: Float[Tensor, "b h *block q d"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "#b h *block q k"]:
        """The table, for every query."""
        return self.table(distances).transpose(0, 1)
