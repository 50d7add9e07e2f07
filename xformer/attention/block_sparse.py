"""The one kernel behind local, sparse and BigBird attention: gather the key blocks that a pattern names, and attend.

Blocks of queries are taken in groups, so that only one group's scores exist at a time. Forward keeps the mixed values
and the logarithm of the softmax's denominator; backward gathers again and rebuilds the weights from it (Dao et al.
2022, "FlashAttention", section 3.1). Several patterns over disjoint sets of keys make one softmax: `merge`.

A bias that depends on the query, or adds to the values, runs through autograd instead, in memory of the size of all
gathered scores: still linear in the length wherever the pattern is.

Shapes: b batch, h heads, q queries, k keys, d features of one head; g blocks of a group, w key blocks that each reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from xformer.attention.block_sparse_bias import bias_scores, bias_values
from xformer.attention.pattern import Pattern, cut
from xformer.position.bias import RelativeBias, TableBias

SCORES_AT_A_TIME = 1 << 20
"""Small enough to stay near the processor, large enough for its matrix products."""


@dataclass(frozen=True)
class Tokens:
    """Queries and keys in any order, with their positions.

    Attributes:
        query: the scaled products' left side.
        key: their right side.
        value: what is mixed.
        query_positions: of every query.
        key_positions: of every key.
        real: True at keys that exist; None where all do.
        span: positions that matter are below it; fillers may be beyond.
    """

    query: Float[Tensor, "b h q d"]
    key: Float[Tensor, "b h k d"]
    value: Float[Tensor, "b h k d"]
    query_positions: Int[Tensor, " q"]
    key_positions: Int[Tensor, " k"]
    real: Bool[Tensor, "#b k"] | None
    span: int


class Mixed(NamedTuple):
    """What one pattern contributes: the mixed values and the logarithm of the sum of their exponentiated scores."""

    values: Tensor  # b h q d
    log_sum: Tensor  # b h q


def attend(tokens: Tokens, pattern: Pattern, bias: RelativeBias | None) -> Mixed:
    """softmax(Q K^T / sqrt(d) + B) V over the keys that the pattern allows; zeros where there are none."""
    length = tokens.query.shape[2]
    blocks = _Blocks(tokens, pattern)
    query = cut(tokens.query, 2, pattern.query_block)  # b h m block d
    key, value = cut(tokens.key, 2, pattern.key_block), cut(tokens.value, 2, pattern.key_block)
    if bias is None or isinstance(bias, TableBias):
        table = None
        if bias is not None:
            table = bias.table(torch.arange(1 - tokens.span, tokens.span, device=query.device))
        if torch.is_autocast_enabled(query.device.type):
            query, key, value = (x.to(torch.get_autocast_dtype(x.device.type)) for x in (query, key, value))
        values, log_sum = _Attend.apply(query, key, value, table, blocks)  # type: ignore[no-untyped-call]
    else:
        values, log_sum = _attend_by_content(query, key, value, bias, blocks)
    return Mixed(values.flatten(2, 3)[:, :, :length], log_sum.flatten(2, 3)[:, :, :length])


def merge(*parts: Mixed) -> Float[Tensor, "b h q d"]:
    """One softmax over the disjoint keys of several parts; a bias's value term is linear in the weights and follows."""
    log_sums = torch.stack([part.log_sum for part in parts])
    nothing = log_sums.isneginf().all(dim=0)
    shares = log_sums.masked_fill(nothing, 0.0).softmax(dim=0).to(parts[0].values.dtype)
    mixed = torch.zeros_like(parts[0].values)
    for share, part in zip(shares, parts, strict=True):
        mixed = torch.addcmul(mixed, share[..., None], part.values)
    return mixed


def softmax(
    scores: Float[Tensor, "*shape k"], allowed: Bool[Tensor, "*#shape k"]
) -> tuple[Float[Tensor, "*shape k"], Float[Tensor, "*shape"]]:
    """Weights over the allowed keys and the log of their sum: zeros and -inf where there are none; no NaN anywhere."""
    some = allowed.any(dim=-1, keepdim=True)
    scores = scores.masked_fill(~allowed, float("-inf")).masked_fill(~some, 0.0)
    log_sum = scores.logsumexp(dim=-1, keepdim=True)
    weights = (scores - log_sum).exp().masked_fill(~some, 0.0)
    return weights, log_sum.masked_fill(~some, float("-inf")).squeeze(-1)


class _Group(NamedTuple):
    """A range of query blocks and what each of them reads."""

    blocks: slice
    reads: Tensor  # #h g w, all of them inside the sequence
    distances: Tensor  # #h g q (w k)
    allowed: Tensor  # #b #h g q (w k)

    def rows(self, blocks: Tensor) -> Tensor:
        """Where the key blocks are in b (h m) k d."""
        heads, count = blocks.shape[1:3]
        return (self.reads + count * torch.arange(heads, device=blocks.device)[:, None, None]).flatten()

    def gather(self, blocks: Tensor) -> Tensor:
        """The keys that each query block reads: b h m k d -> b h g (w k) d."""
        gathered = blocks.flatten(1, 2).index_select(1, self.rows(blocks))
        return gathered.view(len(blocks), blocks.shape[1], self.reads.shape[1], -1, blocks.shape[-1])

    def add_to(self, total: Tensor, gathered: Tensor) -> None:
        """The transpose of `gather`, into a total b h m k d."""
        total.flatten(1, 2).index_add_(1, self.rows(total), gathered.reshape(len(total), -1, *total.shape[3:]))


class _Blocks:
    """The geometry of a pattern over some tokens, without their content."""

    def __init__(self, tokens: Tokens, pattern: Pattern) -> None:
        self.pattern = pattern
        # Fillers are given the last position, so that no bias is asked for a distance that two tokens cannot have.
        last = tokens.span - 1
        self.query_positions = cut(tokens.query_positions.clamp(max=last), 0, pattern.query_block, value=last)
        self.key_positions = cut(tokens.key_positions.clamp(max=last), 0, pattern.key_block, value=last)
        real = tokens.real
        if real is None and len(tokens.key_positions) % pattern.key_block:
            real = torch.ones_like(tokens.key_positions, dtype=torch.bool)[None]
        self.real = None if real is None else cut(real, 1, pattern.key_block)

    def groups(self, batch_and_heads: int) -> Iterator[_Group]:
        """All query blocks, as many at a time as the scores have room for."""
        pattern, count = self.pattern, len(self.query_positions)
        scores = batch_and_heads * pattern.query_block * pattern.key_block * pattern.width
        step = max(1, SCORES_AT_A_TIME // scores)
        return (self.group(range(first, min(first + step, count))) for first in range(0, count, step))

    def group(self, blocks: range) -> _Group:
        """Some query blocks and what they read."""
        wanted = self.pattern.reads(blocks, self.key_positions.device)
        reads = wanted.clamp(0, len(self.key_positions) - 1)
        taken = slice(blocks.start, blocks.stop)
        query = self.query_positions[taken, :, None]
        key = self.key_positions[reads].flatten(-2)[..., None, :]  # #h g 1 (w k)
        readable = (reads == wanted).repeat_interleave(self.pattern.key_block, dim=-1)[None]
        if self.real is not None:
            readable = readable & self.real[:, reads].flatten(-2)
        allowed = self.pattern.allowed(query, key) & readable[..., None, :]
        return _Group(taken, reads, key - query, allowed)


class _Attend(torch.autograd.Function):
    """Attention by groups of query blocks, with a backward that rebuilds the weights."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, table: Tensor | None, blocks: _Blocks
    ) -> tuple[Tensor, Tensor]:
        mixed = query.new_empty(*query.shape[:-1], value.shape[-1])
        log_sum = query.new_empty(query.shape[:-1], dtype=torch.promote_types(query.dtype, torch.float32))
        with torch.autocast(query.device.type, enabled=False):
            for group in blocks.groups(query.shape[0] * query.shape[1]):
                scores = _scores(query, group.gather(key), table, group)
                log_sum[:, :, group.blocks] = scores.logsumexp(dim=-1)
                weights = _weights(scores, log_sum[:, :, group.blocks])
                mixed[:, :, group.blocks] = weights.to(value.dtype) @ group.gather(value)
        ctx.save_for_backward(query, key, value, table, mixed, log_sum)
        ctx.blocks = blocks
        return mixed, log_sum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mixed: Tensor, d_log_sum: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, table, mixed, log_sum = ctx.saved_tensors
        d_query, d_key, d_value = (
            torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
        )
        d_table = torch.zeros_like(table) if ctx.needs_input_grad[3] else None
        # With P the weights, dS = P (dP - sum(P dP) + d log_sum), and sum(P dP) = sum(dO O).
        shift = (d_mixed * mixed).sum(dim=-1, dtype=log_sum.dtype) - d_log_sum
        scale = query.shape[-1] ** -0.5
        for group in ctx.blocks.groups(query.shape[0] * query.shape[1]):
            keys, taken = group.gather(key), group.blocks
            weights = _weights(_scores(query, keys, table, group), log_sum[:, :, taken])
            d_out = d_mixed[:, :, taken]
            group.add_to(d_value, weights.to(value.dtype).mT @ d_out)
            d_weights = (d_out @ group.gather(value).mT).to(log_sum.dtype)
            d_scores = d_weights.sub_(shift[:, :, taken, :, None]).mul_(weights)
            if d_table is not None:
                d_table.scatter_add_(1, _places(group, table), d_scores.sum(dim=0).flatten(1).to(table.dtype))
            d_products = (d_scores * scale).to(query.dtype)
            d_query[:, :, taken] = d_products @ keys
            group.add_to(d_key, d_products.mT @ query[:, :, taken])
        return d_query, d_key, d_value, d_table, None


def _scores(query: Tensor, keys: Tensor, table: Tensor | None, group: _Group) -> Tensor:
    scores = torch.matmul(query[:, :, group.blocks] * query.shape[-1] ** -0.5, keys.mT)  # b h g q (w k)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if table is not None:
        scores += table.gather(1, _places(group, table)).view(len(table), *group.distances.shape[1:])
    return scores.masked_fill_(~group.allowed, float("-inf"))


def _weights(scores: Tensor, log_sum: Tensor) -> Tensor:
    finite = log_sum.masked_fill(log_sum.isneginf(), 0.0)  # of a query that may read nothing
    return scores.sub_(finite[..., None]).exp_()


def _places(group: _Group, table: Tensor) -> Tensor:
    return (group.distances + table.shape[1] // 2).flatten(1).expand(len(table), -1)  # h (g q w k)


def _attend_by_content(
    query: Tensor, key: Tensor, value: Tensor, bias: RelativeBias, blocks: _Blocks
) -> tuple[Tensor, Tensor]:
    group = blocks.group(range(query.shape[2]))
    distances = group.distances[None]
    scores = query @ group.gather(key).mT * query.shape[-1] ** -0.5 + bias_scores(bias, query, distances)
    weights, log_sum = softmax(scores.to(torch.promote_types(scores.dtype, torch.float32)), group.allowed)
    weights = weights.to(value.dtype)
    mixed = weights @ group.gather(value)
    term = bias_values(bias, weights, distances)
    return mixed if term is None else mixed + term, log_sum
