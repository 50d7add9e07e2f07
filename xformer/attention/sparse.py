r"""Sparse Transformer: two patterns of about sqrt(n) keys, through which every token reaches every other in two steps.

Child et al. 2019, "Generating Long Sequences with Sparse Transformers", section 4.3, with stride l and c summary columns:

    strided    A1_i = {j <= i : i - j < l}                    A2_i = {j <= i : (i - j) mod l = 0}
    fixed      A1_i = {j <= i : floor(j / l) = floor(i / l)}  A2_i = {j <= i : j mod l >= l - c}

    merged     every head reads A1_i and A2_i, as one set: softmax over both (q_i K^T / sqrt(d) + B) V
    split      the first half of the heads reads A1_i, the second half A2_i

with B an optional relative bias. The bidirectional forms, which the paper does not define, drop j <= i and take |i - j| < l.

Time O(n (l + n / l)) for strided and O(n (l + c n / l)) for fixed: O(n sqrt(n)) only where l grows like sqrt(n), which
is what `stride: null` does, from the longest sequence that the model is built for. With a given l the second pattern
stays quadratic, divided by l. Memory is O(n), as nothing of a pattern outlives a group of blocks; with a bias that
depends on the query it is what time is. Every l-th key is the neighbour of the one before it once the tokens are
written as a matrix with l columns and read column by column, so the strided pattern gathers nothing it does not use.

Decoding keeps all keys and values (each can still be an l-th one) and reads l + n / l of them, or l + c n / l.

Deviations: A1 of the strided pattern is l positions, the query's own among them; the paper's max(0, i - l) names one
more, which A2 has. A query of a split head that reads the fixed A2 may find no column before it, and yields zeros.
Dropout acts on the mixed values (see `AttentionContext`). The paper's interleaving over layers is not built in.

Not supported: cross-attention. Both patterns compare positions, and those of two sequences do not correspond.
"""

from collections.abc import Callable
from dataclasses import replace
from math import isqrt
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from xformer.attention.base import AttentionContext
from xformer.attention.block_sparse import Mixed, Tokens, merge
from xformer.attention.block_sparse_attention import BlockSparseAttention
from xformer.attention.block_sparse_bias import OnHeads
from xformer.attention.capability import Capability
from xformer.errors import ConfigError
from xformer.position.bias import RelativeBias

Half = Callable[[Tokens, bool, RelativeBias | None], Mixed]


class Sparse(BlockSparseAttention):
    """Every query reads its neighbours and a sample of everything.

    Args:
        context: the layer's dimensions and role.
        pattern: `strided` (the last l and every l-th) or `fixed` (the own block and the last columns of all others).
        stride: l; None for the square root of the longest sequence, rounded up.
        summary: c, the columns of a block that all other blocks read; of the fixed pattern.
        heads: `merged` (each head reads both) or `split` (each half of the heads reads one).

    Raises:
        ConfigError: a value that is not possible.
    """

    provides: ClassVar[Capability] = ~Capability.CROSS

    def __init__(
        self,
        context: AttentionContext,
        *,
        pattern: Literal["strided", "fixed"],
        stride: int | None,
        summary: int,
        heads: Literal["merged", "split"],
    ) -> None:
        super().__init__(context)
        _one_of("pattern", pattern, "strided", "fixed")
        _one_of("heads", heads, "merged", "split")
        if stride is not None and stride < 1:
            raise ConfigError(f"attention.stride={stride} is too small; give 1 or more, or null for the square root.")
        self.stride = stride if stride is not None else isqrt(max(context.max_key, 1) - 1) + 1
        if pattern == "fixed" and not 1 <= summary <= self.stride:
            raise ConfigError(f"attention.summary={summary} does not fit a stride of {self.stride}; give 1 to {self.stride}.")
        if heads == "split" and context.heads < 2:
            raise ConfigError(f"attention.heads=split needs two heads and there is {context.heads}; choose heads=merged.")
        self.pattern, self.summary, self.heads = pattern, summary, heads

    def mix(self, tokens: Tokens, *, causal: bool, bias: RelativeBias | None) -> Float[Tensor, "b h n d"]:
        """softmax(Q K^T / sqrt(d) + B) V over both patterns, by each head or by one half each."""
        first, second = (self._window, self._columns) if self.pattern == "strided" else (self._block, self._summaries)
        if self.heads == "merged":
            return merge(first(tokens, causal, bias), second(tokens, causal, bias))
        halves = []
        for half, heads in zip((first, second), self._halves(tokens.query.shape[1]), strict=True):
            query, key, value = (x[:, heads] for x in (tokens.query, tokens.key, tokens.value))
            on_heads = None if bias is None else OnHeads.of(bias, heads, tokens.query.shape[1])
            halves.append(half(replace(tokens, query=query, key=key, value=value), causal, on_heads).values)
        return torch.cat(halves, dim=1)
