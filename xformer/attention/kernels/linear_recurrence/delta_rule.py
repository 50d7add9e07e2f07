r"""The gated delta rule: a state that decays, then replaces what it holds for a key instead of adding to it.

Yang et al. 2025, "Gated Delta Networks: Improving Mamba2 with Delta Rule", equation 10, here with S transposed:

    S_t = exp(g_t) (I - beta_t k_t k_t^T) S_(t-1) + beta_t k_t v_t^T,        o_t = S_t^T q_t

for keys of norm 1, 0 <= beta_t <= 1 and g_t <= 0, one of each per head and token. The state reads what it holds for
the key, S^T k_t, and moves it towards v_t by the share beta_t. In two forms:

    recurrent    token by token, as written
    chunked      by the WY representation (section 3.3): what training runs

Within a chunk that follows the state S, with b_i = exp(g_1 + ... + g_i), D_ij = exp(g_(j+1) + ... + g_i) for j <= i,
else 0, token j writes k_j u_j^T, where the u_j are what a triangular solve leaves of the values (the UT transform):

    (I + A) U = diag(beta) (V - diag(b) K S),     A = strictly lower triangle of diag(beta) (K K^T * D)
    O = diag(b) Q S + (Q K^T * D) U,              S' = b_c S + sum_j D_cj k_j u_j^T

The solve is linear in S, so it is done for all chunks at once, for diag(beta) V and for diag(beta b) K.

Chunked: time O(n (c^2 + c d + c e + d e)), memory O(n (c + d + e + d e / c)); a loop over the n / c chunks with two
matrix products each. State: d e numbers per head.

There is no parallel form without a solve of n equations.

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

Key = Float[Tensor, "b h n d"]
Value = Float[Tensor, "b h n e"]
OfToken = Float[Tensor, "b h n 1"]
Matrix = Float[Tensor, "b h d e"]


def recurrent_delta_rule(
    query: Key, key: Key, value: Value, beta: OfToken, log_decay: OfToken, state: Matrix | None = None
) -> tuple[Value, Matrix]:
    """The outputs and the last state, token by token.

    Args:
        query: q.
        key: k, of norm 1.
        value: v.
        beta: the share to replace; zero at padding.
        log_decay: g, at most 0; zero at padding.
        state: S before the first token; None for zeros.
    """
    matrix = _zeros(key, value) if state is None else state
    outputs = []
    for t in range(value.shape[2]):
        q, k, v, b, g = (x[:, :, t, None, :] for x in (query, key, value, beta, log_decay))
        matrix = g.exp() * matrix
        matrix = matrix + k.mT @ (b * (v - k @ matrix))
        outputs.append(q @ matrix)
    return torch.cat(outputs, dim=2), matrix


def chunked_delta_rule(
    query: Key,
    key: Key,
    value: Value,
    beta: OfToken,
    log_decay: OfToken,
    state: Matrix | None = None,
    *,
    chunk: int = CHUNK,
) -> tuple[Value, Matrix]:
    """`recurrent_delta_rule` in chunks of `chunk` tokens, a power of two."""
    q, k, v, b, g = in_chunks(chunk, query, key, value, beta, log_decay)
    between, reaches, remains = decay_between(g).squeeze(-1), decay_from_start(g), decay_to_end(g)
    # The diagonal is taken as 1 and nothing above it is read, so that A need not be cut out.
    solved = torch.linalg.solve_triangular(
        (b * k) @ k.mT * between, torch.cat((b * v, b * reaches * k), dim=-1), upper=False, unitriangular=True
    )
    free, of_state = solved.split((v.shape[-1], k.shape[-1]), dim=-1)  # U = free - of_state S
    late_key, decay = (k * remains).mT, reaches[..., -1:, :]
    matrix, before, written = _zeros(key, value) if state is None else state, [], []
    for i in range(v.shape[2]):
        before.append(matrix)
        written.append(free[:, :, i] - of_state[:, :, i] @ matrix)
        matrix = decay[:, :, i] * matrix + late_key[:, :, i] @ written[i]
    outputs = (q * reaches) @ torch.stack(before, dim=2) + (q @ k.mT * between) @ torch.stack(written, dim=2)
    return outputs.flatten(2, 3)[:, :, : value.shape[2]], matrix


def _zeros(key: Key, value: Value) -> Matrix:
    return value.new_zeros(*value.shape[:2], key.shape[-1], value.shape[-1])
