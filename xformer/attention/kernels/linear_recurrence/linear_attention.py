r"""Linear attention with decay: a state for each head that decays and takes in one outer product per token.

    S_t = diag(exp(g_t)) S_(t-1) + k_t v_t^T,        o_t = S_t^T q_t

g_t <= 0 is one number for each head and token (retention; Mamba-2, whose state-space duality this is) or one for each
feature of the key (gated linear attention). The same in three forms:

    recurrent    token by token, as written
    parallel     O = (Q K^T * D) V,   D_ij = exp(g_(j+1) + ... + g_i) for j <= i, else 0
    chunked      parallel within chunks of c tokens, with the state at the beginning of each: what training runs

With a decay for each feature, D is a matrix for each feature too. Within a chunk, halves are taken apart until they
have 4 tokens: a query in the second half reads the keys of the first through the boundary between them,

    (q_i * exp(g_(m+1) + ... + g_i)) . (k_j * exp(g_(j+1) + ... + g_m)),     j <= m < i

with both exponents at most 0, so that nothing overflows, whatever the gates; the paper divides by products of gates
between its secondary chunks, and within them computes pair by pair.

Chunked: time O(n d (c + e)), memory O(n (c + d + e + d e / c)), with a loop over the n / c chunks that adds states;
with a decay for each feature log2(c) matrix products instead of one. State: d e numbers per head.

Keys and queries that all heads share have one head (Mamba-2), and a decay that all rows share one row (retention).

Shapes: b rows, h heads, n tokens, d features of keys, e of values, c tokens of a chunk.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from xformer.attention.kernels.linear_recurrence.segments import (
    decay_between,
    decay_from_start,
    decay_to_end,
    in_chunks,
)

CHUNK = 64
_WRITTEN_OUT = 4
"""The number of tokens whose decays per pair and feature are materialised."""

Query = Float[Tensor, "b #h n d"]
Value = Float[Tensor, "b h n e"]
LogDecay = Float[Tensor, "#b h n #d"]
Matrix = Float[Tensor, "b h d e"]


def recurrent_linear_attention(
    query: Query, key: Query, value: Value, log_decay: LogDecay, state: Matrix | None = None
) -> tuple[Value, Matrix]:
    """The outputs and the last state, token by token.

    Args:
        query: q.
        key: k; zero at padding.
        value: v.
        log_decay: g, at most 0; zero at padding.
        state: S before the first token; None for zeros.
    """
    matrix = _zeros(query, value) if state is None else state
    outputs = []
    for t in range(value.shape[2]):
        q, k, v, g = (x[:, :, t, :] for x in (query, key, value, log_decay))
        matrix = g.exp()[..., None] * matrix + k[..., None] * v[..., None, :]
        outputs.append((q[..., None, :] @ matrix).squeeze(-2))
    return torch.stack(outputs, dim=2), matrix


def parallel_linear_attention(query: Query, key: Query, value: Value, log_decay: LogDecay) -> Value:
    """The outputs of a sequence without a state before it, with a weight for each pair of tokens: O(n^2)."""
    length = value.shape[2]
    power = 1 << (length - 1).bit_length()
    q, k, v, g = in_chunks(power, query, key, value, log_decay)
    return _within(q, k, v, g).flatten(2, 3)[:, :, :length]


def chunked_linear_attention(
    query: Query, key: Query, value: Value, log_decay: LogDecay, state: Matrix | None = None, *, chunk: int = CHUNK
) -> tuple[Value, Matrix]:
    """`recurrent_linear_attention` in chunks of `chunk` tokens, a power of two."""
    q, k, v, g = in_chunks(chunk, query, key, value, log_decay)
    one_for_all = g.shape[-1] == 1  # then the values decay, and keys that heads share stay so
    remains, reaches = decay_to_end(g), decay_from_start(g)
    late_key, late_value = (k, v * remains) if one_for_all else (k * remains, v)
    written = torch.einsum("bhncd,bhnce->bhnde", late_key, late_value)
    before, last = _states(reaches[..., -1:, :].mT, written, _zeros(query, value) if state is None else state)
    early_query = q if one_for_all else q * reaches
    read = torch.einsum("bhncd,bhnde->bhnce", early_query, before)
    outputs = _within(q, k, v, g) + (read * reaches if one_for_all else read)
    return outputs.flatten(2, 3)[:, :, : value.shape[2]], last


def _states(
    decay: Float[Tensor, "#b h chunks #d 1"], written: Float[Tensor, "b h chunks d e"], state: Matrix
) -> tuple[Float[Tensor, "b h chunks d e"], Matrix]:
    """S before each chunk, and after the last."""
    before = []
    for i in range(written.shape[2]):
        before.append(state)
        state = decay[:, :, i] * state + written[:, :, i]
    return torch.stack(before, dim=2), state


def _within(
    q: Float[Tensor, "b #h chunks c d"],
    k: Float[Tensor, "b #h chunks c d"],
    v: Float[Tensor, "b h chunks c e"],
    g: Float[Tensor, "#b h chunks c #d"],
) -> Float[Tensor, "b h chunks c e"]:
    """(Q K^T * D) V of each chunk."""
    if g.shape[-1] == 1:
        weights = (q @ k.mT) * decay_between(g).squeeze(-1)
        return weights @ v
    return _halves(q, k, v, g)


def _halves(
    q: Float[Tensor, "*batch c d"],
    k: Float[Tensor, "*batch c d"],
    v: Float[Tensor, "*batch c e"],
    g: Float[Tensor, "*batch c d"],
) -> Float[Tensor, "*batch c e"]:
    """(Q K^T * D) V with a D for each feature: each half by itself, then the second's queries and the first's keys."""
    length = v.shape[-2]
    if length <= _WRITTEN_OUT:
        weights = (q[..., :, None, :] * k[..., None, :, :] * decay_between(g)).sum(-1)
        return weights @ v
    q, k, v, g = (x.reshape(*x.shape[:-2], 2, length // 2, x.shape[-1]) for x in (q, k, v, g))
    outputs = _halves(q, k, v, g)
    first, second = (..., 0, slice(None), slice(None)), (..., 1, slice(None), slice(None))
    late = (q[second] * decay_from_start(g[second])) @ (k[first] * decay_to_end(g[first])).mT @ v[first]
    return torch.stack((outputs[first], outputs[second] + late), dim=-3).flatten(-3, -2)


def _zeros(query: Query, value: Value) -> Matrix:
    return value.new_zeros(*value.shape[:2], query.shape[-1], value.shape[-1])
