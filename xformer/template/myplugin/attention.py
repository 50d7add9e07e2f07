r"""Attention by the cosine between query and key.

Henry et al. 2020, "Query-Key Normalization for Transformers", equation 5:

    a_ij = softmax_j(g * cos(q_i, k_j) + b_ij)

with a learned scale g for each head and b an optional relative bias. Time O(q k d), memory O(q k). No deviation.
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from xformer.attention.base import AttentionContext, CachedAttention
from xformer.attention.kernels.dense.eager import eager_attention
from xformer.core.bias import RelativeBias
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.core.precision import in_float32


class MyPlugin(CachedAttention):
    """Attention with all allowed keys, scored by the cosine between query and key.

    Args:
        context: the layer's dimensions and role.
        temperature: the initial scale of the scores.
    """

    # Capabilities that are not declared are refused with the message in `reasons`.
    provides: ClassVar[Capability] = ~Capability.NONE
    reasons: ClassVar[dict[Capability, str]] = {}

    def __init__(self, context: AttentionContext, *, temperature: Annotated[float, Gt(0)]) -> None:
        super().__init__(context)
        self.initial_temperature = temperature
        self.temperature = nn.Parameter(torch.empty(context.heads, 1, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the scale of every head to its initial value."""
        nn.init.constant_(self.temperature, self.initial_temperature)

    @in_float32
    def forward(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d"],
        value: Float[Tensor, "b h k d"],
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h q d"]:
        """softmax(g * cos(Q, K) + B) V, over the allowed keys."""
        scores = self.temperature * normalize(query, dim=-1) @ normalize(key, dim=-1).mT  # b h q k
        return eager_attention(scores, value, query=query, mask=mask, bias=bias)
