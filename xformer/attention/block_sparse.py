"""The one kernel behind local, sparse and BigBird attention: gather the key blocks that a pattern names, and attend.

`block_sparse_kernel.py` computes, `block_sparse_layout.py` finds the keys. Several patterns over disjoint sets of keys
make one softmax: `merge`.

A bias that depends on the query, or adds to the values, runs through autograd instead, in memory of the size of all
gathered scores: still linear in the length wherever the pattern is.

Shapes: b batch, h heads, q queries, k keys, d features of one head.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xformer.attention.block_sparse_bias import bias_scores, bias_values
from xformer.attention.block_sparse_kernel import attend_by_steps
from xformer.attention.block_sparse_layout import Layout, lay_out
from xformer.attention.block_sparse_layout import Tokens as Tokens
from xformer.attention.pattern import Pattern, Window, cut
from xformer.core.bias import RelativeBias, TableBias

SCORES_AT_A_TIME = 1 << 19
"""Small enough to stay near the processor, large enough for its matrix products."""


class Mixed(NamedTuple):
    """What one pattern contributes: the mixed values and the logarithm of the sum of their exponentiated scores."""

    values: Tensor  # b h q d
    log_sum: Tensor  # b h q


def attend(tokens: Tokens, pattern: Pattern | Window, bias: RelativeBias | None) -> Mixed:
    """softmax(Q K^T / sqrt(d) + B) V over the keys that the pattern allows; zeros where there are none.

    Args:
        tokens: in float32 at least, as scores and sums are of their type.
        pattern: which pairs count.
        bias: what is added to their scores.
    """
    query, key, value = tokens.query, tokens.key, tokens.value
    layout = lay_out(tokens, pattern)
    if bias is not None and not isinstance(bias, TableBias):
        return _attend_by_content(query, key, value, bias, layout)
    table = None
    if bias is not None:
        table = bias.table(torch.arange(1 - tokens.span, tokens.span, device=query.device)).to(query.dtype)
    return Mixed(*attend_by_steps(query, key, value, table, layout, SCORES_AT_A_TIME))


def merge(*parts: Mixed) -> Float[Tensor, "b h q d"]:
    """One softmax over the disjoint keys of several parts; a bias's value term is linear in the weights and follows."""
    log_sums = torch.stack([part.log_sum for part in parts])
    nothing = log_sums.isneginf().all(dim=0)
    shares = log_sums.masked_fill(nothing, 0.0).softmax(dim=0)
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


def _attend_by_content(query: Tensor, key: Tensor, value: Tensor, bias: RelativeBias, layout: Layout) -> Mixed:
    length, query, laid = query.shape[2], cut(query, 2, layout.query_block), [layout.lay(x) for x in (key, value)]
    parts = []
    for blocks in layout.ranges(query.numel() * key.shape[2]):
        group = layout.group(blocks)
        part, (keys, values) = query[:, :, group.blocks], (layout.read(x, group, slice(None)) for x in laid)
        distances = group.distances[None].clamp(-layout.last, layout.last).expand(-1, -1, len(blocks), -1, -1)
        scores = part @ keys.mT * query.shape[-1] ** -0.5 + bias_scores(bias, part, distances)
        weights, log_sum = softmax(scores, group.allowed)
        mixed, term = weights @ values, bias_values(bias, weights, distances)
        parts.append((mixed if term is None else mixed + term, log_sum))
    return Mixed(*(torch.cat(x, dim=2).flatten(2, 3)[:, :, :length] for x in zip(*parts, strict=True)))
