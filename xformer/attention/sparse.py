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
reads both (`near_and_far.py`). Split heads, biases that depend on the query and strides beyond 512 are gathered by
blocks (`block_sparse.py`).

Decoding keeps all keys and values (each can still be an l-th one) and reads l + n / l of them, or l + c n / l.

Deviations: A1 of the strided pattern is l positions, the query's own among them; the paper's max(0, i - l) names one
more, which A2 has. A query of a split head that reads the fixed A2 may find no column before it, and yields zeros.
Dropout acts on the mixed values (see `AttentionContext`). The paper's interleaving over layers is not built in.

Not supported: cross-attention. Both patterns compare positions, and those of two sequences do not correspond.
"""

from collections.abc import Callable
from dataclasses import replace
from math import isqrt
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from xformer.attention import near_and_far
from xformer.attention.base import AttentionContext
from xformer.attention.block_sparse import Mixed, Tokens, attend, merge
from xformer.attention.block_sparse_attention import BlockSparseAttention
from xformer.attention.block_sparse_bias import on_heads
from xformer.attention.near_and_far_tiles import Counts, NearAndFar
from xformer.attention.pattern import (
    LARGEST_BLOCK,
    SMALLEST_BLOCK,
    Pattern,
    Rule,
    blocks_of,
    cut,
    even,
    everything,
    near,
)
from xformer.core.bias import RelativeBias, TableBias
from xformer.core.capability import Capability
from xformer.errors import ConfigError

Pairs = Callable[[Tensor, Tensor], Tensor]
"""Whether queries at some positions read keys at others."""

LONGEST_ROW = 512
"""Of positions that are worked on together; their scores are its square."""
WINDOW_BLOCK = 32
"""Queries that share a window: fewer make poor matrix products, more look at more keys in vain."""


class Sparse(BlockSparseAttention):
    """Every query reads its neighbours and a sample of everything.

    Args:
        context: the layer's dimensions and role.
        pattern: `strided` (the last l and every l-th) or `fixed` (the own block and the last columns of all others).
        stride: l; None for the square root of the longest sequence, rounded up.
        summary: c, the columns of a block that all other blocks read; of the fixed pattern.
        heads: `merged` (each head reads both) or `split` (each half of the heads reads one).

    Raises:
        ConfigError: the summary exceeds the stride, or one head is to be split.
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
                f"attention.summary={summary} does not fit a stride of {self.stride}; give 1 to {self.stride}."
            )
        if heads == "split" and context.heads < 2:
            raise ConfigError(
                f"attention.heads=split needs two heads and there is {context.heads}; choose heads=merged."
            )
        self.pattern, self.summary, self.heads = pattern, summary, heads

    def mix(self, tokens: Tokens, *, causal: bool, bias: RelativeBias | None) -> Float[Tensor, "b h n d"]:
        """softmax(Q K^T / sqrt(d) + B) V over both patterns, by each head or by one half each."""
        pattern = self._near_and_far(tokens.span, causal)
        if self.heads == "merged" and pattern is not None and (bias is None or isinstance(bias, TableBias)):
            together: Tensor = near_and_far.attend(tokens, pattern, bias)
            return together
        first, second = (self._window, self._columns) if self.pattern == "strided" else (self._block, self._summaries)
        if self.heads == "merged":
            return merge(first(tokens, causal, bias), second(tokens, causal, bias))
        total, halves = tokens.query.shape[1], []
        for part, heads in ((first, slice(0, total // 2)), (second, slice(total // 2, total))):
            query, key, value = (x[:, heads] for x in (tokens.query, tokens.key, tokens.value))
            half_bias = None if bias is None else on_heads(bias, heads, total)
            halves.append(part(replace(tokens, query=query, key=key, value=value), causal, half_bias).values)
        return torch.cat(halves, dim=1)

    def rule(self, length: int, *, causal: bool) -> Rule:
        """A1 and A2, as one set or for one half of the heads each."""
        stride, summary, after = self.stride, self.stride - self.summary, 0 if causal else length
        halves: tuple[Pairs, Pairs] = (
            (lambda i, j: (j > i - stride) & (j < i + stride), lambda i, j: i % stride == j % stride)
            if self.pattern == "strided"
            else (lambda i, j: i // stride == j // stride, lambda i, j: (j % stride >= summary) & (i == i))
        )
        first, second = halves
        name = (Sparse, self.pattern, stride, summary, after)
        if self.heads == "merged":
            return Rule(name, lambda _, i, j: (first(i, j) | second(i, j)) & (j <= i + after))
        heads = self.context.heads
        return Rule(
            (*name, heads),
            lambda head, i, j: torch.where(head < heads // 2, first(i, j), second(i, j)) & (j <= i + after),
            heads,
        )

    def _near_and_far(self, span: int, causal: bool) -> NearAndFar | None:
        """Both patterns as one, where a row of l positions is not too long for it.

        The query itself belongs to the every l-th of the strided pattern, and to the own block of the fixed one.
        """
        stride = min(self.stride, span)
        if stride > LONGEST_ROW:
            return None
        if self.pattern == "fixed":
            block = stride * max(1, SMALLEST_BLOCK // stride)
            near, far = _fixed(stride, causal)  # one block where it is longer than the sequence: then nothing is far
            return NearAndFar(stride, block, 0, 0, 1, min(self.summary, stride), near, far, causal)
        block = stride * max(1, SMALLEST_BLOCK // stride)
        if stride > WINDOW_BLOCK:
            block = max(size for size in range(1, WINDOW_BLOCK + 1) if stride % size == 0)
        near, far = _strided(stride, causal)
        return NearAndFar(stride, block, stride, 0 if causal else stride, stride, stride, near, far, causal)

    def _window(self, tokens: Tokens, causal: bool, bias: RelativeBias | None) -> Mixed:
        """The strided A1: the last l positions."""
        back = self.stride - 1
        return attend(tokens, near(tokens.span, back, 0 if causal else back), bias)

    def _columns(self, tokens: Tokens, causal: bool, bias: RelativeBias | None) -> Mixed:
        """The strided A2: every l-th position, read as a column of the tokens written l in a row."""
        stride = min(self.stride, tokens.span)
        block = even(-(-tokens.span // stride), LARGEST_BLOCK)
        blocks = -(-tokens.span // (stride * block))
        merged = self.heads == "merged"

        def by_column(x: Tensor, dim: int) -> Tensor:
            x = pad(x, (0, 0) * (x.dim() - 1 - dim) + (0, -x.shape[dim] % (stride * block)))
            return cut(x, dim, stride).transpose(dim, dim + 1).flatten(dim, dim + 1)

        def by_position(x: Tensor) -> Tensor:
            return cut(x, 2, blocks * block).transpose(2, 3).flatten(2, 3)[:, :, : tokens.span]

        def reads(taken: range, device: torch.device) -> Tensor:
            return (blocks_of(taken, device) // blocks * blocks + torch.arange(blocks, device=device))[None]

        def allowed(query: Tensor, key: Tensor) -> Tensor:
            others = key != query if merged else torch.ones_like(key, dtype=torch.bool)  # A1 has the query itself
            return others & (key <= query) if causal else others

        query, key, value = (by_column(x, 2) for x in (tokens.query, tokens.key, tokens.value))
        positions = by_column(tokens.key_positions, 0)
        real = torch.ones(1, tokens.span, dtype=torch.bool, device=key.device) if tokens.real is None else tokens.real
        columns = Tokens(query, key, value, positions, positions, by_column(real, 1), tokens.span)
        mixed = attend(columns, Pattern(block, block, blocks, reads, allowed), bias)
        return Mixed(by_position(mixed.values), by_position(mixed.log_sum))

    def _block(self, tokens: Tokens, causal: bool, bias: RelativeBias | None) -> Mixed:
        """The fixed A1: the own block."""
        stride = self.stride
        block = min(stride * max(1, SMALLEST_BLOCK // stride), tokens.span)

        def reads(taken: range, device: torch.device) -> Tensor:
            return blocks_of(taken, device)[None]

        def allowed(query: Tensor, key: Tensor) -> Tensor:
            own = key // stride == query // stride
            return own & (key <= query) if causal else own

        return attend(tokens, Pattern(block, block, 1, reads, allowed), bias)

    def _summaries(self, tokens: Tokens, causal: bool, bias: RelativeBias | None) -> Mixed:
        """The fixed A2: the last c columns of other blocks, and of the own one where no other pattern has it."""
        stride, first, merged = self.stride, self.stride - self.summary, self.heads == "merged"
        count = tokens.span // stride * self.summary + max(0, tokens.span % stride - first)
        index = torch.arange(max(1, count), device=tokens.key.device)
        index = index // self.summary * stride + first + index % self.summary
        index = index.clamp(max=tokens.span - 1)  # where there is no column at all, a key that is none stands in

        def allowed(query: Tensor, key: Tensor) -> Tensor:
            summary = key % stride >= first
            if merged:
                return summary & (key // stride < query // stride if causal else key // stride != query // stride)
            return summary & (key <= query) if causal else summary

        summaries = replace(
            tokens,
            key=tokens.key.index_select(2, index),
            value=tokens.value.index_select(2, index),
            key_positions=tokens.key_positions[index],
            real=None if tokens.real is None else tokens.real[:, index],
        )
        keys_before = (lambda query: -(-query // stride) * self.summary) if causal else None
        return attend(summaries, everything(tokens.span, len(index), allowed, keys_before), bias)

    def recall(self, positions: Int[Tensor, " b"], length: int) -> Int[Tensor, "b #h k"]:
        """A1 and A2 of a causal query, as positions."""
        query = positions[:, None]
        near_by = torch.arange(min(self.stride, length), device=positions.device)
        blocks = torch.arange(-(-length // self.stride), device=positions.device)
        if self.pattern == "strided":
            first, second = query - near_by, query - self.stride * blocks
            if self.heads == "merged":
                second = second[:, 1:]  # without the query itself, which A1 has
        else:
            start = query // self.stride * self.stride
            first = start + near_by
            last_columns = torch.arange(self.stride - self.summary, self.stride, device=positions.device)
            second = (self.stride * blocks[:, None] + last_columns).flatten().expand(len(query), -1)
            second = second.masked_fill(second >= (start if self.heads == "merged" else query + 1), -1)
        if self.heads == "merged":
            return torch.cat((first, second), dim=1)[:, None]
        total, width = self.context.heads, max(first.shape[1], second.shape[1])
        first, second = (pad(x, (0, width - x.shape[1]), value=-1)[:, None] for x in (first, second))
        return torch.cat((first.expand(-1, total // 2, -1), second.expand(-1, total - total // 2, -1)), dim=1)


def _strided(stride: int, causal: bool) -> tuple[Counts, Counts]:
    def near(query: Tensor, key: Tensor) -> Tensor:
        others = (key > query - stride) & (key != query)
        return others & (key < query if causal else key < query + stride)

    def far(query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) if causal else (key == key) & (query == query)

    return near, far


def _fixed(stride: int, causal: bool) -> tuple[Counts, Counts]:
    def near(query: Tensor, key: Tensor) -> Tensor:
        own = key // stride == query // stride
        return own & (key <= query) if causal else own

    def far(query: Tensor, key: Tensor) -> Tensor:
        return key // stride < query // stride if causal else key // stride != query // stride

    return near, far
