r"""Relative positions with learned vectors for keys and values (Shaw et al. 2018).

Shaw et al. 2018, "Self-Attention with Relative Position Representations", equations 3 to 5, with c = clip:

    e_ij = q_i . (k_j + aK[clip(j - i, -c, c)]) / sqrt(d)
    z_i  = sum_j softmax(e_i)_j (v_j + aV[clip(j - i, -c, c)])

The tables aK and aV belong to a layer, and to a head unless `share_heads`. A causal stack reads only the distances up
to 0 and has tables for no others. Any length is defined, since distances are clipped.

Cost: the scores of a query with all 2c + 1 vectors, O(q c d), then a gather; for the values the weights are summed into
2c + 1 bins, and the bins multiply aV. No queries x keys x features tensor exists.

Not supported: attention that has no explicit scores and weights.
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor, nn

from xformer.core.bias import RelativeBias
from xformer.core.capability import Capability
from xformer.position.base import Position, PositionContext


class ClippedBias(RelativeBias):
    """The bias of one layer: its key and value terms.

    Args:
        keys: aK; one row of vectors for all heads, or one each.
        values_table: aV.
        low: the distance of the tables' first vector, -c; farther distances share the first or last vector.
    """

    def __init__(
        self, keys: Float[Tensor, "rows size d"], values_table: Float[Tensor, "rows size d"], low: int
    ) -> None:
        self.keys, self.values_table, self.low = keys, values_table, low

    def scores(
        self, query: Float[Tensor, "b h *block q d"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "#b h *block q k"]:
        """The product q . aK[clip(distance)] / sqrt(d)."""
        keys = self.keys.to(query.dtype).expand(query.shape[1], -1, -1)
        logits = torch.einsum("bh...d,hcd->bh...c", query, keys) * query.shape[-1] ** -0.5
        return torch.gather(logits, -1, self._index(distances, logits))

    def values(
        self, weights: Float[Tensor, "b h *block q k"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "b h *block q d"]:
        """The sum of w aV[clip(distance)] over the keys."""
        values = self.values_table.to(weights.dtype).expand(weights.shape[1], -1, -1)
        bins = weights.new_zeros(*weights.shape[:-1], values.shape[1])
        bins = bins.scatter_add(-1, self._index(distances, weights), weights)
        return torch.einsum("bh...c,hcd->bh...d", bins, values)

    def _index(self, distances: Tensor, like: Tensor) -> Tensor:
        """The table row of each distance, expanded without a copy to the batch and heads of `like`."""
        high = self.low + self.keys.shape[1] - 1
        index = distances.clamp(self.low, high) - self.low
        return index.unsqueeze(1).expand(*like.shape[:-1], -1)


class Relative(Position):
    """Relative positions: adds a learned vector per clipped distance to keys and values.

    Args:
        context: the stack's dimensions.
        clip: the distance beyond which all share a vector, k in the paper; there 16 for the base model.
        share_heads: whether the heads of a layer share their tables; the paper's base model has a table per head.
    """

    needs: ClassVar[Capability] = Capability.CONTENT_BIAS

    def __init__(self, context: PositionContext, *, clip: Annotated[int, Ge(1)], share_heads: bool) -> None:
        super().__init__(context)
        self.clip = clip
        shape = (1 if share_heads else context.heads, clip + 1 if context.causal else 2 * clip + 1, context.head_dim)
        self.keys = nn.ParameterList(torch.empty(shape) for _ in range(context.layers))
        self.values = nn.ParameterList(torch.empty(shape) for _ in range(context.layers))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all tables from N(0, 1 / head_dim), layer by layer."""
        for key, value in zip(self.keys, self.values, strict=True):
            nn.init.normal_(key, std=self.context.head_dim**-0.5)
            nn.init.normal_(value, std=self.context.head_dim**-0.5)

    def bias(self, layer: int) -> ClippedBias:
        """The bias of a layer, from the layer's own tables."""
        return ClippedBias(self.keys[layer], self.values[layer], -self.clip)
