r"""Gated DeltaNet: a linear recurrence with decay whose state replaces the value of a key instead of adding to it.

Yang et al. 2025, "Gated Delta Networks: Improving Mamba2 with Delta Rule", equation 10 and section 3.4:

    q, k = L2(silu(conv(x W_Q))) / sqrt(d), L2(silu(conv(x W_K))),     v = silu(conv(x W_V))
    alpha_t = exp(-exp(A_log) softplus(x_t W_a + dt_bias)),            beta_t = sigmoid(x_t W_b)
    S_t = alpha_t (I - beta_t k_t k_t^T) S_(t-1) + beta_t k_t v_t^T,   o_t = S_t^T q_t
    out = (RMSNorm(o) * silu(x W_G)) W_O                               one norm for every head

S is the paper's transposed; alpha and beta are numbers of each head and token, L2 divides by the norm (1e-6 is added to
its square), conv is causal, feature by feature, over `convolution` tokens. Chunked by the WY representation
(`delta_rule.py`), chunks of c = 64 tokens: one triangular solve of c equations for each, then the state goes from one
to the next. Time O(n (c^2 + c d + c e + d e)) and memory O(n (c + d + e + d e / c)) for each head, with d features of a
key and e = `expand_value` d of a value. Decoding holds d e numbers per head and the `convolution` - 1 last tokens,
whatever the context.

Deviations: keys and queries have the features of all heads together that attention has, where the authors' models have
3/4 of d_model; queries are divided by sqrt(d), which the norm undoes, as in the authors' code; the initial values of
projections, and dropout, are those of all variants here. Those of A_log, dt_bias and conv are the paper's: exp(A_log)
from U(0, 16), no less than 0.01, dt log-uniform in [0.001, 0.1].

Parameters: (2 + 3 r) d_model^2 + (2 + w (2 + r) / h) h d_model and some vectors, for r = `expand_value`, w =
`convolution` and h heads, so about 8 d_model^2 with the paper's r = 2, where attention has 4 d_model^2 + 4 d_model;
`match=` makes budgets equal. No vector is decayed by the optimiser, A_log and dt_bias among them.

Not supported: anything but causal self-attention, biases, rotation; `reasons` says why.
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from xformer.attention.base import AttentionContext
from xformer.attention.kernels.linear_recurrence.convolution import ShortConvolution
from xformer.attention.kernels.linear_recurrence.dispatch import Implementation, check_installed, delta_rule
from xformer.attention.kernels.linear_recurrence.heads import blank_padding, merge_heads, split_heads
from xformer.attention.kernels.linear_recurrence.state import RecurrentState
from xformer.attention.kernels.linear_recurrence.time_step import draw_rate, draw_time_step, time_step
from xformer.attention.mixer import TokenMixer
from xformer.core.capability import Capability
from xformer.core.linear import Linear
from xformer.core.mask import Mask
from xformer.core.precision import at_least_float32, without_autocast
from xformer.core.state import State
from xformer.position.base import Position

_NO_SCORES = "its state sums what it has read before any query comes, so there is no score of a pair to add to."


class GatedDeltaNet(TokenMixer):
    """Gated DeltaNet: each token replaces the state's value for its key, and gates how much of the rest decays.

    Args:
        context: the layer's dimensions and role.
        expand_value: features of a value, as a multiple of a key's.
        convolution: the width of the short convolutions, including the token itself.
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
        Capability.ROTARY: (
            "its queries and keys are made inside it, behind a convolution, and the paper does not rotate them: "
            "convolution and decay tell it the order of tokens."
        ),
    }

    def __init__(
        self,
        context: AttentionContext,
        *,
        expand_value: Annotated[int, Ge(1)],
        convolution: Annotated[int, Ge(1)],
        kernel: Implementation,
    ) -> None:
        super().__init__(context)
        check_installed(kernel, context.path)
        self.kernel: Implementation = kernel
        keys, values = context.heads * context.head_dim, context.heads * context.head_dim * expand_value
        self.widths = [keys, keys, values]
        self.query = Linear(context.d_model, keys, bias=False)
        self.key = Linear(context.d_model, keys, bias=False)
        self.value = Linear(context.d_model, values, bias=False)
        self.convolve = ShortConvolution(sum(self.widths), convolution)
        self.step = Linear(context.d_model, context.heads, bias=False)
        self.write = Linear(context.d_model, context.heads, bias=False)
        self.gate = Linear(context.d_model, values, bias=False)
        self.norm = nn.RMSNorm(values // context.heads, eps=1e-5)
        self.dropout = nn.Dropout(context.dropout)
        self.output = Linear(values, context.d_model, bias=False, gain=context.gain)
        self.log_rate = nn.Parameter(torch.empty(context.heads))
        self.step_bias = nn.Parameter(torch.empty(context.heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the rates and time steps, A_log and dt_bias in the paper; the parts set their own parameters."""
        draw_rate(self.log_rate, 0.01, 16.0)
        draw_time_step(self.step_bias, 1e-3, 0.1)

    def forward(
        self,
        x: Float[Tensor, "b n d_model"],
        *,
        mask: Mask,
        position: Position | None,
        layer: int,
        state: State | None,
    ) -> Float[Tensor, "b n d_model"]:
        """(RMSNorm(o) * silu(x W_G)) W_O."""
        assert state is None or isinstance(state, RecurrentState)
        x, valid, heads = blank_padding(x, mask), mask.key_padding, self.context.heads
        projected = torch.cat([project(x) for project in (self.query, self.key, self.value)], dim=-1)
        step, write, gate = self.step(x), self.write(x), self.gate(x)
        with without_autocast(x.device):
            convolved, past = self.convolve(projected, valid, None if state is None else state.past)
            query, key, value = (split_heads(one, heads) for one in torch.split(silu(convolved), self.widths, dim=-1))
            log_decay = -at_least_float32(self.log_rate).exp()[:, None, None] * time_step(step, self.step_bias, valid)
            beta = at_least_float32(write).sigmoid()
            beta = beta if valid is None else beta.masked_fill(~valid[..., None], 0.0)
            mixed, matrix = delta_rule(
                _normalised(query) * self.context.head_dim**-0.5,
                _normalised(key),
                value,
                beta.mT[..., None],
                log_decay,
                None if state is None else state.matrix,
                kernel=self.kernel,
                path=self.context.path,
                dtype=gate.dtype,
            )
            if state is not None:
                state.keep(matrix, past, x.shape[1])
            normed = rms_norm(mixed, mixed.shape[-1:], at_least_float32(self.norm.weight), self.norm.eps)
            gated = merge_heads(normed) * silu(at_least_float32(gate))
        merged: Tensor = self.output(self.dropout(gated.to(gate.dtype)))
        return merged

    def init_state(self, max_length: int) -> RecurrentState:
        """An empty decoding state, for any number of tokens."""
        return RecurrentState()


def _normalised(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
    """Normalise to norm 1; zeros stay zeros."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
