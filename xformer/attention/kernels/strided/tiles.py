r"""Softmax attention over the neighbours of a query and a sample of every row of keys, by strided views alone.

Positions are written in rows. Some consecutive rows of queries are computed at a time, and cut in two ways:

    local      tiles of consecutive queries, each with the keys around it: a strided view of the keys
    sampled    tiles of one column's queries, each with the sampled keys of that column: a transposed copy

    S = [Q_local K_local^T | Q_sampled K_sampled^T] / sqrt(d) + B,    O = softmax(S) [V_local; V_sampled]

Each half lists a superset of its pairs, and a mask_mod decides which of them are allowed; the halves are disjoint. Each
half is one batched matrix product, and nothing is gathered. Both halves subtract the largest score of either before the
exponential, and their weighted sums are added before the division by the sum of weights:

    W = 2^(S log2(e) - m),    s = sum(W),    O = W [V_local; V_sampled] / s

Backward needs no sum over weights, as the sum of P dP is that of dO O (Dao et al. 2022, "FlashAttention", B.2). It
finds the weights of the first groups of heads, no more numbers than the inputs and the mixed values have, and makes
the others again from queries and keys (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").

Time O(n (w + f)) for w keys of a local tile and f sampled ones of a column; a causal pattern looks at half of these, as
it leaves out those of later rows. Memory O(n), and a constant number of scores. Gathered by blocks, the same pairs take
1.3 to 1.4 times as long for neighbours and columns, and 1.2 for own rows and the ends of others (n 4096, 8 heads of 64,
rows of 64, forward and backward, one thread).

Every query may attend to itself, so no row of scores is empty. A filler key has a low but finite score, so that a
filler query yields no NaN; its output is not used.

Shapes: g heads of a group, of any rows of the batch; n positions, c of some rows; t tiles, q queries and k keys of one;
d features.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from xformer.attention.kernels.block_sparse.block_attention import LOG2_E, AttentionInput, MaskMod
from xformer.core.bias import TableBias

SCORES_AT_A_TIME = 1 << 20
"""The number of scores computed at a time, small enough for the CPU's cache; 64 times as many on a GPU."""
ROWS_AT_A_TIME = 64
"""The number of rows computed at a time; more would compute more masked later keys."""
KEPT_PER_NUMBER = 4
"""The maximum number of weights stored for backward, in multiples of O: the memory of Q, K, V and O together."""
NO_TOKEN = -1e30
"""The score of a missing key, whose weight is exactly zero beside any existing key, and never NaN."""


class RowRange(NamedTuple):
    """A range of rows, from `first` up to but not including `last`."""

    first: int
    last: int


@dataclass(frozen=True)
class Strided:
    """The layout of strided attention: how tokens are cut into tiles of both halves, as views, and the transposes.

    Attributes:
        row: positions in a row.
        block: queries of a local tile; a multiple or a divisor of `row`.
        before: keys of a local tile before its queries.
        after: keys of a local tile after its queries.
        columns: sampled tiles; a divisor of `row` and of `samples`.
        samples: the number of last positions of every row that are sampled keys.
        local_mod: the allowed pairs of local tiles, the same for all heads and tiles, with the first query at 0.
        sampled_mod: the allowed pairs of sampled tiles, the same for all heads and columns, as in the first column.
        causal: whether no sampled key is in a later row.
    """

    row: int
    block: int
    before: int
    after: int
    columns: int
    samples: int
    local_mod: MaskMod
    sampled_mod: MaskMod
    causal: bool

    @property
    def rows(self) -> int:
        """The number of rows must be a multiple of this."""
        return max(1, self.block // self.row)

    @property
    def width(self) -> int:
        """The number of keys of a local tile."""
        return self.before + self.block + self.after

    @property
    def depth(self) -> int:
        """The number of sampled keys per row and column."""
        return self.samples // self.columns

    def local_positions(self, device: torch.device) -> tuple[Int[Tensor, " q"], Int[Tensor, " k"]]:
        """The positions of a local tile's queries and keys, relative to the first query."""
        keys = torch.arange(-self.before, self.block + self.after, device=device)
        return keys[self.before : self.before + self.block], keys

    def sampled_positions(
        self, positions: Int[Tensor, " n"], rows: RowRange
    ) -> tuple[Int[Tensor, " q"], Int[Tensor, " k"]]:
        """The positions of the first column's queries in some rows, and of the keys they read."""
        x = positions[None, :, None]
        query, key = self.column_queries(self.of(rows, x)), self.keys_up_to(rows, self.sample(x).flatten(2, 3))
        return query[0, 0, :, 0], key[0, 0, :, 0]

    def of(self, rows: RowRange, x: Shaped[Tensor, "g n d"]) -> Shaped[Tensor, "g c d"]:
        """Select some rows of tokens."""
        return x[:, rows.first * self.row : rows.last * self.row]

    def local_queries(self, x: Shaped[Tensor, "g c d"]) -> Shaped[Tensor, "g t q d"]:
        """The queries of all local tiles."""
        return x.view(len(x), -1, self.block, x.shape[2])

    def column_queries(self, x: Shaped[Tensor, "g c d"]) -> Shaped[Tensor, "g t q d"]:
        """The queries of all columns."""
        return x.view(len(x), -1, self.columns, x.shape[2]).transpose(1, 2)

    def local_keys(self, x: Shaped[Tensor, "g m d"], rows: RowRange) -> Shaped[Tensor, "g t k d"]:
        """The keys of the local tiles of some rows; x begins `before` positions early and ends `after` late."""
        return self._local_keys(x, rows, 0, self.width)

    def add_local_keys(self, total: Shaped[Tensor, "g m d"], rows: RowRange, x: Shaped[Tensor, "g t k d"]) -> None:
        """The transpose of `local_keys`; tiles overlap, their parts of the size of a block do not."""
        for first in range(0, self.width, self.block):
            part = x[:, :, first : first + self.block]
            self._local_keys(total, rows, first, part.shape[2]).add_(part)

    def sample(self, x: Shaped[Tensor, "g n d"]) -> Shaped[Tensor, "g t r k d"]:
        """The sampled keys of all columns, by row."""
        by_row = x.view(len(x), -1, self.row, x.shape[2])[:, :, self.row - self.samples :]
        return by_row.view(len(x), -1, self.depth, self.columns, x.shape[2]).permute(0, 3, 1, 2, 4)

    def keys_up_to(self, rows: RowRange, x: Shaped[Tensor, "g t k d"]) -> Shaped[Tensor, "g t k2 d"]:
        """The sampled keys that the queries of some rows look at."""
        return x[:, :, : self.depth * rows.last] if self.causal else x

    def _local_keys(self, x: Tensor, rows: RowRange, first: int, count: int) -> Tensor:
        tiles = (rows.last - rows.first) * self.row // self.block
        heads, position, feature = x.stride()
        offset = x.storage_offset() + (rows.first * self.row + first) * position
        shape = (len(x), tiles, count, x.shape[2])
        return x.as_strided(shape, (heads, self.block * position, position, feature), offset)


def strided_attention(tokens: AttentionInput, layout: Strided, bias: TableBias | None) -> Float[Tensor, "b h n d"]:
    """Strided attention, softmax(Q K^T / sqrt(d) + B) V, over the pairs allowed in either half of the layout.

    Args:
        tokens: in float32 or wider, because scores and sums have their type; at positions 0, 1, 2, ...
        layout: the listed pairs, and which of them are allowed.
        bias: the relative bias.
    """
    batch, heads, span, _ = tokens.query.shape
    query, key, value = tokens.query, tokens.key, tokens.value
    fill, valid = -span % (layout.row * layout.rows), tokens.valid
    if valid is None and fill and not layout.causal:
        valid = torch.ones(1, span, dtype=torch.bool, device=key.device)
    if valid is not None:
        valid = pad(valid, (0, fill))[:, None].expand(batch, heads, -1).flatten(0, 1)
    if fill:
        query, key, value = (pad(x, (0, 0, 0, fill)) for x in (query, key, value))
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    table = None if bias is None else bias.table(torch.arange(1 - span, span, device=query.device)).to(query.dtype)
    keep = torch.is_grad_enabled()
    mixed: Tensor = _Attend.apply(query, key, value, table, valid, layout, heads, keep)  # type: ignore[no-untyped-call]
    return mixed.view(batch, heads, -1, mixed.shape[-1])[:, :, :span]


class _Attend(torch.autograd.Function):
    """Strided attention with its backward: forward keeps some weights, backward recomputes the others."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        table: Tensor | None,
        valid: Tensor | None,
        layout: Strided,
        heads: int,
        keep: bool,
    ) -> Tensor:
        mixed = torch.empty_like(query, memory_format=torch.contiguous_format)
        scores = _Scores(layout, heads, query, table, valid)
        largest, total = (mixed.new_empty(*mixed.shape[:2], 1) for _ in range(2))
        room, kept = KEPT_PER_NUMBER * mixed.numel() if keep and any(ctx.needs_input_grad) else 0, list[Tensor]()
        for kernel, group in _kernels(layout, scores, query, backward=False):
            inputs, out = ([x[group] for x in part] for part in ((query, key, value), (mixed, largest, total)))
            room = kernel.mix(group, inputs, out, room, kept)
        ctx.save_for_backward(query, key, value, table, valid, mixed, largest, total, *kept)
        ctx.layout, ctx.heads = layout, heads
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mixed: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, table, valid, mixed, largest, total, *weights = ctx.saved_tensors
        gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)]
        scores = _Scores(ctx.layout, ctx.heads, query, table, valid)
        d_table = torch.zeros_like(table, memory_format=torch.contiguous_format) if ctx.needs_input_grad[3] else None
        kept = iter(weights)
        for kernel, group in _kernels(ctx.layout, scores, query, backward=True):
            inputs, out = ([x[group] for x in part] for part in ((query, key, value), (mixed, largest, total, d_mixed)))
            kernel.differentiate(group, inputs, out, [x[group] for x in gradients], kept, d_table)
        return *gradients, d_table, None, None, None, None


class _Scratch:
    """Named scratch memory: a request for a name overwrites what the name held, in any shape."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._memory: dict[tuple[str, torch.dtype], Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor with undefined content."""
        memory, size = self._memory.get((name, dtype)), prod(shape)
        if memory is None or memory.numel() < size:
            memory = self._memory[name, dtype] = torch.empty(size, device=self.device, dtype=dtype)
        return memory[:size].view(shape)


class _Tiles:
    """Tiles, and the matrices of them that a product takes: these are a view, or a copy for `refresh` to renew.

    Attributes:
        tiles: where they are, g t q k.
        matrices: one after another, (g t) q k.
        transposed: their transposes.
    """

    def __init__(self, tiles: Tensor, copy: Tensor | None = None) -> None:
        self.tiles, self._copy = tiles, copy
        self.matrices = (tiles if copy is None else copy).flatten(0, 1)
        self.transposed = self.matrices.mT

    def multiply(self, left: Tensor, right: Tensor) -> Tensor:
        """One matrix product per tile, g t q k, where `matrices` are."""
        torch.bmm(left, right, out=self.matrices)
        return self.matrices.view(self.tiles.shape)

    def refresh(self) -> None:
        """Copy the tiles again, if they are copied at all."""
        if self._copy is not None:
            self._copy.copy_(self.tiles)


class _Halves(NamedTuple):
    """A pair of values, one for each half."""

    local: _Tiles
    sampled: _Tiles


class _Queries:
    """Queries of a group of heads, or what they mix, as tiles of both halves; `like` is such a group, g n d."""

    def __init__(self, layout: Strided, like: Tensor) -> None:
        self.layout = layout
        self._local = like
        self._by_column = like.new_empty(layout.column_queries(like).shape)

    def put(self, x: Tensor) -> None:
        """Load a group of heads, g n d."""
        self._local = x
        self._by_column.copy_(self.layout.column_queries(x))

    def of(self, rows: RowRange) -> _Halves:
        """The tiles of some rows."""
        each = self.layout.row // self.layout.columns
        sampled = self._by_column[:, :, rows.first * each : rows.last * each]
        return _Halves(_Tiles(self.layout.local_queries(self.layout.of(rows, self._local))), _Tiles(sampled))


class _Keys:
    """Keys or values of a group of heads, or their gradients, as both halves read them; `like` is a group, g n d."""

    def __init__(self, layout: Strided, like: Tensor) -> None:
        self.layout = layout
        heads, length, features = like.shape
        self.local = like.new_zeros(heads, layout.before + length + layout.after, features)
        self.sampled = like.new_empty(layout.sample(like).shape)
        self._inner = self.local[:, layout.before : layout.before + length]
        self._sampled_is_clear = False

    def put(self, x: Tensor, scale: float = 1.0) -> None:
        """Load a group of heads, g n d."""
        torch.mul(x, scale, out=self._inner)
        self.sampled.copy_(self.layout.sample(self._inner))

    def read(self, rows: RowRange, scratch: _Scratch, name: str) -> _Halves:
        """The keys that some rows of queries read."""
        local = self.layout.local_keys(self.local, rows)
        copy = None if len(local) == 1 else scratch(name, local.shape, local.dtype)  # tiles overlap
        return _Halves(_Tiles(local, copy), _Tiles(self._read_sampled(rows)))

    def clear(self) -> None:
        """Set to zero."""
        self.local.zero_()
        self._sampled_is_clear = True

    def add_local(self, rows: RowRange, x: Tensor) -> None:
        """The transpose of reading."""
        self.layout.add_local_keys(self.local, rows, x)

    def add_sampled(self, rows: RowRange, x: Tensor) -> None:
        """The transpose of reading; the first rows after `clear` must read all that is read."""
        sampled = self._read_sampled(rows)
        sampled.copy_(x) if self._sampled_is_clear else sampled.add_(x)
        self._sampled_is_clear = False

    def get(self, out: Tensor) -> None:
        """The transpose of `put`."""
        if self.layout.samples < self.layout.row:
            out.copy_(self._inner)
        torch.add(self.layout.sample(self._inner), self.sampled, out=self.layout.sample(out))

    def _read_sampled(self, rows: RowRange) -> Tensor:
        return self.layout.keys_up_to(rows, self.sampled.flatten(2, 3))


class _Scores:
    """The bias and masks of scores, as exponents of two, for all heads of all rows of the batch.

    Args:
        layout: the layout with the allowed pairs.
        heads: of one row of the batch.
        query: the queries of all heads.
        table: the bias at all distances, by head.
        valid: True at keys that exist; None if all exist.
    """

    def __init__(
        self,
        layout: Strided,
        heads: int,
        query: Float[Tensor, "bh n d"],
        table: Float[Tensor, "h distances"] | None,
        valid: Bool[Tensor, "bh n"] | None,
    ) -> None:
        self.layout, self.heads, self.table, self.valid = layout, heads, table, valid
        self.device, self.dtype = query.device, query.dtype
        length, self._scale = query.shape[1], query.shape[2] ** -0.5 * LOG2_E
        self.rows = length // layout.row
        self.positions = torch.arange(length, device=self.device)
        missing = torch.zeros(1, length, device=self.device, dtype=self.dtype)
        if valid is not None:
            missing = missing.masked_fill(~valid, NO_TOKEN)
        self._missing = pad(missing, (layout.before, layout.after), value=NO_TOKEN)[..., None]
        self._local = self._bias(layout.local_positions(self.device), layout.local_mod)
        self._sampled: dict[RowRange, Tensor] = {}

    def portions(self, heads: int) -> tuple[int, list[RowRange]]:
        """The number of heads that are computed together, and the rows of queries of each step."""
        layout = self.layout
        room = SCORES_AT_A_TIME << (0 if self.device.type == "cpu" else 6)
        scores = layout.row * (layout.width + self.rows * layout.depth)  # of a row
        step = min(ROWS_AT_A_TIME, room // scores, self.rows)
        step = max(1, step // layout.rows) * layout.rows
        rows = [RowRange(first, min(first + step, self.rows)) for first in range(0, self.rows, step)]
        return min(heads, max(1, room // (step * scores))), rows

    def local(self, products: Float[Tensor, "g t q k"], group: slice, rows: RowRange, out: Tensor) -> None:
        """Compute scores from products, optionally in place."""
        layout = self.layout
        bias = self._local if self.table is None else self._local[self._heads_of(group)]
        torch.add(bias[:, None], products, alpha=self._scale, out=out)
        if self.valid is not None or (layout.before and rows.first == 0) or (layout.after and rows.last == self.rows):
            missing = self._missing if self.valid is None else self._missing[group]
            out += layout.local_keys(missing, rows).mT

    def sampled(self, products: Float[Tensor, "g t q k"], group: slice, rows: RowRange, out: Tensor) -> None:
        """Compute scores from products, optionally in place."""
        layout = self.layout
        torch.add(self._sampled_bias(group, rows)[:, None], products, alpha=self._scale, out=out)
        if self.valid is not None:
            missing = layout.sample(self._missing[group, layout.before : layout.before + len(self.positions)])
            out += layout.keys_up_to(rows, missing.flatten(2, 3)).mT

    def add_to_table(self, d_table: Tensor, d_scores: _Halves, group: slice, rows: RowRange) -> None:
        """The transpose of looking the bias up, from the gradients of products."""
        first = self._heads_of(group)[:, None, None] * d_table.shape[1]
        layout = self.layout
        halves = layout.local_positions(self.device), layout.sampled_positions(self.positions, rows)
        alpha = LOG2_E / self._scale  # they are those of scores, divided by the square root of d
        for (query, key), gradient in zip(halves, d_scores, strict=True):
            index = first + self._index(query, key)
            d_table.view(-1).index_add_(0, index.flatten(), gradient.tiles.sum(dim=1).flatten(), alpha=alpha)

    def _sampled_bias(self, group: slice, rows: RowRange) -> Tensor:
        positions = self.layout.sampled_positions(self.positions, rows)
        if self.table is not None:
            return self._bias(positions, self.layout.sampled_mod, self._heads_of(group))
        if rows not in self._sampled:
            if len(self._sampled) == 4:  # so that their number is constant
                self._sampled.clear()
            self._sampled[rows] = self._bias(positions, self.layout.sampled_mod)
        return self._sampled[rows]

    def _bias(self, positions: tuple[Tensor, Tensor], mask_mod: MaskMod, heads: Tensor | None = None) -> Tensor:
        query, key = positions
        bias = torch.zeros(1, 1, 1, device=self.device, dtype=self.dtype)
        if self.table is not None:
            table = self.table if heads is None else self.table[heads]
            bias = table[:, self._index(query, key)] * LOG2_E
        return bias.where(mask_mod(torch.zeros_like(key), query[:, None], key), float("-inf"))  # #h q k

    def _index(self, query: Tensor, key: Tensor) -> Tensor:
        """The table indices of the distances: q k."""
        assert self.table is not None
        middle = self.table.shape[1] // 2
        return (key - query[:, None] + middle).clamp(0, 2 * middle)  # only fillers are further apart

    def _heads_of(self, group: slice) -> Tensor:
        return torch.arange(group.start, group.stop, device=self.device) % self.heads


def _kernels(layout: Strided, scores: _Scores, query: Tensor, *, backward: bool) -> Iterator[tuple["_Kernel", slice]]:
    """Iterate over groups of heads with their kernel; the last group may be smaller."""
    heads, rows = scores.portions(len(query))
    kernel = None
    for first in range(0, len(query), heads):
        group = slice(first, min(first + heads, len(query)))
        if kernel is None or group.stop - first < heads:
            kernel = _Kernel(layout, scores, query[group], rows, backward)
        yield kernel, group


class _Kernel:
    """Computes attention for groups of heads, g n d, reusing its memory for every group."""

    def __init__(self, layout: Strided, scores: _Scores, like: Tensor, rows: list[RowRange], backward: bool) -> None:
        scratch = _Scratch(like.device)
        self.scores, self.queries = scores, _Queries(layout, like)
        self.keys, self.values = _Keys(layout, like), _Keys(layout, like)
        # The last rows look at all keys: what they need is large enough for others, and where they add is then filled.
        self.some_rows = [_RowTiles(layout, scores, some, scratch, self.keys, self.values) for some in rows[::-1]]
        if backward:
            self.d_mixed, self.d_share = _Queries(layout, like), torch.empty_like(like)
            self.d_keys, self.d_values = _Keys(layout, like), _Keys(layout, like)

    def mix(self, group: slice, inputs: list[Tensor], out: list[Tensor], room: int, kept: list[Tensor]) -> int:
        """O = W V / s, of Q, K, V into O, m, s; weights are kept while there is room, of which the rest is returned."""
        (query, key, value), (mixed, largest, total) = inputs, out
        self.queries.put(query)
        self.keys.put(key)
        self.values.put(value)
        for some in self.some_rows:
            room -= some.weights.numel()
            if room >= 0:
                kept.append(torch.empty_like(some.weights))
            weights = some.halves(kept[-1] if room >= 0 else some.weights)
            some.score(weights, group, self.queries.of(some.rows))
            some.reduce(torch.amax, torch.maximum, weights, out=largest)
            some.exponentiate(weights, largest)
            some.reduce(torch.sum, torch.add, weights, out=total)
            some.mix(weights, some.values, out=mixed)
        mixed.div_(total)
        return room

    def differentiate(
        self,
        group: slice,
        inputs: list[Tensor],
        out: list[Tensor],
        gradients: list[Tensor],
        kept: Iterator[Tensor],
        d_table: Tensor | None,
    ) -> None:
        """Gradients, with dR = dO / s: dV = W^T dR, dS = W (dR V^T - sum(dR O)) / sqrt(d), dQ = dS K, dK = dS^T Q.

        Of Q, K, V and O, m, s, dO into dQ, dK, dV.
        """
        (query, key, value), (mixed, largest, total, d_mixed), (d_query, d_key, d_value) = inputs, out, gradients
        scale = query.shape[-1] ** -0.5
        self.queries.put(query)
        self.keys.put(key)
        self.values.put(value, scale)  # which nothing but dS is made of
        self.d_keys.clear()
        self.d_values.clear()
        self.d_mixed.put(torch.div(d_mixed, total, out=self.d_share))
        shift = (self.d_share * mixed).sum(dim=-1, keepdim=True) * scale
        for some in self.some_rows:
            queries, d_share = self.queries.of(some.rows), self.d_mixed.of(some.rows)
            found = next(kept, None)
            weights = some.halves(some.weights if found is None else found)
            if found is None:
                some.score(weights, group, queries)
                some.exponentiate(weights, largest)
            some.add_transposed(weights, d_share, to=self.d_values)
            d_scores = some.differentiate(weights, d_share, shift)
            if d_table is not None:
                self.scores.add_to_table(d_table, d_scores, group, some.rows)
            some.add_transposed(d_scores, queries, to=self.d_keys)
            some.mix(d_scores, some.keys, out=d_query)
        self.d_keys.get(out=d_key)
        self.d_values.get(out=d_value)


class _RowTiles:
    """The tiles of some rows of queries, looked up once for all groups of heads, and the products they take part in.

    Args:
        layout: the layout with the keys of both halves.
        scores: of the call.
        rows: of queries.
        scratch: memory for temporary tensors of these rows.
        keys: of a group of heads.
        values: likewise.

    Attributes:
        weights: memory for those of both halves, one after the other.
    """

    def __init__(
        self, layout: Strided, scores: _Scores, rows: RowRange, scratch: _Scratch, keys: _Keys, values: _Keys
    ) -> None:
        self.layout, self.scores, self.rows, self.scratch = layout, scores, rows, scratch
        self.heads, self.dtype = len(keys.local), keys.local.dtype
        self.keys, self.values = (x.read(rows, scratch, name) for x, name in ((keys, "keys"), (values, "values")))
        queries = layout.row * (rows.last - rows.first)
        self._local = self.heads, queries // layout.block, layout.block, layout.width
        self._sampled = self.heads, layout.columns, queries // layout.columns, self.keys.sampled.tiles.shape[2]
        self._size = (self.heads * queries * (layout.width + self._sampled[-1]),)
        self.weights = scratch("weights", self._size, self.dtype)
        largest = max(x.tiles[0].numel() for x in self.keys)
        scratch("products", (self.heads, max(largest, queries * keys.local.shape[2])), self.dtype)

    def halves(self, scores: Tensor) -> _Halves:
        """The tiles of both halves."""
        size = prod(self._sampled)
        return _Halves(_Tiles(scores[:-size].view(self._local)), _Tiles(scores[-size:].view(self._sampled)))

    def score(self, out: _Halves, group: slice, queries: _Halves) -> None:
        """S log2(e)."""
        self.keys.local.refresh()
        products = out.local.multiply(queries.local.matrices, self.keys.local.transposed)
        self.scores.local(products, group, self.rows, out=out.local.tiles)
        products = out.sampled.multiply(queries.sampled.matrices, self.keys.sampled.transposed)
        self.scores.sampled(products, group, self.rows, out=out.sampled.tiles)

    def reduce(self, within: Callable[..., Tensor], between: Callable[..., Any], scores: _Halves, out: Tensor) -> None:
        """The largest or the sum over both halves, into numbers of queries, g n 1."""
        local, sampled = (within(x.tiles, dim=-1, keepdim=True) for x in scores)
        out = self.layout.column_queries(self.layout.of(self.rows, out))
        between(self.layout.column_queries(local.flatten(1, 2)), sampled, out=out)

    def exponentiate(self, scores: _Halves, largest: Tensor) -> None:
        """W = 2^(S log2(e) - m), in place."""
        for half, shift in zip(scores, self._of_queries(largest), strict=True):
            half.tiles.sub_(shift).exp2_()

    def differentiate(self, weights: _Halves, d_out: _Halves, shift: Tensor) -> _Halves:
        """W (dR V^T - sum(dR O)), of scaled values."""
        self.values.local.refresh()
        d_scores = self.halves(self.scratch("d_scores", self._size, self.dtype))
        for d_half, half, out, values, of_half in zip(
            d_scores, weights, d_out, self.values, self._of_queries(shift), strict=True
        ):
            product = d_half.multiply(out.matrices, values.transposed)
            torch.sub(product, of_half, out=d_half.tiles).mul_(half.tiles)
        return d_scores

    def mix(self, weights: _Halves, values: _Halves, out: Tensor) -> None:
        """Mix the values of both halves into tensors g n d."""
        values.local.refresh()
        local = self._product(weights.local.matrices, values.local.matrices, "local").flatten(1, 2)
        sampled = self._product(weights.sampled.matrices, values.sampled.matrices)
        out = self.layout.column_queries(self.layout.of(self.rows, out))
        torch.add(self.layout.column_queries(local), sampled, out=out)

    def add_transposed(self, weights: _Halves, queries: _Halves, to: _Keys) -> None:
        """Add the gradients of keys or values from the queries that read them."""
        to.add_local(self.rows, self._product(weights.local.transposed, queries.local.matrices))
        to.add_sampled(self.rows, self._product(weights.sampled.transposed, queries.sampled.matrices))

    def _of_queries(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split numbers per query, g n 1, into local tiles and columns: g t q 1."""
        x = self.layout.of(self.rows, x)
        return self.layout.local_queries(x), self.layout.column_queries(x)

    def _product(self, left: Tensor, right: Tensor, name: str = "products") -> Tensor:
        """One matrix product per tile, g t q k."""
        out = self.scratch(name, (len(left), left.shape[1], right.shape[2]), self.dtype)
        return torch.bmm(left, right, out=out).view(self.heads, -1, *out.shape[1:])
