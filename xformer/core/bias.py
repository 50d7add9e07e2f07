"""Relative bias: a function of the distance `key position - query position`, never stored as a queries x keys tensor.

The attention evaluates it as needed: a dense kernel for all distances, a block-sparse kernel for those of its blocks.
`#b` is 1 if all rows share their positions; `*block` are the dimensions of blocks, none in a dense kernel.
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
        """Shift the query before the attention and `scores` use it.

        For terms that depend on the key: a term u . k_j of key j equals the content score of a query shifted by u.
        """
        return query

    @property
    def adds_values(self) -> bool:
        """Whether `values` has a term, which requires the attention weights."""
        return type(self).values is not RelativeBias.values

    @abstractmethod
    def scores(
        self, query: Float[Tensor, "b h *block q d"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "#b h *block q k"]:
        """The term added to the scaled scores of queries and the keys at these distances."""

    def windows(
        self, query: Float[Tensor, "b h q d"], distances: Int[Tensor, " distances"], keys: int
    ) -> Float[Tensor, "#b h q k"]:
        """The scores for consecutive positions.

        Args:
            query: as for `scores`.
            distances: from (first key - last query) up to (last key - first query); query i of q is at distances
                `distances[q - 1 - i : q - 1 - i + keys]` from the keys.
            keys: the number of keys.
        """
        return self.scores(query, distances.unfold(0, keys, 1).flip(0)[None])

    def values(
        self, weights: Float[Tensor, "b h *block q k"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "b h *block q d"] | None:
        """The term added to the mixed values, computed from the attention weights; None without such a term."""
        return None


class TableBias(RelativeBias):
    """A bias that depends only on the distance, one number per head; it needs BIAS, any other needs CONTENT_BIAS.

    Attributes:
        slopes: one per head, if the bias is -slope |distance| everywhere, so that a kernel can apply it as a decay.
        reach: the distance beyond which the bias is constant on either side, if there is one.
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
        """The scores as views of the table of all distances."""
        return self.table(distances).unfold(-1, keys, 1).flip(-2)[None]


def dense_scores(bias: RelativeBias, query: Float[Tensor, "b h q d"], mask: Mask) -> Float[Tensor, "#b h q k"]:
    """The bias of all pairs of a query and a key, in float32 or wider.

    If positions are consecutive and equal in all rows, which holds except for padding on the left, there are only
    q + k - 1 distances.
    """
    query = at_least_float32(query)
    with without_autocast(query.device):
        if mask.starts is None:
            return at_least_float32(bias.scores(query, mask.distances()))
        return at_least_float32(bias.windows(query, all_distances(mask), mask.key_positions.shape[1]))


def all_distances(mask: Mask) -> Int[Tensor, " distances"]:
    """Each distance once, from (first key - last query) up to (last key - first query).

    Raises:
        ValueError: the positions are not consecutive.
    """
    if mask.starts is None:
        raise ValueError("positions must be consecutive")
    queries, keys = mask.query_positions.shape[1], mask.key_positions.shape[1]
    lowest = mask.starts[1] - mask.starts[0] - (queries - 1)
    return torch.arange(lowest, lowest + queries + keys - 1, device=mask.key_positions.device)
