r"""Sums of kernel features over keys: how Performer reads many keys without looking at each.

Every function is exact in the sense of the feature map, and every weight is held as a positive number times the
exponential of a scale, which is the largest there is, so that nothing is added to a denominator to keep it from zero.
The scales cancel: they are constants to the gradient.

Shapes: b batch, h heads, q queries, k keys, m random features, e features of a value and the 1 that counts it.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xformer.core.bias import TableBias

NOTHING = 1e-30
"""Weights below it are lost to float32's range, and their gradients would overflow."""


class Keys(NamedTuple):
    """phi(k) = features * exp(peak), with the largest of a key's features 1; a padded key's peak is -inf."""

    features: Float[Tensor, "b h k m"]
    peak: Float[Tensor, "b h k 1"]
    values: Float[Tensor, "b h k e"]
    positions: Float[Tensor, "#b 1 k 1"]

    def part(self, keys: slice) -> "Keys":
        """Some of the keys."""
        return Keys(*(tensor[:, :, keys] for tensor in self))


class Sums(NamedTuple):
    """sum_j exp(slope (p_j - origin)) phi(k_j)^T [v_j, 1] = total * exp(scale), over the keys taken in so far."""

    total: Float[Tensor, "#b #h #m #e"]
    scale: Float[Tensor, "#b #h 1 1"]
    origin: Float[Tensor, "#b 1 1 1"]
    """The last position taken in: distances from it stay small, however long the sequence."""


class Far(NamedTuple):
    """A bias from the distance `reach` on: b(distance) = offset - slope * distance; all zero where there is none."""

    reach: int
    slope: Float[Tensor, "#h 1 1"]
    before: Float[Tensor, "#h 1 1"]
    """The offset for keys before the query."""
    after: Float[Tensor, "#h 1 1"]


def far_field(bias: TableBias | None, keys: int, like: Tensor) -> Far:
    """Where and how a bias becomes linear in the distance.

    A bias tells by an attribute: `slopes` (one per head) if it is -slope |distance| everywhere, `reach` if it is
    constant from that distance on. Of any other nothing is known, and all `keys` are near.
    """
    zero = like.new_zeros(1, 1, 1)
    if bias is None:
        return Far(0, zero, zero, zero)
    if bias.slopes is not None:
        return Far(0, bias.slopes.to(like.dtype).view(-1, 1, 1), zero, zero)
    reach = bias.reach
    if reach is None:
        return Far(keys, zero, zero, zero)
    before, after = bias.table(torch.tensor([-reach, reach], device=like.device)).to(like.dtype).unbind(-1)
    return Far(reach, zero, before.view(-1, 1, 1), after.view(-1, 1, 1))


def finite(scale: Tensor) -> Tensor:
    """0 in the place of -inf, the scale of nothing: nothing times exp(0) is nothing, where exp(-inf + inf) is NaN."""
    return scale.detach().masked_fill(scale == float("-inf"), 0.0)


def scaled_keys(
    log_features: Float[Tensor, "b h k m"],
    values: Float[Tensor, "b h k e"],
    positions: Float[Tensor, "#b 1 k 1"],
    real: Bool[Tensor, "b 1 k 1"] | None,
) -> Keys:
    """The keys' features, each key with a scale of its own: a scale they shared would tell the past of the future."""
    peak = log_features.detach().amax(dim=-1, keepdim=True)
    features = (log_features - peak).exp()
    if real is not None:
        features = features * real
        peak = peak.masked_fill(~real, float("-inf"))
    return Keys(features, peak, values, positions)


def add(sums: Sums | None, keys: Keys, slope: Float[Tensor, "#h 1 1"]) -> Sums | None:
    """Take in keys whose positions are all beyond those taken in before; what was there decays by the way between."""
    if keys.features.shape[2] == 0:
        return sums
    if sums is None:
        nothing = keys.peak.new_zeros(1, 1, 1, 1)
        sums = Sums(nothing, nothing - float("inf"), nothing)
    lowest = torch.finfo(keys.positions.dtype).min
    real = keys.peak[:, :1] != float("-inf")  # b 1 k 1: padding is the same for all heads
    last = keys.positions.masked_fill(~real, lowest).amax(dim=2, keepdim=True)
    origin = torch.where(real.any(dim=2, keepdim=True), last, sums.origin)
    old = sums.scale - slope * (origin - sums.origin)
    new = keys.peak - slope * (origin - keys.positions).masked_fill(~real, 0.0)
    scale = torch.maximum(old, new.amax(dim=2, keepdim=True)).detach()
    top = finite(scale)
    values = keys.values * (new - top).exp()
    return Sums((old - top).exp() * sums.total + keys.features.mT @ values, scale, origin)


def read(
    log_query: Float[Tensor, "b h q m"],
    near: Keys,
    logits: Float[Tensor, "#b #h q k"],
    far: list[tuple[Sums, Float[Tensor, "#b #h #q 1"]]],
) -> Float[Tensor, "b h q d"]:
    """The weighted mean of values, near ones each by itself and far ones by their sums.

    Args:
        log_query: log phi(q).
        near: the keys nearby.
        logits: what is added to the logarithm of the near keys' weights; -inf where a query may not read.
        far: sums, and the logarithm of each query's weight for them.
    """
    query = (log_query - log_query.detach().amax(dim=-1, keepdim=True)).exp()
    logits = logits + near.peak.mT
    top = logits.detach().amax(dim=-1, keepdim=True)
    for sums, weight in far:
        top = torch.maximum(top, (weight + sums.scale).detach())
    top = finite(top)
    mixed = ((query @ near.features.mT) * (logits - top).exp()) @ near.values
    for sums, weight in far:
        mixed = mixed + (query @ sums.total) * (weight + sums.scale - top).exp()
    return normalised(mixed)


def normalised(mixed: Float[Tensor, "b h q e"]) -> Float[Tensor, "b h q d"]:
    """Divide by the count, the last feature; a query that read nothing yields zeros."""
    count = mixed[..., -1:]
    return mixed[..., :-1] / count.masked_fill(count < NOTHING, 1.0)
