r"""Luong's multiplicative attention: a product of query and key, scaled or not, or with a matrix between them.

Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", equations 7 and 8, and with
`scaled` the form of Vaswani et al. 2017, equation 1:

    a_ij = softmax_j(score(q_i, k_j) + b_ij)
    score(q, k) = q . k            dot
                = q^T W k          general, one W per head
                = q . k / sqrt(d)  scaled

with b an optional relative bias. Time O(q k d); memory O((q + k) d) through torch's fused kernel, O(q k) with padding
or a bias. Deviation: Luong's queries and keys are states of recurrent networks; here they are projections of the
layer's input, as in every other variant, which makes `general` a second factor of the projection, learned per head. W
starts from N(0, 1 / d^2), so that the scores of normal queries and keys have variance 1, as with `scaled`.

Not supported: rotation; `reasons` says why. For `scaled` with rotation, `full` is the same attention.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xformer.attention.base import AttentionContext, CachedAttention
from xformer.attention.kernels.dense.eager import eager_attention
from xformer.core.bias import RelativeBias
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.core.precision import at_least_float32, in_float32, without_autocast
from xformer.core.sdpa import fused_attention


class Multiplicative(CachedAttention):
    """Multiplicative attention: softmax attention scored by the product of query and key.

    Args:
        context: the layer's dimensions and role.
        form: the form of the product.
    """

    provides: ClassVar[Capability] = ~Capability.ROTARY
    reasons: ClassVar[dict[Capability, str]] = {
        Capability.ROTARY: (
            "its general form has a learned matrix between query and key, which does not commute with rotations, so "
            "the scores would not depend on distance alone."
        ),
    }

    def __init__(self, context: AttentionContext, *, form: Literal["dot", "general", "scaled"]) -> None:
        super().__init__(context)
        self.scale = context.head_dim**-0.5 if form == "scaled" else 1.0
        shape = context.heads, context.head_dim, context.head_dim
        self.weight = nn.Parameter(torch.empty(shape)) if form == "general" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw W so that scores start with variance 1."""
        if self.weight is not None:
            nn.init.normal_(self.weight, std=1 / self.weight.shape[-1])

    def forward(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d"],
        value: Float[Tensor, "b h k d"],
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h q d"]:
        """softmax(score(Q, K) + B) V, over the allowed keys."""
        if bias is None and mask.key_padding is None and (mask.aligned or not mask.causal):
            with without_autocast(query.device):
                return fused_attention(self._left(query), key, value, is_causal=mask.causal, scale=self.scale)
        return self._eager(query, key, value, mask=mask, bias=bias)

    def _left(self, query: Float[Tensor, "b h q d"]) -> Float[Tensor, "b h q d"]:
        """Compute q^T W in float32 at least."""
        return query if self.weight is None else at_least_float32(query) @ at_least_float32(self.weight)

    @in_float32
    def _eager(self, query: Tensor, key: Tensor, value: Tensor, *, mask: Mask, bias: RelativeBias | None) -> Tensor:
        return eager_attention(self.scale * self._left(query) @ key.mT, value, query=query, mask=mask, bias=bias)
