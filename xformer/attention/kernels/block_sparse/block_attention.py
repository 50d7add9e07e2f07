"""Block-sparse softmax attention: a block of queries attends to the key blocks of a layout, where a mask_mod allows.

    softmax(Q K^T / sqrt(d) + B) V over {j : mask_mod(head, i, j)}

A layout lists a superset of the pairs, block by block, none of them twice; the mask_mod decides which of them are
allowed. The keys of a window are consecutive, so they are a view of the sequence (`WindowLayout`); the blocks of any
other pattern are gathered (`BlockLayout`). `merge` joins layouts over disjoint pairs into one softmax.

A few blocks of a few heads are computed at a time, so only their scores are in memory. Forward stores the mixed values
and the lse, the logarithm of the sum of exponentiated scores; backward reads the keys again and recomputes the weights
from it (Dao et al. 2022, "FlashAttention", section 3.1). If a query reads so few keys that its weights are no larger
than a few vectors of features, the weights are stored instead.

Time is proportional to the listed pairs, memory O(n d). A bias that depends on the query, or adds to the values, uses
autograd instead, with memory for the scores of all listed pairs.

Shapes: b batch, h heads, q queries, k keys, d features of one head; m query blocks, g those of a group, q queries of a
block, s keys that it reads, w key blocks; a step's scores are t q s, with t = b h m of the step.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from math import e, log2
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from xformer.core.bias import RelativeBias, TableBias

MaskMod = Callable[[Tensor, Tensor, Tensor], Tensor]
"""mask_mod(head, query position, key position) -> whether the pair is allowed, for tensors that broadcast.

flex_attention's term, without the batch. A lambda, as whatever checks the types of functions while they run would be
compiled into the GPU's kernel; equal patterns are the same object, by a cache.
"""

SCORES_AT_A_TIME = 1 << 19
"""Small enough for the CPU's cache, large enough for efficient matrix products."""
KEPT_PER_FEATURE = 4
"""Weights are stored for backward if a query has at most this many times as many as features."""
LARGEST_BLOCK = 64
"""Larger blocks waste more time on masked pairs than their larger matrix products save."""
SMALLEST_BLOCK = 16
MULTIPLE = 16
"""Matrix products are fastest if rows are a multiple of a vector register."""
LOG2_E = log2(e)
"""Weights are powers of two: torch has a vector instruction's exp2, while its exp slows down tenfold near underflow."""


full_mask_mod: MaskMod = lambda head, query, key: key >= 0  # noqa: E731
causal_mask_mod: MaskMod = lambda head, query, key: key <= query  # noqa: E731


@lru_cache(maxsize=256)
def with_causality(mask_mod: MaskMod, *, causal: bool) -> MaskMod:
    """A mask_mod that, if causal, also excludes keys after the query."""
    return (lambda head, query, key: mask_mod(head, query, key) & (key <= query)) if causal else mask_mod


def mask_mod_difference(mask_mod: MaskMod, other: MaskMod) -> MaskMod:
    """A mask_mod of the pairs that one mask_mod allows and another does not."""
    return lambda head, query, key: mask_mod(head, query, key) & ~other(head, query, key)


@dataclass(frozen=True)
class AttentionInput:
    """Queries and keys in any order, with their positions.

    Attributes:
        query: the queries.
        key: the keys.
        value: the values.
        query_positions: the position of every query.
        key_positions: the position of every key.
        valid: True at keys that exist; None if all exist.
        span: a bound above all relevant positions; fillers may lie beyond.
    """

    query: Float[Tensor, "b h q d"]
    key: Float[Tensor, "b h k d"]
    value: Float[Tensor, "b h k d"]
    query_positions: Int[Tensor, " q"]
    key_positions: Int[Tensor, " k"]
    valid: Bool[Tensor, "#b k"] | None
    span: int


class AttentionOutput(NamedTuple):
    """The mixed values, and the log-sum-exp (lse) of the scores."""

    values: Tensor  # b h q d
    lse: Tensor  # b h q


def split_into_blocks(x: Tensor, dim: int, size: int, value: int = 0) -> Tensor:
    """Split one dimension into blocks of `size`, padding the last one."""
    if x.shape[dim] % size:  # else `pad` would copy
        x = pad(x, (0, 0) * (x.dim() - 1 - dim) + (0, -x.shape[dim] % size), value=value)
    return x.reshape(*x.shape[:dim], x.shape[dim] // size, size, *x.shape[dim + 1 :])


def even_block_size(length: int, most: int) -> int:
    """The block size that covers `length` with the fewest equal blocks of at most `most`."""
    return -(-length // -(-length // most))


@dataclass(frozen=True, eq=False)
class QueryBlocks:
    """A range of query blocks and what each of them reads.

    Attributes:
        blocks: the query blocks.
        reads: the key blocks of each, all inside the sequence; None for a window.
        query_positions: the positions for distances; of one block if all blocks have the same distances.
        key_positions: likewise.
        allowed: the allowed pairs.
    """

    blocks: slice
    reads: Int[Tensor, "#h g w"] | None
    query_positions: Int[Tensor, "#g q 1"]
    key_positions: Int[Tensor, "#h #g 1 s"]
    allowed: Bool[Tensor, "#b #h #g #q s"]

    @property
    def distances(self) -> Int[Tensor, "#h #g q s"]:
        """Key position - query position, computed on access, as there are many."""
        return self.key_positions - self.query_positions


class Layout(ABC):
    """The base class of layouts: which keys each block of queries reads, independent of the tokens' content.

    Args:
        tokens: queries and keys.
        mask_mod: the allowed pairs among those listed.
        query_block: the number of queries that share their keys.
    """

    def __init__(self, tokens: AttentionInput, mask_mod: MaskMod, query_block: int) -> None:
        self.mask_mod, self.query_block = mask_mod, query_block
        self.blocks = -(-tokens.query.shape[2] // query_block)
        self.length, self.last = tokens.key.shape[2], tokens.span - 1  # the largest distance of two tokens

    @property
    @abstractmethod
    def width(self) -> int:
        """The largest number of keys that a query block reads."""

    @abstractmethod
    def ranges(self, room: int) -> Iterator[range]:
        """Ranges of query blocks whose scores fit in memory for one head; in a range, all read equally many keys."""

    @abstractmethod
    def group(self, blocks: range) -> QueryBlocks:
        """The query blocks of a range."""

    def arrange(self, x: Float[Tensor, "b h n d"]) -> Tensor:
        """Prepare keys or values for `read`; by default, return them unchanged."""
        return x

    @abstractmethod
    def read(self, arranged: Tensor, group: QueryBlocks, heads: slice) -> Float[Tensor, "b h g s d"]:
        """Read the keys or values of a group's query blocks."""

    @abstractmethod
    def add(self, total: Tensor, group: QueryBlocks, heads: slice, read: Float[Tensor, "b h g s d"]) -> None:
        """Add gradients to keys or values: the transpose of `read`."""

    def restore(self, total: Tensor) -> Float[Tensor, "b h n d"]:
        """The transpose of `arrange`."""
        return total


class BlockLayout(Layout):
    """A layout in which each query block reads whole blocks of keys, gathered by copying.

    Args:
        tokens: queries and keys.
        mask_mod: the allowed pairs in these blocks.
        query_block: the number of queries that share their key blocks.
        key_block: the number of keys in a block.
        width: the maximum number of key blocks that a query block reads.
        reads: (query blocks, device) -> their key blocks (#heads blocks width), each once; a number outside the
            sequence is none.
        whole: the number of query blocks at the beginning that read all key blocks.
    """

    def __init__(
        self,
        tokens: AttentionInput,
        mask_mod: MaskMod,
        *,
        query_block: int,
        key_block: int,
        width: int,
        reads: Callable[[range, torch.device], Int[Tensor, "#h blocks width"]],
        whole: int = 0,
    ) -> None:
        super().__init__(tokens, mask_mod, query_block)
        self.key_block, self.reads, self.whole = key_block, reads, whole
        # Fillers are given the last position, so that no bias is asked for a distance that two tokens cannot have.
        last, valid = self.last, tokens.valid
        self.heads = torch.arange(tokens.query.shape[1], device=tokens.key.device)[:, None, None, None]
        self.query_positions = split_into_blocks(tokens.query_positions.clamp(max=last), 0, query_block, value=last)
        self.key_positions = split_into_blocks(tokens.key_positions.clamp(max=last), 0, key_block, value=last)
        if valid is None and len(tokens.key_positions) % key_block:
            valid = torch.ones_like(tokens.key_positions, dtype=torch.bool)[None]
        self.valid = None if valid is None else split_into_blocks(valid, 1, key_block)
        self.most, self.count = width, len(self.key_positions)

    @property
    def width(self) -> int:
        """The largest number of keys that a query block reads: all keys, if a query block is global."""
        return (self.count if self.whole else self.most) * self.key_block

    def ranges(self, room: int) -> Iterator[range]:
        """Ranges of query blocks: those that read all key blocks first, as fewer of them fit in memory."""
        whole, pair = min(self.whole, self.blocks), self.query_block * self.key_block
        return chain(
            _pieces(range(whole), room // (pair * self.count)),
            _pieces(range(whole, self.blocks), room // (pair * self.most)),
        )

    def group(self, blocks: range) -> QueryBlocks:
        """The query blocks of a range, with the mask_mod evaluated at their positions."""
        device = self.key_positions.device
        if blocks.start < self.whole:
            wanted = torch.arange(self.count, device=device).expand(1, len(blocks), -1)
        else:
            wanted = self.reads(blocks, device)
        reads = wanted.clamp(0, self.count - 1)
        of_blocks = slice(blocks.start, blocks.stop)
        query = self.query_positions[of_blocks, :, None]
        key = self.key_positions[reads].flatten(-2)[..., None, :]  # #h g 1 s
        readable = (reads == wanted).repeat_interleave(self.key_block, dim=-1)[None]
        if self.valid is not None:
            readable = readable & self.valid[:, reads].flatten(-2)
        allowed = self.mask_mod(self.heads, query, key) & readable[..., None, :]
        return QueryBlocks(of_blocks, reads, query, key, allowed)

    def arrange(self, x: Tensor) -> Tensor:
        """Split into contiguous blocks once, as `index_select` would otherwise do on each call."""
        return split_into_blocks(x, 2, self.key_block).contiguous()

    def read(self, arranged: Tensor, group: QueryBlocks, heads: slice) -> Tensor:
        """Read by copying."""
        reads = self._reads(group, heads)
        count = arranged.shape[1]
        rows = reads + arranged.shape[2] * torch.arange(count, device=arranged.device)[:, None, None]
        gathered = arranged.flatten(1, 2).index_select(1, rows.flatten())
        return gathered.view(len(arranged), count, reads.shape[1], -1, arranged.shape[-1])

    def add(self, total: Tensor, group: QueryBlocks, heads: slice, read: Tensor) -> None:
        """Add gradients head by head, as several query blocks may read one key block."""
        reads = self._reads(group, heads).flatten(1).expand(total.shape[1], -1)
        for part, blocks, source in zip(total.unbind(1), reads, read.unbind(1), strict=True):
            part.index_add_(1, blocks, source.reshape(len(total), -1, *total.shape[3:]))

    def restore(self, total: Tensor) -> Tensor:
        """Remove the padding of the last block."""
        return total.flatten(2, 3)[:, :, : self.length]

    def _reads(self, group: QueryBlocks, heads: slice) -> Tensor:
        assert group.reads is not None
        return group.reads if len(group.reads) == 1 else group.reads[heads]


class WindowLayout(Layout):
    """A layout of sliding windows: `back` keys before each query to `ahead` after it, as overlapping views.

    As `BlockLayout`, they take 1.13 times as long (n 4096, 8 heads of 64, a window of 64, forward and
    backward, one thread).

    Args:
        tokens: queries and keys at positions 0, 1, 2, ...
        mask_mod: the allowed pairs, a function of the distance of their positions, the same for all heads.
        back: the largest allowed distance behind a query.
        ahead: the largest allowed distance ahead of it.
    """

    def __init__(self, tokens: AttentionInput, mask_mod: MaskMod, back: int, ahead: int) -> None:
        super().__init__(tokens, mask_mod, even_block_size(tokens.span, max(SMALLEST_BLOCK, min(LARGEST_BLOCK, back))))
        self.behind, self.beyond = (-(-min(side, self.last) // MULTIPLE) * MULTIPLE for side in (back, ahead))
        device, self.valid = tokens.key.device, tokens.valid
        query = torch.arange(self.query_block, device=device)[:, None]
        key = torch.arange(self.width, device=device) - self.behind
        self.allowed = mask_mod(torch.zeros_like(key), query, key)  # of every block, as all see the same distances
        self.positions = query[None], key[None, None, None]

    @property
    def width(self) -> int:
        """The number of keys in a window, with both sides rounded up."""
        return self.behind + self.query_block + self.beyond

    def ranges(self, room: int) -> Iterator[range]:
        """Ranges of query blocks: those at the ends, which need padding, and those between, which do not."""
        most = room // (self.query_block * self.width)
        inner = range(
            min(-(-self.behind // self.query_block), self.blocks),
            max(0, self.length - self.beyond) // self.query_block,
        )
        if len(inner) == 0:
            return _pieces(range(self.blocks), most)
        ranges = range(inner.start), inner, range(inner.stop, self.blocks)
        return chain.from_iterable(_pieces(part, most) for part in ranges)

    def group(self, blocks: range) -> QueryBlocks:
        """The query blocks of a range, which differ only in keys beyond the sequence."""
        of_blocks = slice(blocks.start, blocks.stop)
        allowed, (_, padding) = self.allowed, self._extent(of_blocks)
        if self.valid is not None or any(padding):
            valid = self.allowed.new_ones(1, self.length) if self.valid is None else self.valid
            allowed = self.allowed & self._windows(valid[:, None, :, None], of_blocks)[..., 0, :][..., None, :]
        allowed = allowed.expand(1, 1, 1, -1, -1) if allowed.dim() == 2 else allowed
        return QueryBlocks(of_blocks, None, *self.positions, allowed)

    def read(self, arranged: Tensor, group: QueryBlocks, heads: slice) -> Tensor:
        """Read as a view."""
        return self._windows(arranged, group.blocks).mT

    def add(self, total: Tensor, group: QueryBlocks, heads: slice, read: Tensor) -> None:
        """Add gradients by parts of the windows that do not overlap."""
        extent, (before, after) = self._extent(group.blocks)
        part = total[:, :, extent]
        padded = pad(torch.zeros_like(part), (0, 0, before, after)) if before or after else part
        for first in range(0, self.width, self.query_block):  # of such columns no two blocks have one in common
            columns = read[:, :, :, first : first + self.query_block]
            windows = padded[:, :, first:].unfold(2, columns.shape[3], self.query_block)
            windows[:, :, : columns.shape[2]].add_(columns.mT)
        if before or after:
            part += padded[:, :, before : before + part.shape[2]]

    def _extent(self, blocks: slice) -> tuple[slice, tuple[int, int]]:
        """The range of keys that these blocks read, and the padding needed before and after the sequence."""
        first = blocks.start * self.query_block - self.behind
        end = blocks.stop * self.query_block + self.beyond
        return slice(max(first, 0), min(end, self.length)), (max(-first, 0), max(end - self.length, 0))

    def _windows(self, x: Tensor, blocks: slice) -> Tensor:
        """The window of each query block: b h n d -> b h m d s."""
        extent, (before, after) = self._extent(blocks)
        part = x[:, :, extent]
        part = pad(part, (0, 0, before, after)) if before or after else part
        return part.unfold(2, self.width, self.query_block)


def _pieces(blocks: range, most: int) -> Iterator[range]:
    size = even_block_size(len(blocks), max(1, most)) if blocks else 1
    return (range(first, min(first + size, blocks.stop)) for first in range(blocks.start, blocks.stop, size))


def block_attention(tokens: AttentionInput, layout: Layout, bias: RelativeBias | None) -> AttentionOutput:
    """Block-sparse attention, softmax(Q K^T / sqrt(d) + B) V, over the allowed pairs; zeros and lse -inf without any.

    Args:
        tokens: in float32 or wider, because scores and sums have their type.
        layout: the layout of these tokens.
        bias: the relative bias.
    """
    query, key, value = tokens.query, tokens.key, tokens.value
    if bias is not None and not isinstance(bias, TableBias):
        return _attend_by_content(query, key, value, bias, layout)
    table = None
    if bias is not None:
        table = bias.table(torch.arange(1 - tokens.span, tokens.span, device=query.device)).to(query.dtype)
    keep = torch.is_grad_enabled() and layout.width <= KEPT_PER_FEATURE * query.shape[-1]
    return AttentionOutput(*_Attend.apply(query, key, value, table, layout, keep))  # type: ignore[no-untyped-call]


def merge(*parts: AttentionOutput) -> Float[Tensor, "b h q d"]:
    """Merge attention outputs over disjoint sets of keys into the output of one softmax over all of them."""
    lses = torch.stack([part.lse for part in parts])
    nothing = lses.isneginf().all(dim=0)
    shares = lses.masked_fill(nothing, 0.0).softmax(dim=0)
    mixed = torch.zeros_like(parts[0].values)
    for share, part in zip(shares, parts, strict=True):
        mixed = torch.addcmul(mixed, share[..., None], part.values)
    return mixed


class _Step(NamedTuple):
    """One step of the computation: some blocks of some heads and batch rows."""

    batch: slice
    heads: slice
    group: QueryBlocks

    def select(self, x: Tensor) -> Tensor:
        """Select the step's part of a tensor, with its blocks in one dimension: b h m ... -> t ..."""
        return x[self.batch, self.heads, self.group.blocks].flatten(0, 2)

    def put(self, total: Tensor, x: Tensor) -> None:
        """Write the step's part back: the inverse of `select`."""
        part = total[self.batch, self.heads, self.group.blocks]
        part.copy_(x.view(part.shape))

    def add(self, total: Tensor, x: Tensor, layout: Layout) -> None:
        """Add the gradients of what the step's blocks read, t s d."""
        part = total[self.batch, self.heads]
        layout.add(part, self.group, self.heads, x.view(*part.shape[:2], -1, *x.shape[1:]))


def _steps(query: Tensor, layout: Layout) -> Iterator[_Step]:
    """The steps that cover all blocks of all heads, each of which fits in memory."""
    (batch, heads), room = query.shape[:2], SCORES_AT_A_TIME
    for blocks in layout.ranges(room):
        group = layout.group(blocks)
        scores = len(blocks) * layout.query_block * group.allowed.shape[-1]  # of one head
        heads_step = min(max(1, room // scores), heads)
        batch_step = max(1, room // (scores * heads))
        for row in range(0, batch, batch_step):
            for head in range(0, heads, heads_step):
                yield _Step(slice(row, row + batch_step), slice(head, head + heads_step), group)


class _Scores:
    """Computes the scores of a step as exponents of two, for forward and backward."""

    def __init__(self, query: Tensor, table: Tensor | None, layout: Layout) -> None:
        self.query, self.table, self.layout = query, table, layout
        self.scale = query.shape[-1] ** -0.5
        self._group: QueryBlocks | None = None

    def read(self, arranged: Tensor, step: _Step) -> Tensor:
        """Read the keys or values of the step's blocks: t s d."""
        return self.layout.read(arranged[step.batch, step.heads], step.group, step.heads).flatten(0, 2)

    def __call__(self, step: _Step, keys: Tensor) -> Tensor:
        """Compute (Q K^T / sqrt(d) + B) log2(e), and -inf for masked pairs: t q s."""
        query, added = step.select(self.query), self._added(step)
        added = added.expand(*self._shape(step), *added.shape[3:]).flatten(0, 2)
        return torch.baddbmm(added, query, keys.mT, alpha=self.scale * LOG2_E)

    def add_to_table(self, d_table: Tensor, step: _Step, d_scores: Tensor) -> None:
        """Add gradients to the bias table: the transpose of the lookup."""
        index = self._index(step)
        summed = d_scores.view(*self._shape(step), *d_scores.shape[1:]).sum(dim=0)
        summed = summed.sum_to_size(len(summed), *index.shape[1:]).flatten(1)
        part = d_table[step.heads]
        part.scatter_add_(1, index.expand(len(part), -1, -1, -1).flatten(1), summed)

    def _added(self, step: _Step) -> Tensor:
        """The bias and mask, to which products are added: #b #h #m #q s."""
        if step.group is not self._group:  # heads and rows of a group share it
            zero = self.query.new_zeros(())
            self._group, self._mask = step.group, zero.where(step.group.allowed, float("-inf"))
        mask = self._mask if len(self._mask) == 1 else self._mask[step.batch]
        mask = mask if mask.shape[1] == 1 else mask[:, step.heads]
        if self.table is None:
            return mask
        table, index = self.table[step.heads], self._index(step)
        bias = table.gather(1, index.flatten(1).expand(len(table), -1)) * LOG2_E
        return mask + bias.view(len(table), *index.shape[1:])

    def _index(self, step: _Step) -> Tensor:
        """The table indices of the distances: #h #m q s."""
        assert self.table is not None
        last = self.table.shape[1] // 2  # Whatever is farther away than two tokens can be does not count.
        distances = step.group.distances.clamp(-last, last)
        return (distances if len(distances) == 1 else distances[step.heads]) + last

    def _shape(self, step: _Step) -> torch.Size:
        return self.query[step.batch, step.heads, step.group.blocks].shape[:3]


class _Attend(torch.autograd.Function):
    """Block-sparse attention step by step; the backward pass recomputes the weights."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, table: Tensor | None, layout: Layout, keep: bool
    ) -> tuple[Tensor, Tensor]:
        blocks, keys, values = (
            split_into_blocks(query, 2, layout.query_block),
            layout.arrange(key),
            layout.arrange(value),
        )
        mixed = torch.empty_like(blocks)
        scores_of = _Scores(blocks, table, layout)
        lse = blocks.new_empty(blocks.shape[:-1])
        share, kept = torch.empty_like(lse) if keep else None, []  # weights / sum, and weights, if stored
        for step in _steps(blocks, layout):
            scores = scores_of(step, scores_of.read(keys, step))
            # In a row without allowed pairs the maximum is -inf and the sum is 0.
            largest = scores.amax(dim=-1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).min)
            weights = scores.sub_(largest).exp2_()
            total = weights.sum(dim=-1, keepdim=True)
            step.put(lse, largest.add_(total.log2()).squeeze(-1))
            product = torch.bmm(weights, scores_of.read(values, step))
            step.put(mixed, product.div_(total.clamp_(min=1.0)))
            if share is not None:
                step.put(share, total.reciprocal_().squeeze(-1))
                kept.append(weights)
        mixed, lse = (x.flatten(2, 3)[:, :, : query.shape[2]] for x in (mixed, lse))
        lse.div_(LOG2_E)
        # If `arrange` made a copy, the original is not needed any more.
        ctx.save_for_backward(query, keys, values, table, mixed, lse, share, *kept)
        ctx.layout = layout
        return mixed, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mixed: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, values, table, mixed, lse, share, *kept = ctx.saved_tensors
        layout: Layout = ctx.layout
        length, block = query.shape[2], layout.query_block
        lse = split_into_blocks(lse.masked_fill(lse.isneginf(), 0.0) * LOG2_E, 2, block)[..., None]
        blocks, out, d_out, d_lse = (split_into_blocks(x, 2, block) for x in (query, mixed, d_mixed, d_lse[..., None]))
        d_query, d_keys, d_values = torch.empty_like(blocks), torch.zeros_like(keys), torch.zeros_like(values)
        d_table = torch.zeros_like(table) if ctx.needs_input_grad[3] else None
        scores_of = _Scores(blocks, table, layout)
        for number, step in enumerate(_steps(blocks, layout)):
            d_o, step_keys = step.select(d_out), scores_of.read(keys, step)
            # With P the weights, dS = P (dP - sum(P dP) + d lse), and sum(P dP) = sum(dO O).
            shift = (d_o * step.select(out)).sum(dim=-1, keepdim=True).sub_(step.select(d_lse))
            if share is not None:  # Kept weights are to be multiplied by it; dV and dS are linear in dO and the shift.
                step_share = step.select(share)[..., None]
                d_o, shift = d_o * step_share, shift.mul_(step_share)
            weights = kept[number] if kept else scores_of(step, step_keys).sub_(step.select(lse)).exp2_()
            step.add(d_values, torch.bmm(weights.mT, d_o), layout)
            d_scores = torch.bmm(d_o, scores_of.read(values, step).mT).sub_(shift).mul_(weights)
            if d_table is not None:
                scores_of.add_to_table(d_table, step, d_scores)
            step.put(d_query, torch.bmm(d_scores, step_keys).mul_(scores_of.scale))
            step.add(d_keys, torch.bmm(d_scores.mT, step.select(blocks).mul(scores_of.scale)), layout)
        d_query = d_query.flatten(2, 3)[:, :, :length]
        return d_query, layout.restore(d_keys), layout.restore(d_values), d_table, None, None


def _attend_by_content(
    query: Tensor, key: Tensor, value: Tensor, bias: RelativeBias, layout: Layout
) -> AttentionOutput:
    """Attend with a bias that depends on the queries, using autograd."""
    length, query = query.shape[2], split_into_blocks(query, 2, layout.query_block)
    arranged = [layout.arrange(x) for x in (key, value)]
    parts = []
    for blocks in layout.ranges(query.numel() * key.shape[2]):
        group = layout.group(blocks)
        part, (keys, values) = query[:, :, group.blocks], (layout.read(x, group, slice(None)) for x in arranged)
        distances = group.distances[None].clamp(-layout.last, layout.last).expand(-1, -1, len(blocks), -1, -1)
        scores = part @ keys.mT * query.shape[-1] ** -0.5 + bias_scores(bias, part, distances)
        weights, lse = softmax(scores, group.allowed)
        mixed, term = weights @ values, bias_values(bias, weights, distances)
        parts.append((mixed if term is None else mixed + term, lse))
    return AttentionOutput(*(torch.cat(x, dim=2).flatten(2, 3)[:, :, :length] for x in zip(*parts, strict=True)))


def softmax(
    scores: Float[Tensor, "*shape k"], allowed: Bool[Tensor, "*#shape k"]
) -> tuple[Float[Tensor, "*shape k"], Float[Tensor, "*shape"]]:
    """Softmax weights over the allowed keys, and the lse; without allowed keys, zeros and -inf, never NaN."""
    some = allowed.any(dim=-1, keepdim=True)
    scores = scores.masked_fill(~allowed, float("-inf")).masked_fill(~some, 0.0)
    lse = scores.logsumexp(dim=-1, keepdim=True)
    weights = (scores - lse).exp().masked_fill(~some, 0.0)
    return weights, lse.masked_fill(~some, float("-inf")).squeeze(-1)


def bias_scores(
    bias: RelativeBias, query: Float[Tensor, "b h *block q d"], distances: Int[Tensor, "#b #h *block q k"]
) -> Float[Tensor, "#b h *block q k"]:
    """The bias of the scores; if each head has its own distances, it is evaluated once per head."""
    if distances.shape[1] == 1:
        return bias.scores(query, distances[:, 0])
    heads = range(query.shape[1])
    return torch.cat([bias.scores(query, distances[:, head])[:, head : head + 1] for head in heads], dim=1)


def bias_values(
    bias: RelativeBias, weights: Float[Tensor, "b h *block q k"], distances: Int[Tensor, "#b #h *block q k"]
) -> Float[Tensor, "b h *block q d"] | None:
    """The bias term of the mixed values; if each head has its own distances, evaluated once per head."""
    if not bias.adds_values:
        return None
    if distances.shape[1] == 1:
        return bias.values(weights, distances[:, 0])
    terms = [bias.values(weights, distances[:, head]) for head in range(weights.shape[1])]
    kept = [term[:, head : head + 1] for head, term in enumerate(terms) if term is not None]
    return torch.cat(kept, dim=1) if kept else None


def bias_on_heads(bias: RelativeBias, heads: slice, total: int) -> RelativeBias:
    """A bias restricted to some of the heads."""
    return _TableOnHeads(bias, heads) if isinstance(bias, TableBias) else _OnHeads(bias, heads, total)


class _TableOnHeads(TableBias):
    def __init__(self, bias: TableBias, heads: slice) -> None:
        self.bias, self.heads = bias, heads

    def table(self, distances: Int[Tensor, "*shape"]) -> Float[Tensor, "h *shape"]:
        return self.bias.table(distances)[self.heads]


class _OnHeads(RelativeBias):
    """A bias restricted to some heads: it is evaluated for all, with zeros for the heads left out."""

    def __init__(self, bias: RelativeBias, heads: slice, total: int) -> None:
        self.bias, self.heads, self.total = bias, heads, total

    @property
    def adds_values(self) -> bool:
        return self.bias.adds_values

    def scores(
        self, query: Float[Tensor, "b h *block q d"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "#b h *block q k"]:
        return self.bias.scores(self._among_all(query), distances)[:, self.heads]

    def values(
        self, weights: Float[Tensor, "b h *block q k"], distances: Int[Tensor, "#b *block q k"]
    ) -> Float[Tensor, "b h *block q d"] | None:
        term = self.bias.values(self._among_all(weights), distances)
        return None if term is None else term[:, self.heads]

    def _among_all(self, x: Tensor) -> Tensor:
        everyone = x.new_zeros(len(x), self.total, *x.shape[2:])
        everyone[:, self.heads] = x
        return everyone
