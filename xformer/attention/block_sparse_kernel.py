"""Attention of blocks of queries to the keys that a layout finds for each.

A few blocks of a few heads are taken at a time, so that their scores are the only ones there are. Forward keeps the
mixed values and the logarithm of the softmax's denominator; backward reads the keys again and rebuilds the weights from
it (Dao et al. 2022, "FlashAttention", section 3.1). Where a query reads so few keys that its weights take no more room
than a few vectors of features, they are kept instead.

Shapes: b batch, h heads, m query blocks, q queries of one, s keys that it reads, d features; a step's scores are t q s,
with t = b h m of the step.
"""

from collections.abc import Iterator
from math import e, log2
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from xformer.attention.block_sparse_layout import Group, Layout
from xformer.attention.pattern import cut


@torch.compiler.disable  # type: ignore[untyped-decorator]  # its loops over groups would be unrolled, for minutes
def attend_by_steps(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k d"],
    table: Float[Tensor, "h distances"] | None,
    layout: Layout,
    room: int,
) -> tuple[Float[Tensor, "b h q d"], Float[Tensor, "b h q"]]:
    """softmax(Q K^T / sqrt(d) + B) V over what the layout reads, and the logarithm of the softmax's denominator.

    Args:
        query: the scaled products' left side; in float32 at least, as all the others are.
        key: their right side.
        value: what is mixed.
        table: the bias at the distances 1 - span to span - 1.
        layout: which keys each block of queries reads.
        room: the most scores there are at a time, if one block has no more.
    """
    keep = torch.is_grad_enabled() and layout.reads_at_most <= KEPT_PER_FEATURE * query.shape[-1]
    mixed, log_sum = _Attend.apply(query, key, value, table, layout, room, keep)  # type: ignore[no-untyped-call]
    return mixed, log_sum


KEPT_PER_FEATURE = 4
"""Weights are kept for backward where a query has no more of them than so many times its features."""


LOG2_E = log2(e)
"""Weights are powers of two: torch has a vector instruction's exp2, while its exp slows down tenfold near underflow."""


class _Step(NamedTuple):
    """Some blocks of some heads of some rows of a batch."""

    batch: slice
    heads: slice
    group: Group

    def take(self, x: Tensor) -> Tensor:
        """What is of the step, its blocks in one dimension: b h m ... -> t ..."""
        return x[self.batch, self.heads, self.group.blocks].flatten(0, 2)

    def put(self, total: Tensor, x: Tensor) -> None:
        """The other way round."""
        part = total[self.batch, self.heads, self.group.blocks]
        part.copy_(x.view(part.shape))

    def add(self, total: Tensor, x: Tensor, layout: Layout) -> None:
        """What the step's blocks read, t s d, to where it was read."""
        part = total[self.batch, self.heads]
        layout.add(part, self.group, self.heads, x.view(*part.shape[:2], -1, *x.shape[1:]))


def _steps(query: Tensor, layout: Layout, room: int) -> Iterator[_Step]:
    """All blocks of all heads: only some of the blocks where one head's do not fit, else some of the heads."""
    batch, heads = query.shape[:2]
    for blocks in layout.ranges(room):
        group = layout.group(blocks)
        scores = len(blocks) * layout.query_block * group.allowed.shape[-1]  # of one head
        heads_step = min(max(1, room // scores), heads)
        batch_step = max(1, room // (scores * heads))
        for row in range(0, batch, batch_step):
            for head in range(0, heads, heads_step):
                yield _Step(slice(row, row + batch_step), slice(head, head + heads_step), group)


class _Scores:
    """What forward and backward share: the scores of a step as exponents of two, from its keys."""

    def __init__(self, query: Tensor, table: Tensor | None, layout: Layout) -> None:
        self.query, self.table, self.layout = query, table, layout
        self.scale = query.shape[-1] ** -0.5
        self._group: Group | None = None

    def read(self, laid: Tensor, step: _Step) -> Tensor:
        """The keys or values that the step's blocks read: t s d."""
        return self.layout.read(laid[step.batch, step.heads], step.group, step.heads).flatten(0, 2)

    def __call__(self, step: _Step, keys: Tensor) -> Tensor:
        """(Q K^T / sqrt(d) + B) log2(e), and -inf where a pair does not count: t q s."""
        query, added = step.take(self.query), self._added(step)
        added = added.expand(*self._shape(step), *added.shape[3:]).flatten(0, 2)
        return torch.baddbmm(added, query, keys.mT, alpha=self.scale * LOG2_E)

    def add_to_table(self, d_table: Tensor, step: _Step, d_scores: Tensor) -> None:
        """The transpose of looking the bias up."""
        places = self._places(step)
        summed = d_scores.view(*self._shape(step), *d_scores.shape[1:]).sum(dim=0)
        summed = summed.sum_to_size(len(summed), *places.shape[1:]).flatten(1)
        part = d_table[step.heads]
        part.scatter_add_(1, places.expand(len(part), -1, -1, -1).flatten(1), summed)

    def _added(self, step: _Step) -> Tensor:
        """What products are added to: #b #h #m #q s."""
        if step.group is not self._group:  # heads and rows of a group share it
            zero = self.query.new_zeros(())
            self._group, self._mask = step.group, zero.where(step.group.allowed, float("-inf"))
        mask = self._mask if len(self._mask) == 1 else self._mask[step.batch]
        mask = mask if mask.shape[1] == 1 else mask[:, step.heads]
        if self.table is None:
            return mask
        table, places = self.table[step.heads], self._places(step)
        bias = table.gather(1, places.flatten(1).expand(len(table), -1)) * LOG2_E
        return mask + bias.view(len(table), *places.shape[1:])

    def _places(self, step: _Step) -> Tensor:
        """Where the distances are in the table: #h #m q s."""
        assert self.table is not None
        last = self.table.shape[1] // 2  # Whatever is farther away than two tokens can be does not count.
        distances = step.group.distances.clamp(-last, last)
        return (distances if len(distances) == 1 else distances[step.heads]) + last

    def _shape(self, step: _Step) -> torch.Size:
        return self.query[step.batch, step.heads, step.group.blocks].shape[:3]


class _Attend(torch.autograd.Function):
    """Step by step, with a backward that rebuilds the weights."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, table: Tensor | None, layout: Layout, room: int, keep: bool
    ) -> tuple[Tensor, Tensor]:
        blocks, keys, values = cut(query, 2, layout.query_block), layout.lay(key), layout.lay(value)
        mixed = torch.empty_like(blocks)
        scores_of = _Scores(blocks, table, layout)
        log_sum = blocks.new_empty(blocks.shape[:-1])
        share, kept = torch.empty_like(log_sum) if keep else None, []  # weights / sum, and weights, where they are kept
        for step in _steps(blocks, layout, room):
            scores = scores_of(step, scores_of.read(keys, step))
            # Of a row where nothing counts, the maximum is -inf and the sum is 0.
            largest = scores.amax(dim=-1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).min)
            weights = scores.sub_(largest).exp2_()
            total = weights.sum(dim=-1, keepdim=True)
            step.put(log_sum, largest.add_(total.log2()).squeeze(-1))
            product = torch.bmm(weights, scores_of.read(values, step))
            step.put(mixed, product.div_(total.clamp_(min=1.0)))
            if share is not None:
                step.put(share, total.reciprocal_().squeeze(-1))
                kept.append(weights)
        mixed, log_sum = (x.flatten(2, 3)[:, :, : query.shape[2]] for x in (mixed, log_sum))
        log_sum.div_(LOG2_E)
        # Where `lay` copied, what it was given is not needed any more.
        ctx.save_for_backward(query, keys, values, table, mixed, log_sum, share, *kept)
        ctx.layout, ctx.room = layout, room
        return mixed, log_sum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mixed: Tensor, d_log_sum: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, values, table, mixed, log_sum, share, *kept = ctx.saved_tensors
        layout: Layout = ctx.layout
        length, block = query.shape[2], layout.query_block
        log_sum = cut(log_sum.masked_fill(log_sum.isneginf(), 0.0) * LOG2_E, 2, block)[..., None]
        blocks, out, d_out, d_log_sum = (cut(x, 2, block) for x in (query, mixed, d_mixed, d_log_sum[..., None]))
        d_query, d_keys, d_values = torch.empty_like(blocks), torch.zeros_like(keys), torch.zeros_like(values)
        d_table = torch.zeros_like(table) if ctx.needs_input_grad[3] else None
        scores_of = _Scores(blocks, table, layout)
        for number, step in enumerate(_steps(blocks, layout, ctx.room)):
            d_o, its_keys = step.take(d_out), scores_of.read(keys, step)
            # With P the weights, dS = P (dP - sum(P dP) + d log_sum), and sum(P dP) = sum(dO O).
            shift = (d_o * step.take(out)).sum(dim=-1, keepdim=True).sub_(step.take(d_log_sum))
            if share is not None:  # Kept weights are to be multiplied by it; dV and dS are linear in dO and the shift.
                its_share = step.take(share)[..., None]
                d_o, shift = d_o * its_share, shift.mul_(its_share)
            weights = kept[number] if kept else scores_of(step, its_keys).sub_(step.take(log_sum)).exp2_()
            step.add(d_values, torch.bmm(weights.mT, d_o), layout)
            d_scores = torch.bmm(d_o, scores_of.read(values, step).mT).sub_(shift).mul_(weights)
            if d_table is not None:
                scores_of.add_to_table(d_table, step, d_scores)
            step.put(d_query, torch.bmm(d_scores, its_keys).mul_(scores_of.scale))
            step.add(d_keys, torch.bmm(d_scores.mT, step.take(blocks).mul(scores_of.scale)), layout)
        d_query = d_query.flatten(2, 3)[:, :, :length]
        return d_query, layout.take_up(d_keys), layout.take_up(d_values), d_table, None, None, None
