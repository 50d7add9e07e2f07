"""Relative bias: a function of the distance `key position - query position`, never a queries x keys tensor of its own.

The attention evaluates it where it needs it: a dense kernel on all distances, a block-sparse kernel on those of its
blocks. `#b` is 1 where all rows share their positions; `*block` are the dimensions of blocks, none in a dense kernel.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xformer.core.mask import Mask
from xformer.core.precision import at_least_float32, without_autocast


class RelativeBias(ABC):
    """One layer's bias for one forward pass."""

    def shift(self, query: Float[Tensor, "b h q d"]) -> Float[Tensor, "b h q d"]:
        """The query as the attention is to see it, and as `scores` then gets it.

        For terms that depend on the key: what a bias gives to key j in the stead of a query, u . k_j, is the content
        score of a query moved by u.
        """
        return query

    @property
    def adds_values(self) -> bool:
        """Whether there is a term in `values`, so that the attention must have its weights at hand."""
        return type(self).values is not RelativeBias.values

    @abstractmethod
    def scores(
        self, query: Float[Tensor, "b h *block q d"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "#b h *block q k"]:
        """What is added to the scaled scores of queries and the keys at these distances."""

    def windows(
        self, query: Float[Tensor, "b h q d"], distances: Int[Tensor, " distances"], keys: int
    ) -> Float[Tensor, "#b h q k"]:
        """The scores where positions count up by one.

        Args:
            query: as for `scores`.
            distances: from the last query to the first key up to the first query to the last key; query i of q is at
                `distances[q - 1 - i : q - 1 - i + keys]` from the keys.
            keys: how many there are.
        """
        return self.scores(query, distances.unfold(0, keys, 1).flip(0)[None])

    def values(
        self, weights: Float[Tensor, "b h *block q k"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "b h *block q d"] | None:
        """What is added to the mixed values, given the attention's weights; None where there is no such term."""
        return None


class TableBias(RelativeBias):
    """A bias of the distance alone, one number per head; it needs BIAS, any other needs CONTENT_BIAS.

    Attributes:
        slopes: one per head, where the bias is -slope |distance| everywhere, so that a kernel may make it a decay.
        reach: the distance from which on the bias is constant on either side, where there is one.
    """

    slopes: Float[Tensor, " h"] | None = None
    reach: int | None = None

    @abstractmethod
    def table(self, distances: Int[Tensor, "*shape"]) -> Float[Tensor, "h *shape"]:
        """The bias at these distances."""

    def scores(
        self, query: Float[Tensor, "b h *block q d"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "#b h *block q k"]:
        """The table, for every query."""
        return self.table(distances).transpose(0, 1)

    def windows(
        self, query: Float[Tensor, "b h q d"], distances: Int[Tensor, " distances"], keys: int
    ) -> Float[Tensor, "#b h q k"]:
        """Views of the table of all distances."""
        return self.table(distances).unfold(-1, keys, 1).flip(-2)[None]


def dense_scores(bias: RelativeBias, query: Float[Tensor, "b h q d"], mask: Mask) -> Float[Tensor, "#b h q k"]:
    """The bias of all pairs of a query and a key, in float32 at least.

    Where positions count up by one and all rows share them, as they do but for padding on the left, there are only
    q + k - 1 distances.
    """
    query = at_least_float32(query)
    with without_autocast(query.device):
        if mask.starts is None:
            return at_least_float32(bias.scores(query, mask.distances()))
        return at_least_float32(bias.windows(query, all_distances(mask), mask.key_positions.shape[1]))


def all_distances(mask: Mask) -> Int[Tensor, " distances"]:
    """Those from the last query to the first key up to the first query to the last key, each once.

    Raises:
        ValueError: the positions do not count up by one.
    """
    if mask.starts is None:
        raise ValueError("there are other distances where positions do not count up by one")
    queries, keys = mask.query_positions.shape[1], mask.key_positions.shape[1]
    lowest = mask.starts[1] - mask.starts[0] - (queries - 1)
    return torch.arange(lowest, lowest + queries + keys - 1, device=mask.key_positions.device)
