r"""Linformer: attention over a learned projection of the sequence's length.

Wang et al. 2020, "Linformer: Self-Attention with Linear Complexity", equation 7:

    head = softmax(Q (E K)^T / sqrt(d)) (F V),     E, F in R^(rank x n)

Time and memory O(n rank) per head. Sharing (section 4): `none`, one E and one F per layer for all heads;
`key_value`, E = F per layer. (The paper's headwise sharing is what `none` means here, as in its experiments: a
projection per head never appears in them. Sharing across layers needs a tensor that outlives a layer.)

Deviation: a sequence shorter than the one the model was built for uses the first columns of E and F, the same as
padding it with zeros.

Not supported: causality, relative bias, rotation, incremental decoding and longer sequences; `reasons` says why.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from xformer.attention.base import Attention, AttentionContext
from xformer.attention.capability import Capability
from xformer.attention.mask import Mask
from xformer.position.bias import RelativeBias


class Linformer(Attention):
    """Every query reads `rank` mixtures of the keys.

    Args:
        context: the layer's dimensions and role.
        rank: the projected length, k in the paper.
        sharing: whether keys and values have projections of their own.
    """

    provides: ClassVar[Capability] = Capability.CROSS | Capability.PADDING
    reasons: ClassVar[dict[Capability, str]] = {
        Capability.CAUSAL: "its projection mixes all positions before the scores exist, so no mask can hide the future.",
        Capability.BIAS: "its scores belong to mixtures of positions, which have no distance to a query.",
        Capability.ROTARY: "its keys are mixed over positions after the rotation, so the scores do not depend on distance.",
        Capability.INCREMENTAL: "every new token changes every projected key, and it cannot be causal.",
        Capability.VARIABLE_LENGTH: "its projection has one learned column per position.",
    }

    def __init__(self, context: AttentionContext, *, rank: int, sharing: Literal["none", "key_value"]) -> None:
        super().__init__(context)
        self.project_key = nn.Parameter(torch.empty(rank, context.max_key))
        self.project_value = self.project_key if sharing == "key_value" else nn.Parameter(self.project_key.clone())
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw E and F from N(0, 1 / rank), as in the paper's Johnson-Lindenstrauss argument (theorem 2)."""
        for projection in dict.fromkeys((self.project_key, self.project_value)):
            nn.init.normal_(projection, std=projection.shape[0] ** -0.5)

    def forward(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d"],
        value: Float[Tensor, "b h k d"],
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h q d"]:
        """softmax(Q (E K)^T / sqrt(d)) (F V)."""
        if mask.key_padding is not None:
            real = mask.key_padding[:, None, :, None]
            key, value = key * real, value * real
        length = key.shape[2]
        short_key = self.project_key[:, :length] @ key  # b h r d
        short_value = self.project_value[:, :length] @ value
        return scaled_dot_product_attention(query, short_key, short_value)
