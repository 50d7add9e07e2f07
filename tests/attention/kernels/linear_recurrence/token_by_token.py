"""The recurrences of the papers, written out in float64: rows, heads and tokens one by one, sums of outer products."""

import torch
from torch import Tensor


def linear_attention(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor | None = None) -> Tensor:
    """S_t = diag(decay_t) S_(t-1) + k_t v_t^T, o_t = S_t^T q_t; the decay itself, not its logarithm."""
    rows, heads, tokens, features = v.shape
    out = torch.zeros(rows, heads, tokens, features, dtype=torch.float64)
    for b in range(rows):
        for h in range(heads):
            s = torch.zeros(q.shape[-1], features, dtype=torch.float64) if state is None else state[b, h].clone()
            for t in range(tokens):
                s = torch.diag(decay[b, h, t].expand(q.shape[-1])) @ s + torch.outer(k[b, h, t], v[b, h, t])
                out[b, h, t] = s.T @ q[b, h, t]
    return out


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, alpha: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """S_t = S_(t-1) (alpha_t (I - beta_t k_t k_t^T)) + beta_t v_t k_t^T, o_t = S_t q_t: S is e x d, as in the paper."""
    rows, heads, tokens, features = v.shape
    out = torch.zeros(rows, heads, tokens, features, dtype=torch.float64)
    last = torch.zeros(rows, heads, features, q.shape[-1], dtype=torch.float64)
    for b in range(rows):
        for h in range(heads):
            s = torch.zeros(features, q.shape[-1], dtype=torch.float64) if state is None else state[b, h].T.clone()
            for t in range(tokens):
                key, identity = k[b, h, t], torch.eye(q.shape[-1], dtype=torch.float64)
                s = s @ (alpha[b, h, t] * (identity - beta[b, h, t] * torch.outer(key, key)))
                s = s + beta[b, h, t] * torch.outer(v[b, h, t], key)
                out[b, h, t] = s @ q[b, h, t]
            last[b, h] = s
    return out, last
