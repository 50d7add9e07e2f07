r"""The kernel of the Sparse Transformer's patterns: the keys near a query and a sample of far ones, in one softmax.

Positions are written in rows. Some consecutive rows of queries are taken at a time, and cut in two ways:

    near    tiles of consecutive queries, each with the keys around it: a strided view of the keys
    far     tiles of one column's queries, each with the sampled keys of that column: a transposed copy

    S = [Q_near K_near^T | Q_far K_far^T] / sqrt(d) + B,    O = softmax(S) [V_near; V_far]

Each half is one batched matrix product, and nothing is gathered. The scores of both stand side by side, so that one
softmax covers them and nothing is merged. Backward makes the weights again from queries and keys (Chen et al. 2016,
"Training Deep Nets with Sublinear Memory Cost"), so that nothing but the inputs is kept.

Time O(n (w + f)) for w keys of a near tile and f far ones of a column; a causal pattern looks at half of these, as it
leaves out those of later rows. Memory O(n), and a constant number of scores.

Every query may read itself, so that no row of scores is empty. A key that is no token has a low but finite score, so
that a query that is none makes no NaN; what it mixes means nothing.

Shapes: g heads of a group, of any rows of the batch; n positions, c of some rows; t tiles, q queries and k keys of one.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from xformer.attention.block_sparse import Tokens
from xformer.attention.near_and_far_scores import Scores
from xformer.attention.near_and_far_tiles import Halves, Keys, Memory, NearAndFar, Queries, Rows, Tiles
from xformer.position.bias import TableBias

softmax_backward = torch.ops.aten._softmax_backward_data.out


def attend(tokens: Tokens, pattern: NearAndFar, bias: TableBias | None) -> Float[Tensor, "b h n d"]:
    """softmax(Q K^T / sqrt(d) + B) V over the keys that either half of the pattern allows."""
    batch, heads, span, _ = tokens.query.shape
    query, key, value = tokens.query, tokens.key, tokens.value
    if torch.is_autocast_enabled(query.device.type):
        query, key, value = (x.to(torch.get_autocast_dtype(x.device.type)) for x in (query, key, value))
    fill, real = -span % (pattern.row * pattern.rows), tokens.real
    if real is None and fill and not pattern.causal:
        real = torch.ones(1, span, dtype=torch.bool, device=key.device)
    if real is not None:
        real = pad(real, (0, fill))[:, None].expand(batch, heads, -1).flatten(0, 1)
    if fill:
        query, key, value = (pad(x, (0, 0, 0, fill)) for x in (query, key, value))
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    table = None if bias is None else bias.table(torch.arange(1 - span, span, device=query.device))
    mixed: Tensor = _Attend.apply(query, key, value, table, real, pattern, heads)  # type: ignore[no-untyped-call]
    return mixed.view(batch, heads, -1, mixed.shape[-1])[:, :, :span]


class _Attend(torch.autograd.Function):
    """Forward keeps its inputs; backward makes the weights again."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        table: Tensor | None,
        real: Tensor | None,
        pattern: NearAndFar,
        heads: int,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, table, real)
        ctx.pattern, ctx.heads = pattern, heads
        mixed = torch.empty_like(query, memory_format=torch.contiguous_format)
        with torch.autocast(query.device.type, enabled=False):
            scores = Scores(pattern, heads, query, table, real)
            for kernel, group in _kernels(pattern, scores, query, backward=False):
                kernel.mix(group, query[group], key[group], value[group], mixed[group])
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mixed: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, table, real = ctx.saved_tensors
        gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)]
        scores = Scores(ctx.pattern, ctx.heads, query, table, real)
        if ctx.needs_input_grad[3]:
            scores.trace()
        d_mixed = d_mixed.contiguous()
        for kernel, group in _kernels(ctx.pattern, scores, query, backward=True):
            inputs = [x[group] for x in (query, key, value, d_mixed)]
            kernel.differentiate(group, *inputs, *(x[group] for x in gradients))
        return *gradients, scores.d_table, None, None, None


def _kernels(
    pattern: NearAndFar, scores: Scores, query: Tensor, *, backward: bool
) -> Iterator[tuple["_Kernel", slice]]:
    """All groups of heads, and what does the work on each; the last group may be smaller."""
    heads, rows = scores.portions(len(query))
    kernel = None
    for first in range(0, len(query), heads):
        group = slice(first, min(first + heads, len(query)))
        if kernel is None or group.stop - first < heads:
            kernel = _Kernel(pattern, scores, query[group], rows, backward)
        yield kernel, group


class _Kernel:
    """The work on groups of so many heads, g n d, and the memory for it, which every group uses again."""

    def __init__(self, pattern: NearAndFar, scores: Scores, like: Tensor, rows: list[Rows], backward: bool) -> None:
        memory = Memory(like.device)
        self.scale, self.keys, self.values = like.shape[-1] ** -0.5, Keys(pattern, like), Keys(pattern, like)
        self.queries = Queries(pattern, like)
        # The last rows look at the most keys: what they take is large enough for all.
        last_first = [_Portion(pattern, scores, some, memory, self.keys, self.values, backward) for some in rows[::-1]]
        self.portions = last_first[::-1]
        if backward:
            self.d_mixed = Queries(pattern, like)
            total = torch.empty_like(like, dtype=scores.dtype)
            self.d_keys, self.d_values = Keys(pattern, total), Keys(pattern, total)

    def mix(self, group: slice, query: Tensor, key: Tensor, value: Tensor, mixed: Tensor) -> None:
        """O = P V."""
        self.keys.put(key, self.scale)
        self.values.put(value, 1.0)
        self.queries.put(query)
        for portion in self.portions:
            portion.weigh(group, self.queries.of(portion.rows))
            portion.mix(portion.weights, portion.values, out=mixed)

    def differentiate(
        self,
        group: slice,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        d_mixed: Tensor,
        d_query: Tensor,
        d_key: Tensor,
        d_value: Tensor,
    ) -> None:
        """The gradients dV = P^T dO, dS = P (dO V^T - sum(P dO V^T)), dQ = dS K / sqrt(d), dK = dS^T Q / sqrt(d)."""
        self.keys.put(key, self.scale)
        self.values.put(value, 1.0)
        self.d_keys.clear()
        self.d_values.clear()
        self.queries.put(query)
        self.d_mixed.put(d_mixed)
        for portion in self.portions:
            queries, d_out = self.queries.of(portion.rows), self.d_mixed.of(portion.rows)
            portion.weigh(group, queries)
            portion.add_transposed(portion.weights, d_out, to=self.d_values)
            portion.differentiate(group, d_out)
            portion.add_transposed(portion.d_scores, queries, to=self.d_keys)
            portion.mix(portion.d_scores, portion.keys, out=d_query)
        self.d_keys.get(self.scale, out=d_key)
        self.d_values.get(1.0, out=d_value)


class _Portion:
    """Some rows of queries: where their tiles are in the scores and among the keys, looked up once for all groups."""

    def __init__(
        self, pattern: NearAndFar, scores: Scores, rows: Rows, memory: Memory, keys: Keys, values: Keys, backward: bool
    ) -> None:
        self.pattern, self.scores, self.rows, self.memory = pattern, scores, rows, memory
        self.heads, self.dtype = len(keys.near), keys.near.dtype
        self.keys, self.values = (x.read(rows, memory, name) for x, name in ((keys, "keys"), (values, "values")))
        shape = (self.heads, pattern.row * (rows.last - rows.first), sum(x.tiles.shape[2] for x in self.keys))
        self._weights = memory("weights", shape, scores.dtype)
        self.weights = self._halves(self._weights)
        self._products: dict[tuple[str, tuple[int, ...]], Tiles] = {}
        largest = max(x.tiles[0].numel() for x in (*self.weights, *self.keys))  # of scores, and of what keys get
        memory("products", (self.heads, max(largest, shape[1] * keys.near.shape[2])), self.dtype)
        if backward:
            self._d_scores = memory("d_scores", shape, scores.dtype)
            self.d_scores = self._halves(self._d_scores)

    def weigh(self, group: slice, queries: Halves) -> None:
        """P = softmax(Q K^T / sqrt(d) + B), of scaled keys."""
        for keys in (*self.keys, *self.values):
            keys.fresh()
        near, far = self.weights
        self.scores.near(self._product(queries.near.matrices, self.keys.near.turned), group, self.rows, out=near.tiles)
        self.scores.far(self._product(queries.far.matrices, self.keys.far.turned), group, self.rows, out=far.tiles)
        torch.softmax(self._weights, dim=-1, out=self._weights)
        near.fresh()
        far.fresh()

    def differentiate(self, group: slice, d_out: Halves) -> None:
        """Make dS = P (dO V^T - sum(P dO V^T))."""
        near, far = self.d_scores
        near.tiles.copy_(self._product(d_out.near.matrices, self.values.near.turned))
        far.tiles.copy_(self._product(d_out.far.matrices, self.values.far.turned))
        softmax_backward(self._d_scores, self._weights, -1, self._weights.dtype, grad_input=self._d_scores)
        self.scores.differentiate(near.tiles, far.tiles, group, self.rows)
        near.fresh()
        far.fresh()

    def mix(self, weights: Halves, values: Halves, out: Tensor) -> None:
        """What both halves mix, into tensors g n d."""
        near = self._product(weights.near.matrices, values.near.matrices, "near").flatten(1, 2)
        far = self._product(weights.far.matrices, values.far.matrices)
        out = self.pattern.far_queries(self.pattern.of(self.rows, out))
        torch.add(self.pattern.far_queries(near), far, out=out)

    def add_transposed(self, weights: Halves, queries: Halves, to: Keys) -> None:
        """What keys or values get from the queries that read them."""
        to.add_near(self.rows, self._product(weights.near.turned, queries.near.matrices))
        to.add_far(self.rows, self._product(weights.far.turned, queries.far.matrices))

    def _halves(self, scores: Tensor) -> Halves:
        near, far = self.pattern.halves(scores)
        copy = None if scores.dtype == self.dtype else self.memory("weights near", near.shape, self.dtype)
        return Halves(Tiles(near, copy), Tiles(far, self.memory("weights far", far.shape, self.dtype)))

    def _product(self, left: Tensor, right: Tensor, name: str = "products") -> Tensor:
        """One matrix product per tile, g t q k."""
        shape = (len(left), left.shape[1], right.shape[2])
        if (name, shape) not in self._products:
            self._products[name, shape] = Tiles(
                self.memory(name, (self.heads, len(left) // self.heads, *shape[1:]), self.dtype)
            )
        product = self._products[name, shape]
        torch.bmm(left, right, out=product.matrices)
        return product.tiles
