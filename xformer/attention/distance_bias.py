r"""Softmax attention with a bias of the distance alone, a block of queries at a time.

    out_i = sum_j P_ij v_j,     P = softmax(Q K^T / sqrt(d) + B),     B_ij = t[j - i]

The numbers t are all there is of B. With the queries of a block in reverse order, row i of B begins one place further
into t than the row before it: a view of t with strides (1, 1), which the product Q K^T is added to. Causality is minus
infinity in t, and blocks do not read what lies behind their last query. The backward pass computes P again and, with G
for the gradient of the result,

    dV = P^T G,    dS = P * (G V^T - rowsum(G * out)),    dQ = dS K / sqrt(d),    dK = dS^T Q / sqrt(d)

and the gradient of t is the sum of every diagonal of dS, which lies as a column in a view of a buffer whose rows are
one number longer than the view's. Time O(q k d); memory O((q + k) d) and a constant number of rows of P.

These are operators of their own, so that compilers, and counters of operations, take them as one.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from xformer.attention.backend import fused
from xformer.core.bias import TableBias, all_distances
from xformer.core.mask import Mask

ROWS = 128
"""Queries of a block."""
SCORES = 1 << 19
"""Scores of a block, where sequences are so short that one has room for several of the batch."""


def mix_by_distance(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k d"],
    *,
    mask: Mask,
    bias: TableBias,
) -> Float[Tensor, "b h q d"]:
    """The result as above; zeros for a query with nothing to read. For a processor, not for a GPU.

    A bias that is not trained and hides nothing is torch's fused kernel's, which takes the view of t as it is.

    Raises:
        ValueError: the positions do not count up by one.
    """
    distances, keys = all_distances(mask), key.shape[2]
    table = bias.table(distances).to(_precise(query)).contiguous()
    if mask.key_padding is None and not mask.causal and not table.requires_grad:
        return fused(query.flip(-2), key, value, table.unfold(-1, keys, 1)[None]).flip(-2)
    first_reads, real = keys, mask.key_padding
    if mask.causal:
        table = table.masked_fill(distances > 0, float("-inf"))
        assert mask.starts is not None
        first_reads = 1 + mask.starts[0] - mask.starts[1]
        if first_reads < 1 and real is None:
            real = torch.ones(len(key), keys, dtype=torch.bool, device=key.device)
    mixed: Tensor = _attend(query, key, value, table, real, first_reads)
    return mixed


class _Block(NamedTuple):
    """Some queries of one head, of some sequences of the batch, and the keys before the last of them."""

    batch: slice
    head: int
    rows: slice
    keys: int
    start: int
    """Of the last query's bias in the table."""

    @property
    def queries(self) -> tuple[slice, int, slice]:
        return self.batch, self.head, self.rows

    @property
    def read(self) -> tuple[slice, int, slice]:
        return self.batch, self.head, slice(self.keys)


def _blocks(query: Tensor, key: Tensor, first_reads: int) -> Iterator[_Block]:
    """All blocks: of a head and its sequences one after the other, with ever more keys."""
    (batch, heads, queries, _), keys = query.shape, key.shape[2]
    together = _together(query, key)
    for head in range(heads):
        for first in range(0, batch, together):
            for begin in range(0, queries, ROWS):
                end = min(begin + ROWS, queries)
                read = min(max(first_reads + end - 1, 1), keys)
                yield _Block(slice(first, first + together), head, slice(begin, end), read, queries - end)


def _together(query: Tensor, key: Tensor) -> int:
    return min(len(query), max(1, SCORES // (min(ROWS, query.shape[2]) * key.shape[2])))


def _precise(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _room(query: Tensor, key: Tensor, more: int = 0) -> Tensor:
    """Zeros for the scores of the largest block, with more columns if need be."""
    rows = min(ROWS, query.shape[2])
    return query.new_zeros(_together(query, key), rows, key.shape[2] + more, dtype=_precise(query))


class _Weights:
    """Computes P of one block after the other, in the same memory.

    Args:
        query: of all heads.
        key: likewise.
        table: likewise.
        real: True at keys that may be read.
        room: from `_room`.
    """

    def __init__(self, query: Tensor, key: Tensor, table: Tensor, real: Tensor | None) -> None:
        self.query, self.key, self.table, self.real = query, key, table, real
        self.room = _room(query, key)

    def __call__(self, block: _Block) -> tuple[Tensor, Tensor, Tensor]:
        """P (batch rows keys), and the queries and keys that it is of; rows in reverse order."""
        query, key = self.query[block.queries].flip(-2).to(self.room.dtype), self.key[block.read].to(self.room.dtype)
        shape = (len(query), query.shape[1], block.keys)
        scores = _first(self.room, shape)
        bias = self.table[block.head, block.start :].as_strided(shape, (0, 1, 1))
        torch.baddbmm(bias, query, key.mT, alpha=query.shape[-1] ** -0.5, out=scores)
        if self.real is None:
            return torch.softmax(scores, -1, out=scores), query, key
        scores.masked_fill_(~self.real[block.batch, None, : block.keys], float("-inf"))
        empty = scores.amax(-1, keepdim=True) == float("-inf")
        return torch.softmax(scores, -1, out=scores).masked_fill_(empty, 0.0), query, key


def _first(room: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """As much of the room as the shape takes."""
    return room.view(-1)[: math.prod(shape)].view(shape)


@torch.library.custom_op("xformer::attend_by_distance", mutates_args=())
def _attend(query: Tensor, key: Tensor, value: Tensor, table: Tensor, real: Tensor | None, first_reads: int) -> Tensor:
    out, weights_of = torch.empty_like(query), _Weights(query, key, table, real)
    with torch.autocast(query.device.type, enabled=False):
        for block in _blocks(query, key, first_reads):
            weights, *_ = weights_of(block)
            out[block.queries] = (weights @ value[block.read].to(weights.dtype)).flip(-2).to(out.dtype)
    return out


@_attend.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, table: Tensor, real: Tensor | None, first_reads: int) -> Tensor:
    return torch.empty_like(query)


@torch.library.custom_op("xformer::attend_by_distance_backward", mutates_args=())
def _attend_backward(
    upstream: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor,
    real: Tensor | None,
    first_reads: int,
    out: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    weights_of = _Weights(query, key, table, real)
    scale, precise = query.shape[-1] ** -0.5, weights_of.room.dtype
    of_query, of_table = torch.empty_like(query), torch.zeros_like(table)
    of_key, of_value = torch.zeros_like(key, dtype=precise), torch.zeros_like(value, dtype=precise)
    room = _room(query, key, more=min(ROWS, query.shape[2]))
    with torch.autocast(query.device.type, enabled=False):
        for block in _blocks(query, key, first_reads):
            if block.rows.start == 0:
                room.zero_()  # what lies behind a block's keys adds nothing to its diagonals
            weights, asked, read = weights_of(block)
            given, mixed = (x[block.queries].flip(-2).to(precise) for x in (upstream, out))
            of_value[block.read].baddbmm_(weights.mT, given)
            scores = room[: len(asked), : asked.shape[1], : block.keys]
            torch.bmm(given, value[block.read].to(precise).mT, out=scores)
            scores.sub_((given * mixed).sum(-1, keepdim=True)).mul_(weights)
            of_query[block.queries] = ((scores @ read) * scale).flip(-2).to(query.dtype)
            of_key[block.read].baddbmm_(scores.mT, asked, alpha=scale)
            diagonals = _diagonals(scores)
            of_table[block.head, block.start : block.start + len(diagonals)] += diagonals
    return of_query, of_key.to(key.dtype), of_value.to(value.dtype), of_table


def _diagonals(scores: Tensor) -> Tensor:
    """The sums over all that is added to the same number of the table, given the front of a buffer of zeros."""
    batch, rows, keys = scores.shape
    over, down, _ = scores.stride()
    return scores.as_strided((batch, rows, keys + rows - 1), (over, down - 1, 1)).sum((0, 1))


@_attend_backward.register_fake
def _(
    upstream: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor,
    real: Tensor | None,
    first_reads: int,
    out: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), torch.empty_like(table)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.first_reads = inputs
    ctx.save_for_backward(*tensors, output)


def _gradients(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, out = ctx.saved_tensors
    return *_attend_backward(upstream, *tensors, ctx.first_reads, out), None, None


_attend.register_autograd(_gradients, setup_context=_save)
