r"""Gated linear attention: linear attention whose state decays per key feature, at a rate that depends on the token.

Yang et al. 2024, "Gated Linear Attention Transformers with Hardware-Efficient Training", section 4.4:

    q_t = x_t W_Q / sqrt(d),  k_t = x_t W_K,  v_t = x_t W_V,     alpha_t = sigmoid(x_t W_1 W_2 + b)^(1 / tau)
    S_t = diag(alpha_t) S_(t-1) + k_t v_t^T,                     o_t = S_t^T q_t
    out = (swish(x W_r + b_r) * LayerNorm(o)) W_O                each head's output by itself

W_1 W_2 has rank 16, and tau is 16, so that gates begin near 1. Parallel, the weight of token j for token i is
sum_d q_id k_jd prod_(j < t <= i) alpha_td; chunked (`linear_attention.py`), chunks of 64 tokens are taken apart into
halves, such that no product of gates is divided by, and the state goes from one to the next. Time O(n d (c + e)) and
memory O(n (c + d log c + e + d e / c)) for each head, with d = `expand_key` and e = `expand_value` times the features
of a head. Decoding holds d e numbers per head, whatever the context.

Deviations: queries are divided by sqrt(d), which the norm undoes, as in the authors' code; initial values and dropout
are those of all variants here. The authors' code has an RMS norm in the place of the layer norm, and no b_r.

Parameters: (2 s + 3 r) d_model^2 + rank (1 + s) d_model and some vectors, for s = `expand_key`, r = `expand_value`, so
4 d_model^2 + 24 d_model with the paper's 1/2, 1 and 16; attention has 4 d_model^2 + 4 d_model.

Not supported: anything but causal self-attention, biases, rotation; `reasons` says why.
"""

from typing import Annotated, ClassVar

from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import group_norm, logsigmoid, silu

from xformer.attention.base import AttentionContext
from xformer.attention.kernels.linear_recurrence.dispatch import Implementation, check_installed, linear_attention
from xformer.attention.kernels.linear_recurrence.heads import blank_padding, merge_heads, scaled_head_dim, split_heads
from xformer.attention.kernels.linear_recurrence.magnitude import limit_magnitude
from xformer.attention.kernels.linear_recurrence.state import RecurrentState
from xformer.attention.mixer import TokenMixer
from xformer.core.capability import Capability
from xformer.core.linear import Linear
from xformer.core.mask import Mask
from xformer.core.precision import at_least_float32, without_autocast
from xformer.core.state import State
from xformer.position.base import Position

_NO_SCORES = "its state sums what it has read before any query comes, so there is no score of a pair to add to."


class GLA(TokenMixer):
    """Gated linear attention: every key feature decays at a rate that depends on the token.

    Args:
        context: the layer's dimensions and role.
        expand_key: features of a query or key, as a multiple of those of a head.
        expand_value: features of a value, likewise.
        rank: the rank of the projection of the gates.
        temperature: tau; larger values forget more slowly.
        kernel: `torch`, or `fla` for flash-linear-attention's kernel on CUDA.

    Raises:
        ConfigError: the number of features of keys or values is not whole, or `kernel` is not installed.
    """

    provides: ClassVar[Capability] = (
        Capability.CAUSAL | Capability.PADDING | Capability.INCREMENTAL | Capability.VARIABLE_LENGTH
    )
    reasons: ClassVar[dict[Capability, str]] = {
        Capability.BIDIRECTIONAL: "its state holds what came before, and a token that comes later is not in it yet.",
        Capability.CROSS: "what came before decays with every token of its sequence; another has no order with it.",
        Capability.BIAS: _NO_SCORES,
        Capability.CONTENT_BIAS: _NO_SCORES,
        Capability.ROTARY: (
            "its gates decay each feature by itself, and a rotation mixes features: the product of the two is no "
            "function of the distance."
        ),
    }

    def __init__(
        self,
        context: AttentionContext,
        *,
        expand_key: Annotated[float, Gt(0)],
        expand_value: Annotated[float, Gt(0)],
        rank: Annotated[int, Ge(1)],
        temperature: Annotated[float, Gt(0)],
        kernel: Implementation,
    ) -> None:
        super().__init__(context)
        check_installed(kernel, context.path)
        self.kernel: Implementation = kernel
        self.temperature = temperature
        self.key_dim = scaled_head_dim(context.head_dim, f"{context.path}.expand_key", expand_key)
        keys = context.heads * self.key_dim
        values = context.heads * scaled_head_dim(context.head_dim, f"{context.path}.expand_value", expand_value)
        self.query = Linear(context.d_model, keys, bias=False)
        self.key = Linear(context.d_model, keys, bias=False)
        self.value = Linear(context.d_model, values, bias=False)
        self.forget_down = Linear(context.d_model, rank, bias=False)
        self.forget_up = Linear(rank, keys)
        self.gate = Linear(context.d_model, values)
        self.norm = nn.GroupNorm(context.heads, values)
        self.dropout = nn.Dropout(context.dropout)
        self.output = Linear(values, context.d_model, bias=False, gain=context.gain)

    def forward(
        self,
        x: Float[Tensor, "b n d_model"],
        *,
        mask: Mask,
        position: Position | None,
        layer: int,
        state: State | None,
    ) -> Float[Tensor, "b n d_model"]:
        """(swish(x W_r + b_r) * LayerNorm(o)) W_O."""
        assert state is None or isinstance(state, RecurrentState)
        x, heads = blank_padding(x, mask), self.context.heads
        query, key, value = (split_heads(project(x), heads) for project in (self.query, self.key, self.value))
        forget, gate = split_heads(self.forget_up(self.forget_down(x)), heads), self.gate(x)
        with without_autocast(x.device):
            log_decay = logsigmoid(at_least_float32(forget)) / self.temperature  # b h n d
            if mask.key_padding is not None:
                log_decay = log_decay.masked_fill(~mask.key_padding[:, None, :, None], 0.0)
            mixed, matrix = linear_attention(
                at_least_float32(query) * self.key_dim**-0.5,
                at_least_float32(key),
                at_least_float32(value),
                log_decay,
                None if state is None else state.matrix,
                kernel=self.kernel,
                path=self.context.path,
                dtype=value.dtype,
            )
            if state is not None:
                state.keep(matrix, None, x.shape[1])
            norm, flat = self.norm, merge_heads(limit_magnitude(mixed)).flatten(0, 1)  # (b n) (h e)
            normed = group_norm(
                flat, norm.num_groups, at_least_float32(norm.weight), at_least_float32(norm.bias), norm.eps
            )
            gated = silu(at_least_float32(gate)) * normed.view(gate.shape)
        merged: Tensor = self.output(self.dropout(gated.to(gate.dtype)))
        return merged

    def init_state(self, max_length: int) -> RecurrentState:
        """An empty decoding state, for any number of tokens."""
        return RecurrentState()
