r"""Through a sequence query by query with the keys before and after it, those nearby one by one.

It goes in chunks, whose features are recomputed in the backward pass: what lives at any time is a chunk's features and,
per chunk, one sum.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from xformer.attention.performer_state import Tokens
from xformer.attention.performer_sums import Far, Keys, Sums, add, far_field, read, scaled_keys
from xformer.core.bias import TableBias
from xformer.core.mask import Mask

Features = Callable[[Tensor], Tensor]
Result = TypeVar("Result")

CHUNK = 128
"""Queries a sweep takes at once: the work within a chunk grows with its square, the sums kept fall with its inverse."""


def sweep(
    log_features: Features,
    query: Float[Tensor, "b h q d"],
    tokens: Tokens,
    mask: Mask,
    bias: TableBias | None,
    sums: Sums | None = None,
) -> tuple[Float[Tensor, "b h q d"], Sums | None, int]:
    """Each query's mean over the keys it may read, weighted by exp(bias) phi(q_i) . phi(k_j).

    Keys nearer than the bias is curved are read one by one, those further by their sums. Where positions do not say
    that queries and the last keys are the same tokens, all keys are near: still exact, in time O(q k m).

    Args:
        log_features: log phi.
        query: of the last tokens of `tokens`, where `mask` is aligned; `tokens` may begin with keys alone.
        tokens: the keys and values.
        mask: the queries' positions; whether causal.
        bias: what is added to the logarithm of the weights.
        sums: over the keys before `tokens`.

    Returns:
        The means, the sums over all keys that a later query no longer needs one by one, and how many it does.
    """
    keys, queries = tokens.key.shape[2], query.shape[2]
    far = far_field(bias, keys, query) if mask.aligned else Far(keys, *[query.new_zeros(1, 1, 1)] * 3)
    offset, chunks = keys - queries, _chunks(queries, CHUNK)
    after: list[Sums | None] = [None] * len(chunks)
    if mask.aligned and not mask.causal and far.reach < keys:
        after = _suffix_sums(log_features, tokens, far)

    def piece(
        part: Tensor, positions: Tensor, near: Tokens, before: Sums | None, behind: Sums | None, leaving: int
    ) -> tuple[Tensor, Sums | None]:
        scaled = _scaled(log_features, near)
        logits = _logits(positions, near.positions, mask.causal, bias, query)
        place = positions[:, None, :, None].to(query.dtype)
        beyond = []
        if before is not None:
            beyond.append((before, far.before - far.slope * (place - before.origin)))
        if behind is not None:
            beyond.append((behind, far.after - far.slope * (-place - behind.origin)))
        return read(log_features(part), scaled, logits, beyond), add(before, scaled.part(slice(leaving)), far.slope)

    means = []
    windows = _windows(offset, keys, chunks, far.reach, mask)
    near = tokens.parts([window for window, _ in windows])
    parts = zip(torch.split(query, CHUNK, dim=2), chunks, near, windows, after, strict=True)
    for part, chunk, some, (_, leaving), behind in parts:
        mean, sums = _recomputed(piece, part, mask.query_positions[:, chunk], some, sums, behind, leaving)
        means.append(mean)
    return torch.cat(means, dim=2), sums, far.reach


def _windows(offset: int, keys: int, chunks: list[slice], reach: int, mask: Mask) -> list[tuple[slice, int]]:
    """For each chunk of queries, the keys to read one by one, and how many of them no later chunk will."""
    if not mask.aligned:
        return [(slice(0, keys), 0) for _ in chunks]
    found = []
    for chunk in chunks:
        low, end = max(0, offset + chunk.start - reach), offset + chunk.stop
        found.append((slice(low, end if mask.causal else min(keys, end + reach)), max(0, end - reach) - low))
    return found


def _suffix_sums(log_features: Features, tokens: Tokens, far: Far) -> list[Sums | None]:
    """For each chunk, the sums over the keys beyond its reach on the right; positions are mirrored."""
    keys = tokens.key.shape[2]

    def take(sums: Sums | None, part: Tokens) -> Sums | None:
        return add(sums, _scaled(log_features, part._replace(positions=-part.positions)), far.slope)

    cuts = [min(keys, chunk.stop + far.reach) for chunk in _chunks(keys, CHUNK)]
    sums, found = None, list[Sums | None]()
    for part in reversed(tokens.parts([slice(*cut) for cut in pairwise([*cuts, keys])])):
        sums = _recomputed(take, sums, part)
        found.append(sums)
    return found[::-1]


def _scaled(log_features: Features, tokens: Tokens) -> Keys:
    real = None if tokens.real is None else tokens.real[:, None, :, None]
    positions = tokens.positions[:, None, :, None].to(tokens.key.dtype)
    return scaled_keys(log_features(tokens.key), tokens.values, positions, real)


def _logits(
    query: Int[Tensor, "#b q"], key: Int[Tensor, "#b k"], causal: bool, bias: TableBias | None, like: Tensor
) -> Float[Tensor, "#b #h #q #k"]:
    """The bias at these positions, -inf where a causal query may not read."""
    if bias is None and not causal:
        return like.new_zeros(1, 1, 1, 1)
    distances = key[:, None, :] - query[:, :, None]
    logits = like.new_zeros(1, 1, 1, 1) if bias is None else bias.table(distances).transpose(0, 1).to(like.dtype)
    forbidden: Bool[Tensor, "#b 1 q k"] = (distances > 0).unsqueeze(1)
    return torch.where(forbidden, float("-inf"), logits) if causal else logits


def _chunks(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _recomputed(function: Callable[..., Result], *arguments: Any) -> Result:
    if not torch.is_grad_enabled():
        return function(*arguments)
    result: Result = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return result
