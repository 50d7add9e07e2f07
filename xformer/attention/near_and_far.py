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

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from xformer.attention.block_sparse import Tokens
from xformer.attention.near_and_far_scores import Scores
from xformer.attention.near_and_far_tiles import NearAndFar, Rows, Scratch
from xformer.position.bias import TableBias


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
            kernel = _Kernel(pattern, Scores(pattern, heads, query, table, real), query)
            for group in kernel.groups:
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
        kernel = _Kernel(ctx.pattern, scores, query)
        for group in kernel.groups:
            inputs = [x[group] for x in (query, key, value, d_mixed)]
            kernel.differentiate(group, *inputs, *(x[group] for x in gradients))
        return *gradients, scores.d_table, None, None, None


class _Halves(NamedTuple):
    """Of queries, keys, values or weights, what the near and the far tiles have."""

    near: Tensor
    far: Tensor


class _Kernel:
    """One call's work on groups of heads, g n d, and the memory for it."""

    def __init__(self, pattern: NearAndFar, scores: Scores, query: Tensor) -> None:
        self.pattern, self.scores = pattern, scores
        self.groups, self.rows = scores.portions()
        self.scale, self.dtype = query.shape[-1] ** -0.5, query.dtype
        self.scratch = Scratch(query.device)

    def mix(self, group: slice, query: Tensor, key: Tensor, value: Tensor, mixed: Tensor) -> None:
        """O = P V."""
        keys, values = self._keys("keys", key), self._keys("values", value)
        for rows in self.rows:
            queries = self._queries("queries", query, rows, self.scale)
            weights = self._weights(group, rows, queries, keys)
            self._mixed(self._halves(weights), self._read(values, rows), out=self.pattern.of(rows, mixed))

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
        """Every dV = P^T dO, dS = P (dO V^T - sum(P dO V^T)), dQ = dS K / sqrt(d), dK = dS^T Q / sqrt(d)."""
        keys, values = self._keys("keys", key), self._keys("values", value)
        d_keys, d_values = self._zeros("d_keys", keys), self._zeros("d_values", values)
        for rows in self.rows:
            queries = self._queries("queries", query, rows, self.scale)
            d_out = self._queries("d_mixed", d_mixed, rows, 1.0)
            weights = self._weights(group, rows, queries, keys)
            self._add_transposed(self._halves(weights), d_out, rows, to=d_values)
            d_scores = self._d_scores(weights, d_out, self._read(values, rows))
            self.scores.differentiate(*self.pattern.halves(d_scores), group, rows)
            halves = self._halves(d_scores)
            self._add_transposed(halves, queries, rows, to=d_keys)
            d_rows = self.pattern.of(rows, d_query)
            self._mixed(halves, self._read(keys, rows), out=d_rows)
            d_rows.mul_(self.scale)
        self._join(d_keys, out=d_key)
        self._join(d_values, out=d_value)

    def _queries(self, name: str, x: Tensor, rows: Rows, scale: float) -> _Halves:
        x = self.pattern.of(rows, x)
        near = torch.mul(x, scale, out=self._take(name, x.shape))
        far = self.pattern.far_queries(near)
        return _Halves(self.pattern.near_queries(near), self._take(f"{name} far", far.shape).copy_(far))

    def _keys(self, name: str, x: Tensor) -> _Halves:
        before, after, (heads, length, features) = self.pattern.before, self.pattern.after, x.shape
        near = self._take(f"{name} near", (heads, before + length + after, features))
        near[:, :before] = 0  # no keys; a product with what is here must not be NaN
        near[:, before : before + length] = x
        near[:, before + length :] = 0
        sampled = self.pattern.sample(x)
        return _Halves(near, self._take(f"{name} far", sampled.shape).copy_(sampled).flatten(2, 3))

    def _zeros(self, name: str, like: _Halves) -> _Halves:
        near = self._take(f"{name} near", like.near.shape, self.scores.dtype)
        far = self._take(f"{name} far", like.far.shape, self.scores.dtype)
        return _Halves(near.zero_(), far.zero_())

    def _read(self, keys: _Halves, rows: Rows) -> _Halves:
        """What some rows of queries read."""
        return _Halves(self.pattern.near_keys(keys.near, rows), self.pattern.far_read(keys.far, rows))

    def _weights(self, group: slice, rows: Rows, queries: _Halves, keys: _Halves) -> Tensor:
        """softmax(Q K^T / sqrt(d) + B), g c (k k)."""
        read = self._read(keys, rows)
        count = self.pattern.row * (rows.last - rows.first)
        shape = (len(read.near), count, read.near.shape[2] + read.far.shape[2])
        scores = self._take("scores", shape, self.scores.dtype)
        near, far = self.pattern.halves(scores)
        self.scores.near(self._product("products", queries.near, read.near.mT), group, rows, out=near)
        self.scores.far(self._product("products", queries.far, read.far.mT), group, rows, out=far)
        return torch.softmax(scores, dim=-1, out=scores)

    def _d_scores(self, weights: Tensor, d_out: _Halves, values: _Halves) -> Tensor:
        """P (dO V^T - sum(P dO V^T))."""
        d_weights = self._take("d_scores", weights.shape, weights.dtype)
        for out, d_tile, value in zip(self.pattern.halves(d_weights), d_out, values, strict=True):
            out.copy_(self._product("products", d_tile, value.mT))
        backward = torch.ops.aten._softmax_backward_data.out
        d_scores: Tensor = backward(d_weights, weights, -1, weights.dtype, grad_input=d_weights)
        return d_scores

    def _halves(self, scores: Tensor) -> _Halves:
        """Weights or their like, as matrices to multiply with."""
        near, far = self.pattern.halves(scores)
        return _Halves(near.to(self.dtype), self._take("weights far", far.shape).copy_(far))

    def _mixed(self, weights: _Halves, values: _Halves, out: Tensor) -> None:
        """What both halves mix, together; g c d."""
        near = self._product("mixed near", weights.near, values.near).flatten(1, 2)
        far = self._product("mixed far", weights.far, values.far)
        torch.add(self.pattern.far_queries(near), far, out=self.pattern.far_queries(out))

    def _add_transposed(self, weights: _Halves, queries: _Halves, rows: Rows, to: _Halves) -> None:
        """What the keys get of the queries that read them."""
        near = self._product("products", weights.near.mT, queries.near)
        self.pattern.add_near_keys(to.near, rows, near)
        far = self._product("products", weights.far.mT, queries.far)
        self.pattern.far_read(to.far, rows).add_(far)

    def _join(self, keys: _Halves, out: Tensor) -> None:
        """The transpose of `_keys`."""
        out.copy_(keys.near[:, self.pattern.before : self.pattern.before + out.shape[1]])
        sampled = self.pattern.sample(out)
        sampled.add_(keys.far.view(sampled.shape))

    def _product(self, name: str, left: Tensor, right: Tensor) -> Tensor:
        """One matrix product per tile."""
        product = self._take(name, (*left.shape[:3], right.shape[3]))
        torch.bmm(left.flatten(0, 1), right.flatten(0, 1), out=product.flatten(0, 1))
        return product

    def _take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        return self.scratch(name, *shape, dtype=dtype or self.dtype)
