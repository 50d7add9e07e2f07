r"""Scaled dot-product attention.

Vaswani et al. 2017, "Attention Is All You Need", equation 1:

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d) + B) V

with B an optional relative bias. Time O(q k d); memory O((q + k) d) through torch's fused kernel, or O(q k) where a
mask or a bias has to be written out. Deviation: dropout acts on the mixed values (see `AttentionContext`), not on the
softmax's probabilities. Nothing is unsupported.
"""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from xformer.attention.base import Attention
from xformer.attention.capability import Capability
from xformer.attention.mask import Mask
from xformer.attention.state import KeyValueState, State
from xformer.position.bias import RelativeBias


class Full(Attention):
    """Every query reads every key it is allowed to."""

    provides: ClassVar[Capability] = ~Capability.CONTENT_BIAS

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
        allowed = mask.dense()
        if allowed is None:
            scores_bias = bias.scores(query, mask.distances()) if bias is not None else None
            return scaled_dot_product_attention(query, key, value, attn_mask=scores_bias)
        # An empty row would be NaN in some kernels: let it read everything, and zero what it read.
        some = allowed.any(dim=-1, keepdim=True)
        allowed = allowed | ~some
        attn_mask = allowed
        if bias is not None:
            attn_mask = bias.scores(query, mask.distances()).masked_fill(~allowed, float("-inf"))
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
        return mixed.masked_fill(~some, 0.0)

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
