r"""Scaled dot-product attention.

Vaswani et al. 2017, "Attention Is All You Need", equation 1:

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d) + B) V

with B an optional relative bias; one that adds to the values (Shaw et al. 2018) adds its weighted mean to the result.
Time O(q k d); memory O((q + k) d) through torch's fused kernel, or O(q k) where a mask or a bias has to be written out.
Deviation: dropout acts on the mixed values (see `AttentionContext`), not on the softmax's probabilities. Nothing is
unsupported.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from xformer.attention.base import Attention
from xformer.attention.capability import Capability
from xformer.attention.mask import Mask
from xformer.attention.state import KeyValueState, State
from xformer.position.bias import RelativeBias, dense_scores


class Full(Attention):
    """Every query reads every key it is allowed to."""

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
            return scaled_dot_product_attention(query, key, value, is_causal=mask.causal)
        readable, empty = mask.dense(), None
        if readable is not None:
            # An empty row would be NaN in some kernels: let it read everything, and zero what it read.
            empty = ~readable.any(dim=-1, keepdim=True)
            readable = readable | empty
        if bias is None:
            mixed = scaled_dot_product_attention(query, key, value, attn_mask=readable)
        else:
            scores = dense_scores(bias, query, mask).to(query.dtype)
            if readable is not None:
                scores = scores.masked_fill(~readable, float("-inf"))
            if bias.adds_values:
                mixed = _mix_with_values(query, key, value, scores, mask, bias)
            else:
                mixed = scaled_dot_product_attention(query, key, value, attn_mask=scores)
        return mixed if empty is None else mixed.masked_fill(empty, 0.0)

    def init_state(self, max_length: int) -> KeyValueState:
        """Room for the keys and values of `max_length` tokens."""
        return KeyValueState(max_length)

    def step(
        self,
        query: Float[Tensor, "b h new d"],
        key: Float[Tensor, "b h new d"],
        value: Float[Tensor, "b h new d"],
        state: State,
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h new d"]:
        """Append the new keys and values, then read all of them."""
        assert isinstance(state, KeyValueState)
        state.append(key, value, mask.key_positions, mask.key_padding)
        seen = Mask(mask.query_positions, state.positions, mask.causal, state.padding)
        return self(query, state.keys, state.values, mask=seen, bias=bias)


def _mix_with_values(
    query: Tensor, key: Tensor, value: Tensor, added: Tensor, mask: Mask, bias: RelativeBias
) -> Tensor:
    """As the fused kernel does, but with the weights at hand, for the bias's value term."""
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + added
    weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    mixed = torch.matmul(weights, value)
    term = bias.values(weights, mask.distances())
    return mixed if term is None else mixed + term
