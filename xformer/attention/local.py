r"""Local attention: every query reads the keys in a window around it.

Parmar et al. 2018, "Image Transformer", section 4.1 and Beltagy et al. 2020, "Longformer", section 3.1:

    A_i = {j : |i - j| <= window},                causal: A_i = {j : 0 <= i - j <= window}
    Attention(Q, K, V)_i = softmax over A_i (q_i K^T / sqrt(d) + B) V

with B an optional relative bias. `window` counts neighbours on one side, without the query itself: a causal query reads
window + 1 keys, a bidirectional one 2 window + 1. (Longformer's w is 2 window.)

Time and memory O(n window). Decoding keeps a ring of window + 1 keys and values, whatever the context's length.

Deviations: none from the sliding window; Longformer's dilation and global tokens are not implemented (for the latter
use `bigbird` without random blocks). Dropout acts on the mixed values (see `AttentionContext`).

Not supported: cross-attention. The window of a query is around its own position, and position i of one sequence does
not correspond to position i of another.
"""

from functools import lru_cache
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor

from xformer.attention.base import AttentionContext
from xformer.attention.kernels.block_sparse.attention import BlockSparseAttention, PositionState
from xformer.attention.kernels.block_sparse.block_attention import (
    AttentionInput,
    MaskMod,
    WindowLayout,
    block_attention,
    with_causality,
)
from xformer.core.bias import RelativeBias
from xformer.core.capability import Capability


@lru_cache(maxsize=64)
def sliding_window_mask(window: int) -> MaskMod:
    """The mask_mod of a sliding window: |i - j| <= window."""
    return lambda head, query, key: (key >= query - window) & (key <= query + window)


class Local(BlockSparseAttention):
    """Local (sliding-window) attention: every query attends to its neighbours.

    Args:
        context: the layer's dimensions and role.
        window: the number of neighbours on each side; only on the left if causal.
    """

    provides: ClassVar[Capability] = ~Capability.CROSS

    def __init__(self, context: AttentionContext, *, window: Annotated[int, Ge(0)]) -> None:
        super().__init__(context)
        self.window = window

    def mask_mod(self, length: int, *, causal: bool) -> MaskMod:
        """The sliding window, A_i."""
        return with_causality(sliding_window_mask(self.window), causal=causal)

    def mix(self, tokens: AttentionInput, *, causal: bool, bias: RelativeBias | None) -> Float[Tensor, "b h n d"]:
        """softmax(Q K^T / sqrt(d) + B) V, over the window."""
        mask_mod = self.mask_mod(tokens.span, causal=causal)
        return block_attention(
            tokens, WindowLayout(tokens, mask_mod, self.window, 0 if causal else self.window), bias
        ).values

    def init_state(self, max_length: int) -> PositionState:
        """A ring buffer of the last window + 1 tokens, for sequences of any length."""
        return PositionState(min(self.window + 1, max_length), None if self.window < max_length else max_length)

    def keys_of(self, query: Int[Tensor, " b"], length: int) -> Int[Tensor, "b #h k"]:
        """The last window + 1 positions."""
        return (query[:, None] - torch.arange(length, device=query.device))[:, None]
