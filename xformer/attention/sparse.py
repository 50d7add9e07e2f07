r"""Sparse Transformer: two patterns of about sqrt(n) keys, through which every token reaches every other in two steps.

Child et al. 2019, "Generating Long Sequences with Sparse Transformers", section 4.3, with stride l and c summaries:

    strided    A1_i = {j <= i : i - j < l}                    A2_i = {j <= i : (i - j) mod l = 0}
    fixed      A1_i = {j <= i : floor(j / l) = floor(i / l)}  A2_i = {j <= i : j mod l >= l - c}

    merged     every head reads A1_i and A2_i, as one set: softmax over both (q_i K^T / sqrt(d) + B) V
    split      the first half of the heads reads A1_i, the second half A2_i

with B an optional relative bias. The bidirectional forms, which the paper does not define, drop j <= i and take
|i - j| < l.

Time O(n (l + n / l)) for strided and O(n (l + c n / l)) for fixed: O(n sqrt(n)) only where l grows like sqrt(n), which
is what `stride: null` does, from the longest sequence that the model is built for. With a given l the second pattern
stays quadratic, divided by l. Memory is O(n), as nothing of a pattern outlives a group of rows; with a bias that
depends on the query it is what time is. Every l-th key is the neighbour of the one before it once the tokens are
written as a matrix with l columns and read column by column, so that neither pattern gathers anything where each head
reads both (`kernels/strided`). Split heads, biases that depend on the query and strides beyond 512 are gathered by
blocks (`kernels/block_sparse`).

Decoding keeps all keys and values (each can still be an l-th one) and reads l + n / l of them, or l + c n / l.

Deviations: A1 of the strided pattern is l positions, the query's own among them; the paper's max(0, i - l) names one
more, which A2 has. A query of a split head that reads the fixed A2 may find no column before it, and yields zeros.
Dropout acts on the mixed values (see `AttentionContext`). The paper's interleaving over layers is not built in.

Not supported: cross-attention. Both patterns compare positions, and those of two sequences do not correspond.
"""

from dataclasses import replace
from functools import lru_cache
from math import isqrt
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from xformer.attention.base import AttentionContext
from xformer.attention.kernels.block_sparse.attention import BlockSparseAttention
from xformer.attention.kernels.block_sparse.block_attention import (
    LARGEST_BLOCK,
    SMALLEST_BLOCK,
    AttentionInput,
    AttentionOutput,
    BlockLayout,
    MaskMod,
    WindowLayout,
    bias_on_heads,
    block_attention,
    even_block_size,
    mask_mod_difference,
    merge,
    split_into_blocks,
    with_causality,
)
from xformer.attention.kernels.strided import tiles
from xformer.core.bias import RelativeBias, TableBias
from xformer.core.capability import Capability
from xformer.errors import ConfigError

LONGEST_ROW = 512
"""The number of positions computed together; the number of scores is its square."""
WINDOW_BLOCK = 32
"""The number of queries that share a window; fewer make inefficient matrix products, more compute more masked keys."""


@lru_cache(maxsize=64)
def _patterns(pattern: str, stride: int, summary: int) -> tuple[MaskMod, MaskMod]:
    """The two patterns A1 and A2."""
    if pattern == "strided":
        return (
            lambda head, query, key: (key > query - stride) & (key < query + stride),
            lambda head, query, key: query % stride == key % stride,
        )
    return (
        lambda head, query, key: query // stride == key // stride,
        lambda head, query, key: key % stride >= stride - summary,
    )


@lru_cache(maxsize=64)
def _merged(first: MaskMod, second: MaskMod) -> MaskMod:
    return lambda head, query, key: first(head, query, key) | second(head, query, key)


@lru_cache(maxsize=64)
def _split(first: MaskMod, second: MaskMod, heads: int) -> MaskMod:
    return lambda head, query, key: torch.where(head < heads // 2, first(head, query, key), second(head, query, key))


class Sparse(BlockSparseAttention):
    """Sparse Transformer attention: every query attends to its neighbours and to a sample of all keys.

    Args:
        context: the layer's dimensions and role.
        pattern: `strided` (the last l and every l-th) or `fixed` (the query's block and the last columns of all
            others).
        stride: l; None for the square root of the longest sequence, rounded up.
        summary: c, the columns of a block that all other blocks read, for the fixed pattern.
        heads: `merged` (each head reads both) or `split` (each half of the heads reads one).

    Raises:
        ConfigError: the summary exceeds the stride, or there is only one head to split.
    """

    provides: ClassVar[Capability] = ~Capability.CROSS

    def __init__(
        self,
        context: AttentionContext,
        *,
        pattern: Literal["strided", "fixed"],
        stride: Annotated[int, Ge(1)] | None,
        summary: Annotated[int, Ge(1)],
        heads: Literal["merged", "split"],
    ) -> None:
        super().__init__(context)
        self.stride = stride if stride is not None else isqrt(max(context.max_key, 1) - 1) + 1
        if pattern == "fixed" and summary > self.stride:
            raise ConfigError(
                f"{context.path}.summary={summary} does not fit a stride of {self.stride}; use 1 to {self.stride}."
            )
        if heads == "split" and context.heads < 2:
            raise ConfigError(
                f"{context.path}.heads=split needs two heads and there is {context.heads}; choose heads=merged."
            )
        self.pattern, self.summary, self.heads = pattern, summary, heads

    def patterns(self, *, causal: bool) -> tuple[MaskMod, MaskMod]:
        """The two patterns A1 and A2, as mask_mods."""
        first, second = _patterns(self.pattern, self.stride, self.summary)
        return with_causality(first, causal=causal), with_causality(second, causal=causal)

    def mask_mod(self, length: int, *, causal: bool) -> MaskMod:
        """A1 and A2, merged into one pattern or for one half of the heads each."""
        patterns = self.patterns(causal=causal)
        return _merged(*patterns) if self.heads == "merged" else _split(*patterns, self.context.heads)

    def mix(self, tokens: AttentionInput, *, causal: bool, bias: RelativeBias | None) -> Float[Tensor, "b h n d"]:
        """softmax(Q K^T / sqrt(d) + B) V over both patterns, by each head or by one half each."""
        row = min(self.stride, tokens.span)
        if self.heads == "merged" and row <= LONGEST_ROW and (bias is None or isinstance(bias, TableBias)):
            together: Tensor = tiles.strided_attention(tokens, self._tiles(row, causal), bias)
            return together
        layouts = (self._window, self._columns) if self.pattern == "strided" else (self._block, self._summaries)
        first, second = self.patterns(causal=causal)
        if self.heads == "merged":
            others = mask_mod_difference(second, first)
            return merge(layouts[0](tokens, first, causal, bias), layouts[1](tokens, others, causal, bias))
        total, halves = tokens.query.shape[1], []
        for attend_to, mask_mod, heads in (
            (layouts[0], first, slice(0, total // 2)),
            (layouts[1], second, slice(total // 2, total)),
        ):
            query, key, value = (x[:, heads] for x in (tokens.query, tokens.key, tokens.value))
            half_bias = None if bias is None else bias_on_heads(bias, heads, total)
            half = replace(tokens, query=query, key=key, value=value)
            halves.append(attend_to(half, mask_mod, causal, half_bias).values)
        return torch.cat(halves, dim=1)

    def _tiles(self, row: int, causal: bool) -> tiles.Strided:
        """Both patterns over rows of l positions: neighbours, and the own column or the last columns of all rows."""
        first, second = self.patterns(causal=causal)
        block = row * max(1, SMALLEST_BLOCK // row)
        if self.pattern == "fixed":  # one block if it is longer than the sequence: then A2 adds nothing
            sampled = min(self.summary, row)
            return tiles.Strided(row, block, 0, 0, 1, sampled, first, mask_mod_difference(second, first), causal)
        if row > WINDOW_BLOCK:
            block = max(size for size in range(1, WINDOW_BLOCK + 1) if row % size == 0)
        return tiles.Strided(
            row, block, row, 0 if causal else row, row, row, mask_mod_difference(first, second), second, causal
        )

    def _window(
        self, tokens: AttentionInput, mask_mod: MaskMod, causal: bool, bias: RelativeBias | None
    ) -> AttentionOutput:
        """The strided A1: the last l positions."""
        back = self.stride - 1
        return block_attention(tokens, WindowLayout(tokens, mask_mod, back, 0 if causal else back), bias)

    def _columns(
        self, tokens: AttentionInput, mask_mod: MaskMod, causal: bool, bias: RelativeBias | None
    ) -> AttentionOutput:
        """The strided A2: every l-th position, read as a column of the tokens written l in a row."""
        stride = min(self.stride, tokens.span)
        block = even_block_size(-(-tokens.span // stride), LARGEST_BLOCK)
        blocks = -(-tokens.span // (stride * block))

        def by_column(x: Tensor, dim: int) -> Tensor:
            x = pad(x, (0, 0) * (x.dim() - 1 - dim) + (0, -x.shape[dim] % (stride * block)))
            return split_into_blocks(x, dim, stride).transpose(dim, dim + 1).flatten(dim, dim + 1)

        def by_position(x: Tensor) -> Tensor:
            return split_into_blocks(x, 2, blocks * block).transpose(2, 3).flatten(2, 3)[:, :, : tokens.span]

        def reads(queries: range, device: torch.device) -> Tensor:
            column = torch.arange(queries.start, queries.stop, device=device)[:, None] // blocks
            return (column * blocks + torch.arange(blocks, device=device))[None]

        query, key, value = (by_column(x, 2) for x in (tokens.query, tokens.key, tokens.value))
        positions, valid = by_column(tokens.key_positions, 0), tokens.valid
        if valid is None:
            valid = torch.ones(1, tokens.span, dtype=torch.bool, device=key.device)
        columns = AttentionInput(query, key, value, positions, positions, by_column(valid, 1), tokens.span)
        layout = BlockLayout(columns, mask_mod, query_block=block, key_block=block, width=blocks, reads=reads)
        mixed = block_attention(columns, layout, bias)
        return AttentionOutput(by_position(mixed.values), by_position(mixed.lse))

    def _block(
        self, tokens: AttentionInput, mask_mod: MaskMod, causal: bool, bias: RelativeBias | None
    ) -> AttentionOutput:
        """The fixed A1: the own block."""
        block = min(self.stride * max(1, SMALLEST_BLOCK // self.stride), tokens.span)

        def reads(queries: range, device: torch.device) -> Tensor:
            return torch.arange(queries.start, queries.stop, device=device)[None, :, None]

        return block_attention(
            tokens, BlockLayout(tokens, mask_mod, query_block=block, key_block=block, width=1, reads=reads), bias
        )

    def _summaries(
        self, tokens: AttentionInput, mask_mod: MaskMod, causal: bool, bias: RelativeBias | None
    ) -> AttentionOutput:
        """The fixed A2: the last c columns of all blocks, put side by side."""
        stride, first, device = self.stride, self.stride - self.summary, tokens.key.device
        count = tokens.span // stride * self.summary + max(0, tokens.span % stride - first)
        index = torch.arange(max(1, count), device=device)
        index = index // self.summary * stride + first + index % self.summary
        index = index.clamp(max=tokens.span - 1)  # without any column, a missing key is a placeholder
        summaries = replace(
            tokens,
            key=tokens.key.index_select(2, index),
            value=tokens.value.index_select(2, index),
            key_positions=tokens.key_positions[index],
            valid=None if tokens.valid is None else tokens.valid[:, index],
        )
        query_block, key_block = even_block_size(tokens.span, LARGEST_BLOCK), even_block_size(len(index), LARGEST_BLOCK)
        blocks = -(-len(index) // key_block)

        def reads(queries: range, device: torch.device) -> Tensor:
            needed = blocks
            if causal:  # later columns need not be looked at
                before = -(-queries.stop * query_block // stride) * self.summary
                needed = max(1, min(blocks, -(-before // key_block)))
            return torch.arange(needed, device=device).expand(1, len(queries), needed)

        layout = BlockLayout(
            summaries, mask_mod, query_block=query_block, key_block=key_block, width=blocks, reads=reads
        )
        return block_attention(summaries, layout, bias)

    def keys_of(self, query: Int[Tensor, " b"], length: int) -> Int[Tensor, "b #h k"]:
        """A1 and A2 of a causal query, as positions."""
        query = query[:, None]
        near = torch.arange(min(self.stride, length), device=query.device)
        blocks = torch.arange(-(-length // self.stride), device=query.device)
        if self.pattern == "strided":
            first, second = query - near, query - self.stride * blocks
            if self.heads == "merged":
                second = second[:, 1:]  # without the query itself, which A1 has
        else:
            start = query // self.stride * self.stride
            first = start + near
            last_columns = torch.arange(self.stride - self.summary, self.stride, device=query.device)
            second = (self.stride * blocks[:, None] + last_columns).flatten().expand(len(query), -1)
            second = second.masked_fill(second >= (start if self.heads == "merged" else query + 1), -1)
        if self.heads == "merged":
            return torch.cat((first, second), dim=1)[:, None]
        total, width = self.context.heads, max(first.shape[1], second.shape[1])
        first, second = (pad(x, (0, width - x.shape[1]), value=-1)[:, None] for x in (first, second))
        return torch.cat((first.expand(-1, total // 2, -1), second.expand(-1, total - total // 2, -1)), dim=1)
