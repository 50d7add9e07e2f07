r"""Causal sums of kernel features without a bias or with one that is linear in the distance.

For query i in a chunk that follows the state S = sum_j exp(s_j) F_j^T [v_j, 1] over all keys before it,

    [num_i, den_i] = exp(-t_i) (G_i S + sum_j exp(s_j) (G_i . F_j) [v_j, 1]),     out_i = num_i / den_i,

where j runs over the chunk's keys up to i. G and F are the features of queries and keys, each row divided by its sum:
for a query that divides itself away, for a key its logarithm is in s_j. A bias -slope (p_i - p_j) adds slope (p_j - o)
to s_j, and its other half divides itself away too; o is the position where the chunk begins, so that no exponent grows
with the length. t_i, the largest s_j up to i, keeps every factor at most 1 without looking ahead.

The backward pass runs the chunks in reverse with the gradient of S. It keeps queries, keys, values, results, S before
every chunk and three numbers per token, and computes all features again: memory O(n (d + m d / c)) for chunks of c,
time O(n m (d + c)). Chunks of c = d make the work within a chunk as large as that with S.

Shapes: g rows times heads, n tokens, c tokens of a chunk, m features, d features of a value.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from xformer.attention.features import FeatureMap, RandomFeatures, half_norm
from xformer.attention.performer_groups import in_groups
from xformer.attention.performer_sums import NOTHING

CHUNK = 64
FEATURES_AT_A_TIME = 1 << 17
"""Of a chunk of several heads: what a chunk needs then stays in a processor's cache."""
LOWEST = -1e30
"""The scale of no keys at all: finite, so that a difference of two is never NaN."""


def causal(
    features: RandomFeatures,
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b h n d"],
    value: Float[Tensor, "b h n d"],
    positions: Int[Tensor, "#b n"],
    real: Bool[Tensor, "b n"] | None,
    slopes: Float[Tensor, " h"] | None,
) -> Float[Tensor, "b h n d"]:
    """Each token's mean over the values up to its own; zeros where all of these are padding.

    Args:
        features: phi.
        query: of the same tokens as keys and values, which are zero at padding.
        key: see above.
        value: see above.
        positions: of the tokens; only read where there are slopes.
        real: False at padding.
        slopes: of the bias, one per head.
    """
    batch, heads, length, _ = query.shape
    projection = features.scaled(query.dtype)
    keep = torch.is_grad_enabled()

    def of_tokens(x: Tensor) -> Tensor:
        return x[:, None, :, None].expand(batch, heads, length, 1)

    def kernel(*group: Tensor | None) -> Tensor:
        mixed: Tensor = _Causal.apply(*group, projection, features.map, keep)  # type: ignore[no-untyped-call]
        return mixed

    steep = places = None
    if slopes is not None:
        steep = slopes.to(query.dtype).view(-1, 1, 1).expand(batch, heads, 1, 1)
        places = of_tokens(_in_order(positions, real).to(query.dtype))
    hidden = None if real is None else of_tokens(~real)
    tensors = query, key, value, hidden, steep, places
    return in_groups(kernel, tensors, min(CHUNK, length) * len(projection), FEATURES_AT_A_TIME)


def _in_order(positions: Int[Tensor, "#b n"], real: Bool[Tensor, "b n"] | None) -> Int[Tensor, "#b n"]:
    """Padding at the position of the real token before it; that of the sequence's beginning at 0."""
    if real is None:
        return positions
    order: Tensor = positions.expand(real.shape).masked_fill(~real, 0).cummax(dim=1).values
    return order


class _Causal(torch.autograd.Function):
    """num / den of the equation above."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "g n d"],
        key: Float[Tensor, "g n d"],
        value: Float[Tensor, "g n d"],
        hidden: Bool[Tensor, "g n 1"] | None,
        slopes: Float[Tensor, "g 1 1"] | None,
        positions: Float[Tensor, "g n 1"] | None,
        projection: Float[Tensor, "m d"],
        feature_map: FeatureMap,
        keep: bool,
    ) -> Float[Tensor, "g n d"]:
        rows, length, dim = query.shape
        project = projection.T.expand(rows, -1, -1)
        out, (den, scale, top) = torch.empty_like(value), query.new_empty(3, rows, length, 1)
        shift, jump = _decay(slopes, positions, query)
        offset = shift if not feature_map.normed else shift - half_norm(key)
        if hidden is not None:
            offset = offset.masked_fill(hidden, float("-inf"))
        future = _future(query)
        count = -(-length // CHUNK)
        states = query.new_empty(max(1, count - 1) if keep else 1, rows, dim + 1, len(projection))
        before = query.new_full((rows, 1, 1), LOWEST)
        parts = zip(*_split(query, key, value, out, den, scale, top, offset.expand(rows, length, 1)), strict=True)
        for index, (q, k, v, mixed, d, s, t, extra) in enumerate(parts):
            read = feature_map.log(torch.bmm(q, project)).softmax(-1)
            log = feature_map.log(torch.bmm(k, project))
            written = log.softmax(-1)
            # The logarithm of a row's sum, without computing the exponentials again.
            torch.sub(log.amax(-1, keepdim=True), written.amax(-1, keepdim=True).log_(), out=s).add_(extra)
            before = before - jump[:, index]
            torch.maximum(s.cummax(1).values, before, out=t)
            near = torch.bmm(read, written.mT).mul_(_weights(s, t, future))
            torch.sum(near, -1, keepdim=True, out=d)
            num = torch.bmm(near, v)
            if index:
                fade, state = (before - t).exp_(), states[(index - 1) % len(states)]
                num.addcmul_(torch.bmm(read, state[:, :dim].mT), fade)
                d.addcmul_(torch.bmm(read, state[:, dim:].mT), fade)
            d.masked_fill_(d < NOTHING, 1.0)
            torch.div(num, d, out=mixed)
            if index < count - 1:
                last, after = t[:, -1:], states[index % len(states)]
                new = _weighted(v, s, last)
                if index:
                    torch.mul(state, (before - last).exp_(), out=after).baddbmm_(new.mT, written)
                else:
                    torch.bmm(new.mT, written, out=after)
                before = last
        ctx.map, ctx.slopes = feature_map, slopes
        ctx.save_for_backward(query, key, value, out, den, scale, top, states, projection, positions, jump)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Float[Tensor, "g n d"]) -> tuple[Tensor | None, ...]:
        with torch.autocast(upstream.device.type, enabled=False):
            return _backward(ctx, upstream)


def _backward(ctx: Any, upstream: Float[Tensor, "g n d"]) -> tuple[Tensor | None, ...]:
    query, key, value, out, den, scale, top, states, weight, positions, jump = ctx.saved_tensors
    rows, _, dim = query.shape
    project, back = weight.T.expand(rows, -1, -1), weight.expand(rows, -1, -1)
    to_query, to_key, to_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    to_scale, future = torch.empty_like(den), _future(query)
    to_state: Tensor | None = None  # of the state behind the chunk
    tensors = query, key, value, out, den, scale, top, upstream, to_query, to_key, to_value, to_scale
    parts = list(zip(*_split(*tensors), strict=True))
    for index in reversed(range(len(parts))):
        q, k, v, mixed, d, s, t, up, to_q, to_k, to_v, to_s = parts[index]
        projected_q, projected_k = torch.bmm(q, project), torch.bmm(k, project)
        read, written = ctx.map.log(projected_q).softmax(-1), ctx.map.log(projected_k).softmax(-1)
        weights, last = _weights(s, t, future), t[:, -1:]
        near = torch.bmm(read, written.mT).mul_(weights)
        num = up / d
        to_den = (num * mixed).sum(-1, keepdim=True).neg_()
        torch.bmm(near.mT, num, out=to_v)
        to_near = torch.baddbmm(to_den, num, v.mT).mul_(weights)
        to_read, to_written = torch.bmm(to_near, written), torch.bmm(to_near.mT, read)
        if to_state is not None:
            to_written.baddbmm_(_weighted(v, s, last), to_state)
            to_v.addcmul_(torch.bmm(written, to_state[:, :dim].mT), (s - last).exp_())
        if index:
            before = parts[index - 1][6][:, -1:] - jump[:, index]
            both = torch.cat((num, to_den), dim=-1).mul_((before - t).exp_())
            to_read.baddbmm_(both, states[index - 1])
            if to_state is None:
                to_state = torch.bmm(both.mT, read)
            else:
                to_state.mul_((before - last).exp_()).baddbmm_(both.mT, read)
        torch.bmm(ctx.map.pull(to_read.mul_(read), projected_q), back, out=to_q)
        torch.sum(to_written.mul_(written), -1, keepdim=True, out=to_s)
        torch.bmm(ctx.map.pull(to_written, projected_k), back, out=to_k)
        if ctx.map.normed:
            to_k.addcmul_(to_s, k, value=-(dim**-0.5))
    to_slopes = None
    if ctx.needs_input_grad[4]:
        to_slopes = (to_scale * (positions - positions[:, :1])).sum(1, keepdim=True)
    return to_query, to_key, to_value, None, to_slopes, None, None, None, None


def _split(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return [torch.split(tensor, CHUNK, dim=1) for tensor in tensors]


def _decay(slopes: Tensor | None, positions: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Slope (p_j - o) of every token, g n 1, and slope times the way to each chunk's o from the last, g chunks 1 1."""
    if slopes is None or positions is None:
        nothing = like.new_zeros(1, 1, 1)
        return nothing, nothing.expand(1, -(-like.shape[1] // CHUNK), 1)[..., None]
    origins = positions[:, ::CHUNK]
    own = origins.repeat_interleave(CHUNK, dim=1)[:, : positions.shape[1]]
    jumps = torch.cat((torch.zeros_like(origins[:, :1]), origins.diff(dim=1)), dim=1)
    return slopes * (positions - own), (slopes * jumps)[..., None]


def _future(like: Tensor) -> Float[Tensor, "c c"]:
    """-inf where a key of a chunk comes after the query."""
    return like.new_full((CHUNK, CHUNK), float("-inf")).triu_(1)


def _weights(
    scale: Float[Tensor, "g c 1"], top: Float[Tensor, "g c 1"], future: Float[Tensor, "chunk chunk"]
) -> Float[Tensor, "g c c"]:
    """exp(s_j - t_i) up to the query, 0 after it."""
    tokens = scale.shape[1]
    return (scale.mT - top).add_(future[:tokens, :tokens]).exp_()


def _weighted(
    value: Float[Tensor, "g c d"], scale: Float[Tensor, "g c 1"], top: Float[Tensor, "g 1 1"]
) -> Float[Tensor, "g c e"]:
    """exp(s_j - t) [v_j, 1]."""
    weight = (scale - top).exp_()
    return torch.cat((value * weight, weight), dim=-1)
