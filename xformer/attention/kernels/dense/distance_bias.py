r"""Softmax attention with a bias of the distance alone, a block of queries at a time.

    out_i = sum_j P_ij v_j,     P = softmax(Q K^T / sqrt(d) + B),     B_ij = t[j - i]

Only t is stored, not B. With the queries of a block in reverse order, row i of B begins one place further into t than
the row before it: a view of t with strides (1, 1), to which the product Q K^T is added. For causality t is minus
infinity at later keys, and blocks skip keys after their last query. The backward pass recomputes P and, with G for the
gradient of the result,

    dV = P^T G,    dS = P * (G V^T - rowsum(G * out)),    dQ = dS K / sqrt(d),    dK = dS^T Q / sqrt(d)

and the gradient of t is the sum of every diagonal of dS, which lies as a column in a view of a buffer whose rows are
one number longer than the view's. Time O(q k d); memory O((q + k) d) and a constant number of rows of P.

On a CPU with n = 4096, forward and backward (`xformer benchmark pairs`), it has 2.5 times the speed and 0.022 of the
memory of torch's fused kernel with T5's trained bias materialised for every pair.

They are custom operators, so that compilers and counters of operations treat each as one operation.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from xformer.core.bias import TableBias, all_distances
from xformer.core.mask import Mask
from xformer.core.sdpa import fused_attention

BLOCK = 128
"""Queries of a block."""
SCORES = 1 << 19
"""The maximum number of scores of a block, which holds several short sequences of the batch."""


def distance_biased_attention(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k d"],
    *,
    mask: Mask,
    bias: TableBias,
) -> Float[Tensor, "b h q d"]:
    """Softmax attention with a distance bias on a CPU; zeros for a query without allowed keys.

    A bias that is not trained and masks nothing is passed to torch's fused kernel, as the view of t.

    Raises:
        ValueError: the positions are not consecutive.
    """
    distances, keys = all_distances(mask), key.shape[2]
    table = bias.table(distances).to(_precise(query)).contiguous()
    if mask.key_padding is None and not mask.causal and not table.requires_grad:
        return fused_attention(query.flip(-2), key, value, table.unfold(-1, keys, 1)[None]).flip(-2)
    visible, valid = keys, mask.key_padding
    if mask.causal:
        table = table.masked_fill(distances > 0, float("-inf"))
        assert mask.starts is not None
        visible = 1 + mask.starts[0] - mask.starts[1]
        if visible < 1 and valid is None:
            valid = torch.ones(len(key), keys, dtype=torch.bool, device=key.device)
    mixed: Tensor = _attend(query, key, value, table, valid, visible)
    return mixed


class _Block(NamedTuple):
    """A block of queries of one head and some sequences of the batch, and the keys that it reads."""

    batch: slice
    head: int
    rows: slice
    keys: int
    start: int
    """The start of the last query's bias in the table."""

    @property
    def of_queries(self) -> tuple[slice, int, slice]:
        return self.batch, self.head, self.rows

    @property
    def of_keys(self) -> tuple[slice, int, slice]:
        return self.batch, self.head, slice(self.keys)


def _blocks(query: Tensor, key: Tensor, visible: int) -> Iterator[_Block]:
    """All blocks, ordered by head, sequences and number of keys."""
    (batch, heads, queries, _), keys = query.shape, key.shape[2]
    sequences = _sequences(query, key)
    for head in range(heads):
        for first in range(0, batch, sequences):
            for begin in range(0, queries, BLOCK):
                end = min(begin + BLOCK, queries)
                last = min(max(visible + end - 1, 1), keys)
                yield _Block(slice(first, first + sequences), head, slice(begin, end), last, queries - end)


def _sequences(query: Tensor, key: Tensor) -> int:
    """The number of sequences in one block."""
    return min(len(query), max(1, SCORES // (min(BLOCK, query.shape[2]) * key.shape[2])))


def _precise(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _buffer(query: Tensor, key: Tensor, more: int = 0) -> Tensor:
    """Zeros for the scores of the largest block, with more columns if need be."""
    rows = min(BLOCK, query.shape[2])
    return query.new_zeros(_sequences(query, key), rows, key.shape[2] + more, dtype=_precise(query))


class _Weights:
    """Computes the weights P of one block after the other, in the same memory.

    Args:
        query: the queries of all heads.
        key: likewise.
        table: likewise.
        valid: False at padded keys.
    """

    def __init__(self, query: Tensor, key: Tensor, table: Tensor, valid: Tensor | None) -> None:
        self.query, self.key, self.table, self.valid = query, key, table, valid
        self.buffer = _buffer(query, key)

    def __call__(self, block: _Block) -> tuple[Tensor, Tensor, Tensor]:
        """P (batch rows keys), and the queries and keys that it is of; rows in reverse order."""
        dtype = self.buffer.dtype
        query, key = self.query[block.of_queries].flip(-2).to(dtype), self.key[block.of_keys].to(dtype)
        shape = (len(query), query.shape[1], block.keys)
        scores = self.buffer.view(-1)[: math.prod(shape)].view(shape)
        bias = self.table[block.head, block.start :].as_strided(shape, (0, 1, 1))
        torch.baddbmm(bias, query, key.mT, alpha=query.shape[-1] ** -0.5, out=scores)
        if self.valid is None:
            return torch.softmax(scores, -1, out=scores), query, key
        scores.masked_fill_(~self.valid[block.batch, None, : block.keys], float("-inf"))
        empty = scores.amax(-1, keepdim=True) == float("-inf")
        return torch.softmax(scores, -1, out=scores).masked_fill_(empty, 0.0), query, key


@torch.library.custom_op("xformer::attend_by_distance", mutates_args=())
def _attend(query: Tensor, key: Tensor, value: Tensor, table: Tensor, valid: Tensor | None, visible: int) -> Tensor:
    """Forward: `visible` keys are there for the first query, and one more for each that follows."""
    out, weights_of = torch.empty_like(query), _Weights(query, key, table, valid)
    with torch.autocast(query.device.type, enabled=False):
        for block in _blocks(query, key, visible):
            weights, *_ = weights_of(block)
            out[block.of_queries] = (weights @ value[block.of_keys].to(weights.dtype)).flip(-2).to(out.dtype)
    return out


@torch.library.custom_op("xformer::attend_by_distance_backward", mutates_args=())
def _attend_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor,
    valid: Tensor | None,
    visible: int,
    out: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    weights_of = _Weights(query, key, table, valid)
    scale, precise = query.shape[-1] ** -0.5, weights_of.buffer.dtype
    grad_query, grad_table = torch.empty_like(query), torch.zeros_like(table)
    grad_key, grad_value = torch.zeros_like(key, dtype=precise), torch.zeros_like(value, dtype=precise)
    buffer = _buffer(query, key, more=min(BLOCK, query.shape[2]))
    with torch.autocast(query.device.type, enabled=False):
        for block in _blocks(query, key, visible):
            if block.rows.start == 0:
                buffer.zero_()  # what lies behind a block's keys adds nothing to its diagonals
            weights, q, k = weights_of(block)
            g, o = (x[block.of_queries].flip(-2).to(precise) for x in (grad, out))
            grad_value[block.of_keys].baddbmm_(weights.mT, g)
            scores = buffer[: len(q), : q.shape[1], : block.keys]
            torch.bmm(g, value[block.of_keys].to(precise).mT, out=scores)
            scores.sub_((g * o).sum(-1, keepdim=True)).mul_(weights)
            grad_query[block.of_queries] = ((scores @ k) * scale).flip(-2).to(query.dtype)
            grad_key[block.of_keys].baddbmm_(scores.mT, q, alpha=scale)
            diagonals = _diagonals(scores)
            grad_table[block.head, block.start : block.start + len(diagonals)] += diagonals
    return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), grad_table


def _diagonals(scores: Tensor) -> Tensor:
    """The gradient of the bias table: sums along the diagonals of a block, from the front of a buffer of zeros."""
    batch, rows, keys = scores.shape
    over, down, _ = scores.stride()
    return scores.as_strided((batch, rows, keys + rows - 1), (over, down - 1, 1)).sum((0, 1))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.visible = inputs
    ctx.save_for_backward(*tensors, output)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, out = ctx.saved_tensors
    return *_attend_backward(grad, *tensors, ctx.visible, out), None, None


_attend.register_autograd(_gradients, setup_context=_save)
_attend.register_fake(lambda query, *rest: torch.empty_like(query))
_attend_backward.register_fake(lambda grad, *rest: tuple(torch.empty_like(x) for x in rest[:4]))
