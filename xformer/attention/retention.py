r"""Retention: linear attention whose heads decay at fixed rates.

Sun et al. 2023, "Retentive Network: A Successor to Transformer for Large Language Models", equations 5 to 8:

    Q = R(x W_Q),  K = R(x W_K) / sqrt(d),  V = x W_V                      R rotates by positions (`rotary.py`)
    S_t = gamma_h S_(t-1) + k_t v_t^T,      o_t = S_t^T q_t,               gamma_h = 1 - 2^(-5 - h),  h = 0, 1, ...
    out = (swish(x W_G) * GroupNorm(o)) W_O                                a group for each head

Parallel, O = (Q K^T * D) V with D_ij = gamma^(i - j) for j <= i; chunked (`linear_attention.py`), chunks of c = 64
tokens are parallel and the state goes from one to the next. Time O(n d (c + e)) and memory O(n (c + d + e + d e / c))
for each head, with d features of a key and e = `expand_value` d of a value. Decoding holds d e numbers per head,
whatever the context.

The rotation is the paper's xPos without its scale: gamma is in the place of the scale, one for all features of a head.
The last of an odd number of features is not rotated.
Its angles are the project's rotary ones, base 10000; the authors' code spaces them over d / 2 - 1 instead of d / 2.

Deviations: the divisions of section 2.1 by the sum of D's row and by the row's absolute sum of scores are left out, as
the norm of each head's output makes up for them; initial values and dropout are those of all variants here. There are
no biases, as in the authors' code.

Parameters: (2 + 3 r) d_model^2 + 2 r d_model for r = `expand_value`, so 8 d_model^2 with the paper's 2, where attention
has 4 d_model^2 + 4 d_model; the paper has a smaller feed-forward in return. `match=` makes budgets equal.

Not supported: anything but causal self-attention, biases, another rotation; `reasons` says why.
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import group_norm, silu

from xformer.attention.base import AttentionContext
from xformer.attention.kernels.linear_recurrence.dispatch import Implementation, check_installed, linear_attention
from xformer.attention.kernels.linear_recurrence.heads import blank_padding, merge_heads, split_heads
from xformer.attention.kernels.linear_recurrence.magnitude import limit_magnitude
from xformer.attention.kernels.linear_recurrence.state import RecurrentState
from xformer.attention.mixer import TokenMixer
from xformer.core.capability import Capability
from xformer.core.linear import Linear
from xformer.core.mask import Mask
from xformer.core.precision import at_least_float32, without_autocast
from xformer.core.state import State
from xformer.position.base import Position, PositionContext
from xformer.position.rotary import Rotary

_NO_SCORES = "its state sums what it has read before any query comes, so there is no score of a pair to add to."


class Retention(TokenMixer):
    """Multi-scale retention: every head decays at its own fixed rate.

    Args:
        context: the layer's dimensions and role.
        expand_value: features of a value, as a multiple of a key's.
        kernel: `torch`, or `fla` for flash-linear-attention's kernel on CUDA.

    Raises:
        ConfigError: `kernel` is not installed.
    """

    provides: ClassVar[Capability] = (
        Capability.CAUSAL | Capability.PADDING | Capability.INCREMENTAL | Capability.VARIABLE_LENGTH
    )
    reasons: ClassVar[dict[Capability, str]] = {
        Capability.BIDIRECTIONAL: "its state holds what came before, and a token that comes later is not in it yet.",
        Capability.CROSS: "what came before decays with every token of its sequence; another has no order with it.",
        Capability.BIAS: _NO_SCORES,
        Capability.CONTENT_BIAS: _NO_SCORES,
        Capability.ROTARY: "it rotates queries and keys by itself, as the paper does, and twice is another angle.",
    }

    def __init__(
        self, context: AttentionContext, *, expand_value: Annotated[int, Ge(1)], kernel: Implementation
    ) -> None:
        super().__init__(context)
        check_installed(kernel, context.path)
        self.kernel: Implementation = kernel
        keys, values = context.heads * context.head_dim, context.heads * context.head_dim * expand_value
        self.query = Linear(context.d_model, keys, bias=False)
        self.key = Linear(context.d_model, keys, bias=False)
        self.value = Linear(context.d_model, values, bias=False)
        self.gate = Linear(context.d_model, values, bias=False)
        self.norm = nn.GroupNorm(context.heads, values)
        self.dropout = nn.Dropout(context.dropout)
        self.output = Linear(values, context.d_model, bias=False, gain=context.gain)
        pairs = context.head_dim // 2
        position_context = PositionContext(
            context.d_model, context.heads, 2 * pairs, 1, context.max_key, context.causal
        )
        self.rotary = Rotary(position_context, base=10000.0, fraction=1.0) if pairs else Position(position_context)

    def forward(
        self,
        x: Float[Tensor, "b n d_model"],
        *,
        mask: Mask,
        position: Position | None,
        layer: int,
        state: State | None,
    ) -> Float[Tensor, "b n d_model"]:
        """(swish(x W_G) * GroupNorm(retained)) W_O."""
        x = blank_padding(x, mask)
        query, key, value = (
            split_heads(project(x), self.context.heads) for project in (self.query, self.key, self.value)
        )
        gate = self.gate(x)
        with without_autocast(x.device):
            q, k = (self.rotary.rotate(at_least_float32(each), mask.query_positions) for each in (query, key))
            k = k * self.context.head_dim**-0.5
            retained = self._retain(q, k, value, mask, state)
            norm = self.norm
            normed = group_norm(
                merge_heads(limit_magnitude(retained)).flatten(0, 1),
                norm.num_groups,
                at_least_float32(norm.weight),
                at_least_float32(norm.bias),
                norm.eps,
            )
            gated = silu(at_least_float32(gate)) * normed.view(gate.shape)
        merged: Tensor = self.output(self.dropout(gated.to(gate.dtype)))
        return merged

    def _retain(
        self,
        query: Float[Tensor, "b h n d"],
        key: Float[Tensor, "b h n d"],
        value: Float[Tensor, "b h n e"],
        mask: Mask,
        state: State | None,
    ) -> Float[Tensor, "b h n e"]:
        head = torch.arange(self.context.heads, dtype=query.dtype, device=query.device)
        log_decay = torch.log1p(-(2 ** (-5 - head)))[:, None, None].expand(1, -1, query.shape[2], 1)
        if mask.key_padding is not None:
            log_decay = log_decay.masked_fill(~mask.key_padding[:, None, :, None], 0.0)  # b h n 1
        assert state is None or isinstance(state, RecurrentState)
        before = None if state is None else state.matrix
        retained, matrix = linear_attention(
            query, key, value, log_decay, before, kernel=self.kernel, path=self.context.path, dtype=value.dtype
        )
        if state is not None:
            state.keep(matrix, None, query.shape[2])
        return retained

    def init_state(self, max_length: int) -> RecurrentState:
        """An empty decoding state, for any number of tokens."""
        return RecurrentState()
