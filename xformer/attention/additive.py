r"""Bahdanau's additive attention: a small network of query and key gives the score.

Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate", appendix A.1.2, per head:

    a_ij = softmax_j(w . tanh(W_q q_i + W_k k_j) + b_ij)

with b an optional relative bias. Time O(q k hidden); memory O(q k) for the scores. The hidden layer of all pairs would
be `hidden` times that: it exists for a few queries at a time only, and is recomputed in the backward pass.

Deviations: one network per head, with queries and keys projected from the layer's input, as in every other variant; no
hidden bias, as in the paper. W_q and W_k start from N(0, 1 / (2 d)) and w from N(0, 1 / hidden), so that the hidden
layer's input has variance 1 and the scores nearly (the paper starts w at zero, for a recurrent network).

Not supported: rotation; `reasons` says why.
"""

from functools import partial
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xformer.attention.base import AttentionContext, CachedAttention
from xformer.attention.kernels.dense.eager import eager_attention
from xformer.core.bias import RelativeBias
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.core.precision import in_float32

HIDDEN_NUMBERS = 2**21
"""The maximum size of the hidden layer in memory, unless a single query needs more."""


class Additive(CachedAttention):
    """Additive attention: softmax attention whose scores come from a hidden layer over query and key.

    Args:
        context: the layer's dimensions and role.
        hidden: units of the hidden layer, per head.
    """

    provides: ClassVar[Capability] = ~Capability.ROTARY
    reasons: ClassVar[dict[Capability, str]] = {
        Capability.ROTARY: (
            "its scores are no function of the product of query and key, so rotating both does not make them depend on "
            "distance alone."
        ),
    }

    def __init__(self, context: AttentionContext, *, hidden: Annotated[int, Ge(1)]) -> None:
        super().__init__(context)
        self.from_query, self.from_key = (
            nn.Parameter(torch.empty(context.heads, context.head_dim, hidden)) for _ in range(2)
        )
        self.weight = nn.Parameter(torch.empty(context.heads, hidden, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights so that what they feed starts with variance about 1."""
        for projection in (self.from_query, self.from_key):
            nn.init.normal_(projection, std=(2 * projection.shape[1]) ** -0.5)
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5)

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
        """softmax(w . tanh(W_q q + W_k k) + B) V, over the allowed keys."""
        scores = self.scores(query @ self.from_query.to(query.dtype), key @ self.from_key.to(key.dtype))
        return eager_attention(scores, value, query=query, mask=mask, bias=bias)

    def scores(
        self, query: Float[Tensor, "b h q hidden"], key: Float[Tensor, "b h k hidden"]
    ) -> Float[Tensor, "b h q k"]:
        """The scores of all pairs of query and key."""
        queries = max(1, HIDDEN_NUMBERS // key.numel())
        parts = torch.split(query, queries, dim=2)
        recomputed = partial(checkpoint, _scores, use_reentrant=False, preserve_rng_state=False)
        scored = recomputed if torch.is_grad_enabled() else _scores
        return torch.cat([scored(part, key, self.weight.to(key.dtype)) for part in parts], dim=2)


def _scores(
    query: Float[Tensor, "b h q hidden"], key: Float[Tensor, "b h k hidden"], weight: Float[Tensor, "h hidden 1"]
) -> Float[Tensor, "b h q k"]:
    hidden = torch.tanh(query[:, :, :, None] + key[:, :, None])  # b h q k hidden
    return (hidden @ weight[:, None]).squeeze(-1)
