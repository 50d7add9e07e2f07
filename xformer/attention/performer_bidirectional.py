r"""All keys read through kernel features, without a bias: two softmax attentions by way of the m features.

With the logarithms of the features, f_r(x) = log phi_r(x), phi(Q) (phi(K)^T V) / phi(Q) (phi(K)^T 1) is

    S_r   = sum_j softmax_j(f_r(k_j)) v_j,        l_r = log sum_j exp(f_r(k_j))        each feature attends to the keys
    out_i = sum_r softmax_r(f_r(q_i) + l_r) S_r                                        each query to the features

No scale is common to two features or two queries, so none is lost to the range of numbers, and nothing is divided. Both
stages go in chunks, joined by their l_r. The backward pass keeps queries, keys, values, results and a number for each
feature and chunk, and computes all else again: time O(n m d), memory O(n (d + m / c) + m d) for chunks of c tokens.

Shapes: g rows times heads, q queries, k keys, c tokens of a chunk, m features, d features of a value.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from xformer.attention.features import FeatureMap, RandomFeatures, half_norm
from xformer.attention.performer_groups import in_groups

CHUNK = 128
FEATURES_AT_A_TIME = 1 << 18
"""Of a chunk of several heads: what a chunk needs then stays in a processor's cache."""
LOWEST = -1e30
"""The logarithm of a padded key's features: finite, so that a chunk of nothing but padding has a softmax."""


def bidirectional(
    features: RandomFeatures,
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k d"],
    real: Bool[Tensor, "b k"] | None,
) -> Float[Tensor, "b h q d"]:
    """Each query's mean over all values.

    Args:
        features: phi.
        query: the queries.
        key: the keys, zero at padding.
        value: the values, zero at padding.
        real: False at padding.
    """
    projection = features.scaled(query.dtype)

    def kernel(*group: Tensor | None) -> Tensor:
        mixed: Tensor = _Bidirectional.apply(*group, projection, features.map)  # type: ignore[no-untyped-call]
        return mixed

    hidden = None if real is None else ~real[:, None, :, None].expand(*key.shape[:3], 1)
    each = min(CHUNK, max(query.shape[2], key.shape[2])) * len(projection)
    return in_groups(kernel, (query, key, value, hidden), each, FEATURES_AT_A_TIME)


class _Bidirectional(torch.autograd.Function):
    """Both stages."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "g q d"],
        key: Float[Tensor, "g k d"],
        value: Float[Tensor, "g k d"],
        hidden: Bool[Tensor, "g k 1"] | None,
        projection: Float[Tensor, "m d"],
        feature_map: FeatureMap,
    ) -> Float[Tensor, "g q d"]:
        weight, offset = projection.expand(len(query), -1, -1), _offset(key, hidden, feature_map)
        partial: list[Tensor] = []  # l over each chunk
        for k, v, extra in _split(key, value, offset):
            log = feature_map.log(torch.bmm(weight, k.mT)).add_(extra.mT)
            attended = log.softmax(-1)
            # The logarithm of a row's sum, without computing the exponentials again.
            partial.append(log.amax(-1, keepdim=True).sub_(attended.amax(-1, keepdim=True).log_()))
            new = torch.bmm(attended, v)
            if len(partial) == 1:
                pooled, total = new, partial[0]
            else:
                total = torch.logaddexp(total, partial[-1])
                pooled.lerp_(new, (partial[-1] - total).exp_())
        out = query.new_empty(*query.shape[:2], value.shape[-1])
        for q, mixed in _split(query, out):
            log = feature_map.log(torch.bmm(q, weight.mT)).add_(total.mT)
            torch.bmm(log.softmax(-1), pooled, out=mixed)
        ctx.map = feature_map
        ctx.save_for_backward(query, key, value, hidden, projection, out, pooled, total, torch.stack(partial))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Float[Tensor, "g q d"]) -> tuple[Tensor | None, ...]:
        # Read once: checkpointing hands each saved tensor out a single time.
        saved = ctx.saved_tensors
        with torch.autocast(upstream.device.type, enabled=False):
            to_query, to_pooled, to_total = _through_queries(ctx.map, saved, upstream)
            to_key, to_value = _through_keys(ctx.map, saved, to_pooled, to_total)
        return to_query, to_key, to_value, None, None, None


def _through_queries(
    feature_map: FeatureMap, saved: tuple[Any, ...], upstream: Float[Tensor, "g q d"]
) -> tuple[Float[Tensor, "g q d"], Float[Tensor, "g m d"], Float[Tensor, "g m 1"]]:
    """The gradients to queries, S and l."""
    query, _, _, _, projection, out, pooled, total, _ = saved
    weight, to_query = projection.expand(len(query), -1, -1), torch.empty_like(query)
    to_pooled, to_total = torch.zeros_like(pooled), torch.zeros_like(total.mT)
    for q, mixed, up, to_q in _split(query, out, upstream, to_query):
        projected = torch.bmm(q, weight.mT)
        attended = (feature_map.log(projected) + total.mT).softmax(-1)
        to_pooled.baddbmm_(attended.mT, up)
        to_log = torch.baddbmm(-(up * mixed).sum(-1, keepdim=True), up, pooled.mT).mul_(attended)
        to_total += to_log.sum(1, keepdim=True)
        torch.bmm(feature_map.pull(to_log, projected), weight, out=to_q)
    return to_query, to_pooled, to_total.mT


def _through_keys(
    feature_map: FeatureMap,
    saved: tuple[Any, ...],
    to_pooled: Float[Tensor, "g m d"],
    to_total: Float[Tensor, "g m 1"],
) -> tuple[Float[Tensor, "g k d"], Float[Tensor, "g k d"]]:
    """The gradients to keys and values."""
    _, key, value, hidden, projection, _, pooled, total, partial = saved
    weight, offset = projection.expand(len(key), -1, -1), _offset(key, hidden, feature_map)
    to_key, to_value = torch.empty_like(key), torch.empty_like(value)
    common = to_total - (to_pooled * pooled).sum(-1, keepdim=True)
    parts = _split(key, value, offset, to_key, to_value)
    for (k, v, extra, to_k, to_v), share in zip(parts, (partial - total).exp_(), strict=True):
        projected = torch.bmm(weight, k.mT)
        attended, up = (feature_map.log(projected) + extra.mT).softmax(-1), to_pooled * share
        torch.bmm(attended.mT, up, out=to_v)
        to_log = torch.baddbmm(common * share, up, v.mT).mul_(attended)
        norms = to_log.sum(1).unsqueeze(-1)
        torch.bmm(feature_map.pull(to_log, projected).mT, weight, out=to_k)
        if feature_map.normed:
            to_k.addcmul_(norms, k, value=-(k.shape[-1] ** -0.5))
    return to_key, to_value


def _split(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*[torch.split(tensor, CHUNK, dim=1) for tensor in tensors], strict=True))


def _offset(
    key: Float[Tensor, "g k d"], hidden: Bool[Tensor, "g k 1"] | None, feature_map: FeatureMap
) -> Float[Tensor, "g k 1"]:
    """What is added to the logarithms of a key's features."""
    offset = -half_norm(key) if feature_map.normed else torch.zeros_like(key[..., :1])
    return offset if hidden is None else offset.masked_fill_(hidden, LOWEST)
