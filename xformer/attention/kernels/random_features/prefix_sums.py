r"""Random-feature attention by prefix sums, for any relative bias of the distance and any mask, and for decoding.

    out_i = sum_j w_ij v_j / sum_j w_ij,     w_ij = exp(b(p_j - p_i)) phi(q_i) . phi(k_j)

Where b is linear in the distance from a `reach` on, b(p_j - p_i) = offset - slope (p_i - p_j), a weight is a factor of
the query times one of the key, and the keys beyond the reach are all in one sum, whatever the query:

    S = sum_j exp(slope (p_j - o)) phi(k_j)^T [v_j, 1],     o the last position in the sum

Only keys within the reach are attended to one by one. Queries go in chunks of c: each adds the keys that leave its
window to S, and its features are recomputed in the backward pass (torch's checkpoint), so that what lives is a
chunk's features and one S per chunk. Without causality the keys after the window are in suffix sums, which are prefix
sums with positions mirrored. Time O(n m (reach + c + d)); with a bias of which no reach is known all keys are attended
to one by one, in O(n^2 m).

This is a plain implementation with autograd. It is exact for the feature map: every weight is a positive number times
the exponential of a scale, the largest one, so no epsilon is needed in the denominator. The scales cancel and are
constants for the gradient. No key's scale depends on a later key.

Shapes: b batch, h heads, q queries, k keys, m random features, d features of a value, e those and the 1 that counts it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from xformer.core.bias import TableBias
from xformer.core.mask import Mask
from xformer.core.state import State

LogFeatures = Callable[[Tensor], Tensor]
Result = TypeVar("Result")

CHUNK = 128
"""The chunk size: work within a chunk grows quadratically, and the number of stored sums falls inversely."""
NOTHING = 1e-30
"""The smallest weight; smaller ones underflow in float32, and their gradients would overflow."""


class FeatureInput(NamedTuple):
    """Keys and values with their positions and padding."""

    key: Float[Tensor, "b h k d"]
    values: Float[Tensor, "b h k e"]
    """The values, each with an additional 1, so that one product gives numerator and denominator."""
    positions: Int[Tensor, "#b k"]
    valid: Bool[Tensor, "b k"] | None

    @classmethod
    def of(cls, key: Float[Tensor, "b h k d"], value: Float[Tensor, "b h k d"], mask: Mask) -> "FeatureInput":
        """Create from keys, values and their mask."""
        values = torch.cat((value, torch.ones_like(value[..., :1])), dim=-1)
        return cls(key, values, mask.key_positions, mask.key_padding)

    def at(self, tokens: slice) -> "FeatureInput":
        """Select some of the tokens."""
        return self._placed(tokens, self.key[:, :, tokens], self.values[:, :, tokens])

    def windows(self, wanted: Sequence[slice]) -> "list[FeatureInput]":
        """Cut into possibly overlapping windows at once, as each single slice's gradient would have the full length."""
        cuts = sorted({0, self.key.shape[2], *(cut for window in wanted for cut in (window.start, window.stop))})
        sizes = [stop - start for start, stop in pairwise(cuts)]
        keys, values = torch.split(self.key, sizes, dim=2), torch.split(self.values, sizes, dim=2)

        found = []
        for window in wanted:
            pieces = slice(cuts.index(window.start), cuts.index(window.stop))
            found.append(self._placed(window, _joined(keys, pieces), _joined(values, pieces)))
        return found

    def _placed(self, tokens: slice, key: Tensor, values: Tensor) -> "FeatureInput":
        valid = None if self.valid is None else self.valid[:, tokens]
        return FeatureInput(key, values, self.positions[:, tokens], valid)

    def for_each_row(self) -> "FeatureInput":
        """Expand positions and padding to every row of the batch."""
        shape = self.key.shape[0], self.key.shape[2]
        valid = torch.ones(shape, dtype=torch.bool, device=self.key.device) if self.valid is None else self.valid
        return self._replace(positions=self.positions.expand(shape), valid=valid)


class KeyFeatures(NamedTuple):
    """Scaled key features: phi(k) = features * exp(peak), where a key's largest feature is 1; padding has peak -inf."""

    features: Float[Tensor, "b h k m"]
    peak: Float[Tensor, "b h k 1"]
    values: Float[Tensor, "b h k e"]
    positions: Float[Tensor, "#b 1 k 1"]

    @classmethod
    def of(cls, tokens: FeatureInput, log_features: LogFeatures) -> "KeyFeatures":
        """Scale each key by itself: a shared scale would leak the future into the past."""
        log = log_features(tokens.key)
        peak = log.detach().amax(dim=-1, keepdim=True)
        features = (log - peak).exp()
        if tokens.valid is not None:
            valid = tokens.valid[:, None, :, None]
            features = features * valid
            peak = peak.masked_fill(~valid, float("-inf"))
        return cls(features, peak, tokens.values, tokens.positions[:, None, :, None].to(tokens.key.dtype))

    def first(self, count: int) -> "KeyFeatures":
        """Select the first keys."""
        return KeyFeatures(*(tensor[:, :, :count] for tensor in self))


class PrefixSums(NamedTuple):
    """Sums over keys: sum_j exp(slope (p_j - origin)) phi(k_j)^T [v_j, 1] = total * exp(scale)."""

    total: Float[Tensor, "#b #h #m #e"]
    scale: Float[Tensor, "#b #h 1 1"]
    origin: Float[Tensor, "#b 1 1 1"]
    """The last position added; distances from it stay small for any length."""


class PrefixSumState(State):
    """A decoding state of constant size: sums over past keys, and a window of the keys with individual bias values."""

    def __init__(self) -> None:
        self.sums: PrefixSums | None = None
        self.window: FeatureInput | None = None

    def window_and(self, new: FeatureInput) -> FeatureInput:
        """The tokens in the window and the new ones."""
        if self.window is None or self.window.key.shape[2] == 0:
            return new
        old, new = self.window.for_each_row(), new.for_each_row()
        assert old.valid is not None
        assert new.valid is not None
        return FeatureInput(
            torch.cat((old.key, new.key), dim=2),
            torch.cat((old.values, new.values), dim=2),
            torch.cat((old.positions, new.positions), dim=1),
            torch.cat((old.valid, new.valid), dim=1),
        )

    def keep(self, sums: PrefixSums | None, window: FeatureInput) -> None:
        """Store the new sums and a copy of the window: a view would keep its whole base tensor alive."""
        self.sums = sums
        self.window = FeatureInput(*(tensor.clone() for tensor in window.for_each_row() if tensor is not None))

    def reorder(self, indices: Int[Tensor, " batch"]) -> None:
        """Reorder rows: row i becomes what row `indices[i]` was."""
        if self.sums is not None:
            self.sums = PrefixSums(*(tensor.index_select(0, indices) for tensor in self.sums))
        if self.window is not None:
            self.window = FeatureInput(
                *(tensor.index_select(0, indices) for tensor in self.window if tensor is not None)
            )

    @property
    def bytes(self) -> int:
        """The memory in bytes."""
        held = [*(self.sums or ()), *(self.window or ())]
        return sum(tensor.numel() * tensor.element_size() for tensor in held if tensor is not None)


def _joined(pieces: tuple[Tensor, ...], some: slice) -> Tensor:
    return torch.cat(pieces[some] or (pieces[0][:, :, :0],), dim=2)


class _Tail(NamedTuple):
    """The tail of a bias, from distance `reach` on: b(distance) = offset - slope |distance|; zero without a bias."""

    reach: int
    slope: Float[Tensor, "#h 1 1"]
    before: Float[Tensor, "#h 1 1"]
    """The offset for keys before the query."""
    after: Float[Tensor, "#h 1 1"]

    @classmethod
    def of(cls, bias: TableBias | None, keys: int, like: Tensor) -> "_Tail":
        """The tail of a bias by its `slopes` or `reach`; without either, it starts after all `keys`."""
        zero = like.new_zeros(1, 1, 1)
        if bias is None:
            return cls(0, zero, zero, zero)
        if bias.slopes is not None:
            return cls(0, bias.slopes.to(like.dtype).view(-1, 1, 1), zero, zero)
        reach = bias.reach
        if reach is None:
            return cls(keys, zero, zero, zero)
        before, after = bias.table(torch.tensor([-reach, reach], device=like.device)).to(like.dtype).unbind(-1)
        return cls(reach, zero, before.view(-1, 1, 1), after.view(-1, 1, 1))


def prefix_sum_attention(
    log_features: LogFeatures,
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k d"],
    *,
    mask: Mask,
    bias: TableBias | None,
    state: PrefixSumState | None = None,
) -> Float[Tensor, "b h q d"]:
    """Random-feature attention: each query's weighted mean of the values; zeros for a query without allowed keys.

    If positions do not show that queries and keys are the same tokens, keys are attended to one by one: still exact, in
    time O(q k m).

    Args:
        log_features: log phi.
        query: the queries.
        key: the keys, finite at padding.
        value: the values, likewise.
        mask: positions and padding; whether causal.
        bias: b.
        state: the state of all earlier tokens, to which these are added; `mask` is then aligned and causal.
    """
    new = FeatureInput.of(key, value, mask)
    tokens, sums = (new, None) if state is None else (state.window_and(new), state.sums)
    keys, queries = tokens.key.shape[2], query.shape[2]
    tail = _Tail.of(bias, keys, query) if mask.aligned else _Tail(keys, *[query.new_zeros(1, 1, 1)] * 3)
    chunks = _chunks(queries)
    suffixes: list[PrefixSums | None] = [None] * len(chunks)
    if mask.aligned and not mask.causal and tail.reach < keys:
        suffixes = _suffix_sums(log_features, tokens, tail)

    of_chunk = partial(_attend_chunk, log_features, tail, mask.causal, bias, query)
    means = []
    ranges = _windows(keys - queries, keys, chunks, tail.reach, mask)
    windows = tokens.windows([window for window, _ in ranges])
    parts = zip(torch.split(query, CHUNK, dim=2), chunks, windows, ranges, suffixes, strict=True)
    for part, chunk, window, (_, leaving), suffix in parts:
        positions = mask.query_positions[:, chunk]
        mean, sums = _recomputed(of_chunk, part, positions, window, sums, suffix, leaving)
        means.append(mean)
    if state is not None:
        state.keep(sums, tokens.at(slice(max(0, keys - tail.reach), None)))
        state.length += queries
    return torch.cat(means, dim=2)


def _attend_chunk(
    log_features: LogFeatures,
    tail: _Tail,
    causal: bool,
    bias: TableBias | None,
    like: Tensor,
    chunk: Float[Tensor, "b h q d"],
    positions: Int[Tensor, "#b q"],
    window: FeatureInput,
    prefix: PrefixSums | None,
    suffix: PrefixSums | None,
    leaving: int,
) -> tuple[Tensor, PrefixSums | None]:
    """The weighted means of a chunk of queries, and the prefix with the keys that leave the window."""
    scaled = KeyFeatures.of(window, log_features)
    logits = _logits(positions, window.positions, causal, bias, like)
    position = positions[:, None, :, None].to(like.dtype)
    beyond = []
    if prefix is not None:
        beyond.append((prefix, tail.before - tail.slope * (position - prefix.origin)))
    if suffix is not None:
        beyond.append((suffix, tail.after - tail.slope * (-position - suffix.origin)))
    return _mean(log_features(chunk), scaled, logits, beyond), _add(prefix, scaled.first(leaving), tail.slope)


def _windows(offset: int, keys: int, chunks: list[slice], reach: int, mask: Mask) -> list[tuple[slice, int]]:
    """For each chunk of queries, the window of keys to read one by one, and how many of them no later chunk reads."""
    if not mask.aligned:
        return [(slice(0, keys), 0) for _ in chunks]
    found = []
    for chunk in chunks:
        low, end = max(0, offset + chunk.start - reach), offset + chunk.stop
        found.append((slice(low, end if mask.causal else min(keys, end + reach)), max(0, end - reach) - low))
    return found


def _suffix_sums(log_features: LogFeatures, tokens: FeatureInput, tail: _Tail) -> list[PrefixSums | None]:
    """For each chunk, the sums over the keys after its window; positions are mirrored."""
    keys = tokens.key.shape[2]

    cuts = [min(keys, chunk.stop + tail.reach) for chunk in _chunks(keys)]
    sums, found = None, list[PrefixSums | None]()
    for part in reversed(tokens.windows([slice(*cut) for cut in pairwise([*cuts, keys])])):
        sums = _recomputed(_add_mirrored, log_features, tail.slope, sums, part)
        found.append(sums)
    return found[::-1]


def _add_mirrored(
    log_features: LogFeatures, slope: Float[Tensor, "#h 1 1"], sums: PrefixSums | None, part: FeatureInput
) -> PrefixSums | None:
    return _add(sums, KeyFeatures.of(part._replace(positions=-part.positions), log_features), slope)


def _add(sums: PrefixSums | None, keys: KeyFeatures, slope: Float[Tensor, "#h 1 1"]) -> PrefixSums | None:
    """Add keys at later positions to the sums, which decay by the distance between."""
    if keys.features.shape[2] == 0:
        return sums
    if sums is None:
        nothing = keys.peak.new_zeros(1, 1, 1, 1)
        sums = PrefixSums(nothing, nothing - float("inf"), nothing)
    lowest = torch.finfo(keys.positions.dtype).min
    valid = keys.peak[:, :1] != float("-inf")  # b 1 k 1: padding is the same for all heads
    last = keys.positions.masked_fill(~valid, lowest).amax(dim=2, keepdim=True)
    origin = torch.where(valid.any(dim=2, keepdim=True), last, sums.origin)
    old = sums.scale - slope * (origin - sums.origin)
    new = keys.peak - slope * (origin - keys.positions).masked_fill(~valid, 0.0)
    scale = torch.maximum(old, new.amax(dim=2, keepdim=True)).detach()
    top = _finite(scale)
    values = keys.values * (new - top).exp()
    return PrefixSums((old - top).exp() * sums.total + keys.features.mT @ values, scale, origin)


def _mean(
    log_query: Float[Tensor, "b h q m"],
    window: KeyFeatures,
    logits: Float[Tensor, "#b #h #q #k"],
    beyond: list[tuple[PrefixSums, Float[Tensor, "#b #h #q 1"]]],
) -> Float[Tensor, "b h q d"]:
    """The weighted mean of values; zeros for a query without allowed keys.

    Args:
        log_query: log phi(q).
        window: the keys that are attended to one by one.
        logits: terms added to the logarithm of their weights; -inf where a query may not attend.
        beyond: sums over the other keys, and the logarithm of each query's weight for them.
    """
    query = (log_query - log_query.detach().amax(dim=-1, keepdim=True)).exp()
    logits = logits + window.peak.mT
    top = logits.detach().amax(dim=-1, keepdim=True)
    for sums, weight in beyond:
        top = torch.maximum(top, (weight + sums.scale).detach())
    top = _finite(top)
    mixed = ((query @ window.features.mT) * (logits - top).exp()) @ window.values
    for sums, weight in beyond:
        mixed = mixed + (query @ sums.total) * (weight + sums.scale - top).exp()
    count = mixed[..., -1:]
    return mixed[..., :-1] / count.masked_fill(count < NOTHING, 1.0)


def _logits(
    query: Int[Tensor, "#b q"], key: Int[Tensor, "#b k"], causal: bool, bias: TableBias | None, like: Tensor
) -> Float[Tensor, "#b #h #q #k"]:
    """The bias at these positions, -inf where a causal query may not attend."""
    if bias is None and not causal:
        return like.new_zeros(1, 1, 1, 1)
    distances = key[:, None, :] - query[:, :, None]
    logits = like.new_zeros(1, 1, 1, 1) if bias is None else bias.table(distances).transpose(0, 1).to(like.dtype)
    forbidden: Bool[Tensor, "#b 1 q k"] = (distances > 0).unsqueeze(1)
    return torch.where(forbidden, float("-inf"), logits) if causal else logits


def _finite(scale: Tensor) -> Tensor:
    """Replace the scale -inf of empty sums by 0: their product stays zero, where exp(-inf + inf) would be NaN."""
    return scale.detach().masked_fill(scale == float("-inf"), 0.0)


def _chunks(length: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK)]


def _recomputed(function: Callable[..., Result], *arguments: Any) -> Result:
    if not torch.is_grad_enabled():
        return function(*arguments)
    result: Result = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return result
