r"""Scaled dot-product attention.

Vaswani et al. 2017, "Attention Is All You Need", equation 1:

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d) + B) V

with B an optional relative bias; one that adds to the values (Shaw et al. 2018) adds its weighted mean to the result.
Time O(q k d); memory O((q + k) d) through torch's fused kernel or, with a bias of the distance, through our own; or
O(q k), where a mask or a bias has to be written out: a bias that knows the query, padding on the left. On a GPU, a bias
of the distance goes through flex_attention, from 1024 tokens on.
Deviation: dropout acts on the mixed values (see `AttentionContext`), not on the softmax's probabilities. Nothing is
unsupported.
"""

from typing import ClassVar, cast

from jaxtyping import Float
from torch import Tensor

from xformer.attention.base import CachedAttention
from xformer.attention.kernels.block_sparse import flex_attention as flex
from xformer.attention.kernels.dense.distance_bias import distance_biased_attention
from xformer.attention.kernels.dense.eager import eager_attention
from xformer.core.bias import RelativeBias, TableBias, dense_scores
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.core.precision import in_float32
from xformer.core.sdpa import fused_attention


class Full(CachedAttention):
    """Full softmax attention: every query attends to every allowed key."""

    provides: ClassVar[Capability] = ~Capability.NONE

    def forward(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d"],
        value: Float[Tensor, "b h k d"],
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h q d"]:
        """softmax(Q K^T / sqrt(d) + B) V, over the allowed keys."""
        if bias is None and mask.key_padding is None and (mask.aligned or not mask.causal):
            return fused_attention(query, key, value, is_causal=mask.causal)
        if bias is not None and bias.adds_values:  # which takes the weights, and a fused kernel keeps them
            return self._eager(query, key, value, mask=mask, bias=bias)
        if flex.flex_supports_dense(query, mask, bias):
            mixed: Tensor = flex.flex_dense_attention(query, key, value, mask=mask, bias=cast(TableBias, bias))
            return mixed
        if isinstance(bias, TableBias) and mask.starts is not None and query.is_cpu and query.shape[2] > 1:
            return distance_biased_attention(query, key, value, mask=mask, bias=bias)
        return self._masked(query, key, value, mask=mask, bias=bias)

    @in_float32
    def _eager(self, query: Tensor, key: Tensor, value: Tensor, *, mask: Mask, bias: RelativeBias) -> Tensor:
        scores = query @ key.mT * query.shape[-1] ** -0.5
        return eager_attention(scores, value, query=query, mask=mask, bias=bias)

    def _masked(self, query: Tensor, key: Tensor, value: Tensor, *, mask: Mask, bias: RelativeBias | None) -> Tensor:
        """Attend by torch's fused kernel, with mask and bias as one dense matrix."""
        allowed, empty = mask.dense(), None
        if allowed is not None:
            # A query without a key is NaN in some kernels: it attends to all, and its result becomes zero.
            empty = ~allowed.any(dim=-1, keepdim=True)
            allowed = allowed | empty
        attn_mask = allowed
        if bias is not None:
            attn_mask = dense_scores(bias, query, mask)
            attn_mask = attn_mask if allowed is None else attn_mask.masked_fill(~allowed, float("-inf"))
        mixed = fused_attention(query, key, value, attn_mask)
        return mixed if empty is None else mixed.masked_fill(empty, 0.0)
