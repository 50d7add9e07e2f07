r"""The kernel of the Sparse Transformer's patterns: the keys near a query and a sample of far ones, in one softmax.

Positions are written in rows. Some consecutive rows of queries are taken at a time, and cut in two ways:

    near    tiles of consecutive queries, each with the keys around it: a strided view of the keys
    far     tiles of one column's queries, each with the sampled keys of that column: a transposed copy

    S = [Q_near K_near^T | Q_far K_far^T] / sqrt(d) + B,    O = softmax(S) [V_near; V_far]

Each half is one batched matrix product, and nothing is gathered. Both halves take the exponential with the largest
score of either, and what they mix is added before it is divided by the sum of their weights:

    W = 2^(S log2(e) - m),    s = sum(W),    O = W [V_near; V_far] / s

Backward needs no sum over weights, as the sum of P dP is that of dO O (Dao et al. 2022, "FlashAttention", B.2). It
finds the weights of the first groups of heads, no more numbers than the inputs and the mixed values have, and makes
the others again from queries and keys (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").

Time O(n (w + f)) for w keys of a near tile and f far ones of a column; a causal pattern looks at half of these, as it
leaves out those of later rows. Memory O(n), and a constant number of scores.

Every query may read itself, so that no row of scores is empty. A key that is no token has a low but finite score, so
that a query that is none makes no NaN; what it mixes means nothing.

Shapes: g heads of a group, of any rows of the batch; n positions, c of some rows; t tiles, q queries and k keys of one.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from xformer.attention.block_sparse import Tokens
from xformer.attention.near_and_far_portion import Portion
from xformer.attention.near_and_far_scores import Scores
from xformer.attention.near_and_far_tiles import Keys, Memory, NearAndFar, Queries, Rows
from xformer.core.bias import TableBias


@torch.compiler.disable  # type: ignore[untyped-decorator]  # its loops over groups would be unrolled, for minutes
def attend(tokens: Tokens, pattern: NearAndFar, bias: TableBias | None) -> Float[Tensor, "b h n d"]:
    """softmax(Q K^T / sqrt(d) + B) V over the keys that either half of the pattern allows.

    Args:
        tokens: in float32 at least, as scores and sums are of their type.
        pattern: which pairs count.
        bias: what is added to their scores.
    """
    batch, heads, span, _ = tokens.query.shape
    query, key, value = tokens.query, tokens.key, tokens.value
    fill, real = -span % (pattern.row * pattern.rows), tokens.real
    if real is None and fill and not pattern.causal:
        real = torch.ones(1, span, dtype=torch.bool, device=key.device)
    if real is not None:
        real = pad(real, (0, fill))[:, None].expand(batch, heads, -1).flatten(0, 1)
    if fill:
        query, key, value = (pad(x, (0, 0, 0, fill)) for x in (query, key, value))
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    table = None if bias is None else bias.table(torch.arange(1 - span, span, device=query.device)).to(query.dtype)
    keep = torch.is_grad_enabled()
    mixed: Tensor = _Attend.apply(query, key, value, table, real, pattern, heads, keep)  # type: ignore[no-untyped-call]
    return mixed.view(batch, heads, -1, mixed.shape[-1])[:, :, :span]


KEPT_PER_NUMBER = 4
"""The most weights that are kept for backward, by the numbers of O: as much memory as Q, K, V and O take together."""


class _Attend(torch.autograd.Function):
    """Forward keeps some of the weights; backward makes the others again."""

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
        keep: bool,
    ) -> Tensor:
        mixed = torch.empty_like(query, memory_format=torch.contiguous_format)
        scores = Scores(pattern, heads, query, table, real)
        largest, total = (mixed.new_empty(*mixed.shape[:2], 1) for _ in range(2))
        kept = _Kept(room=KEPT_PER_NUMBER * mixed.numel() if keep and any(ctx.needs_input_grad) else 0)
        for kernel, group in _kernels(pattern, scores, query, backward=False):
            kernel.mix(group, _Inputs(query, key, value).of(group), _Mixed(mixed, largest, total).of(group), kept)
        ctx.save_for_backward(query, key, value, table, real, mixed, largest, total, *kept.weights)
        ctx.pattern, ctx.heads = pattern, heads
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mixed: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, table, real, mixed, largest, total, *weights = ctx.saved_tensors
        like = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value))
        gradients = _Inputs(*like)
        scores = Scores(ctx.pattern, ctx.heads, query, table, real)
        if ctx.needs_input_grad[3]:
            scores.trace()
        kept = iter(weights)
        for kernel, group in _kernels(ctx.pattern, scores, query, backward=True):
            inputs, result = _Inputs(query, key, value).of(group), _Mixed(mixed, largest, total).of(group)
            kernel.differentiate(group, inputs, result, d_mixed[group], gradients.of(group), kept)
        return *gradients, scores.d_table, None, None, None, None


class _Inputs(NamedTuple):
    """What is mixed, or its gradients, g n d."""

    query: Tensor
    key: Tensor
    value: Tensor

    def of(self, group: slice) -> "_Inputs":
        """Of some heads."""
        return _Inputs(*(x[group] for x in self))


class _Mixed(NamedTuple):
    """O, and what its weights were made with: m and s, g n 1."""

    values: Tensor
    largest: Tensor
    total: Tensor

    def of(self, group: slice) -> "_Mixed":
        """Of some heads."""
        return _Mixed(*(x[group] for x in self))


class _Kept:
    """Weights for backward, as long as there is room for so many."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.weights: list[Tensor] = []

    def take(self, like: Tensor) -> Tensor:
        """New memory of the same form, which is kept; the same memory where there is no room any more."""
        self.room -= like.numel()
        if self.room < 0:
            return like
        self.weights.append(torch.empty_like(like))
        return self.weights[-1]


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
        self.keys, self.values = Keys(pattern, like), Keys(pattern, like)
        self.queries = Queries(pattern, like)
        # The last rows look at all keys: what they take is large enough for others, and where they add is then filled.
        self.portions = [Portion(pattern, scores, some, memory, self.keys, self.values) for some in rows[::-1]]
        if backward:
            self.d_mixed, self.d_share = Queries(pattern, like), torch.empty_like(like)
            self.d_keys, self.d_values = Keys(pattern, like), Keys(pattern, like)

    def mix(self, group: slice, inputs: _Inputs, out: _Mixed, kept: _Kept) -> None:
        """O = W V / s."""
        self.queries.put(inputs.query)
        self.keys.put(inputs.key)
        self.values.put(inputs.value)
        for portion in self.portions:
            weights = portion.halves(kept.take(portion.weights))
            portion.score(weights, group, self.queries.of(portion.rows))
            portion.joint(torch.amax, torch.maximum, weights, out=out.largest)
            portion.exponentiate(weights, out.largest)
            portion.joint(torch.sum, torch.add, weights, out=out.total)
            portion.mix(weights, portion.values, out=out.values)
        out.values.div_(out.total)

    def differentiate(
        self, group: slice, inputs: _Inputs, mixed: _Mixed, d_mixed: Tensor, out: _Inputs, kept: Iterator[Tensor]
    ) -> None:
        """With dR = dO / s: dV = W^T dR, dS = W (dR V^T - sum(dR O)) / sqrt(d), dQ = dS K, dK = dS^T Q."""
        scale = inputs.query.shape[-1] ** -0.5
        self.queries.put(inputs.query)
        self.keys.put(inputs.key)
        self.values.put(inputs.value, scale)  # which nothing but dS is made of
        self.d_keys.clear()
        self.d_values.clear()
        self.d_mixed.put(torch.div(d_mixed, mixed.total, out=self.d_share))
        shift = (self.d_share * mixed.values).sum(dim=-1, keepdim=True) * scale
        for portion in self.portions:
            queries, d_share = self.queries.of(portion.rows), self.d_mixed.of(portion.rows)
            found = next(kept, None)
            weights = portion.halves(portion.weights if found is None else found)
            if found is None:
                portion.score(weights, group, queries)
                portion.exponentiate(weights, mixed.largest)
            portion.add_transposed(weights, d_share, to=self.d_values)
            d_scores = portion.differentiate(weights, group, d_share, shift)
            portion.add_transposed(d_scores, queries, to=self.d_keys)
            portion.mix(d_scores, portion.keys, out=out.query)
        self.d_keys.get(out=out.key)
        self.d_values.get(out=out.value)
