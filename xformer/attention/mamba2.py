r"""Mamba-2: a selective state-space model whose heads each decay by one number per token.

Dao & Gu 2024, "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space
Duality", sections 5 to 7:

    z, x', B', C', dt' = x W_in,       u, B, C = silu(conv(x', B', C')),      dt = softplus(dt' + dt_bias)
    S_t = exp(-exp(A_log) dt_t) S_(t-1) + B_t (dt_t u_t)^T,                  y_t = S_t^T C_t + D u_t
    out = RMSNorm(y * silu(z)) W_out

A = -exp(A_log), D and dt are one number per head; B and C, the keys and queries of linear attention, have `state_size`
features and are the same for all heads of one of the `groups`, so that heads differ in u, A, D and dt; conv is causal,
feature by feature, over `convolution` tokens, with a bias; the norm has a group of features for each group of heads.
There are r = `expand` times the heads that attention has, of as many features p. Parallel, Y = (C B^T * L) (dt U) with
L_ij = exp(A (dt_(j+1) + ... + dt_i)); chunked (`linear_attention.py`), which is the paper's SSD algorithm, chunks of
c = 64 tokens are parallel and the state goes from one to the next. Time O(n N (c + p)) and memory O(n (c + N + p +
N p / c)) for each head and N = `state_size`. Decoding holds N p numbers per head and the `convolution` - 1 last tokens,
whatever the context.

Deviations: heads have the size that the model's have (64 in the paper); chunks have 64 tokens (256), which changes no
result; W_in and W_out begin as all projections here do (W_in with sqrt(3) times the deviation of the authors' code);
dropout as for all variants. A_log, dt_bias, D and conv begin as in the paper: exp(A_log) from U(1, 16), dt log-uniform
in [`step_low`, `step_high`], D = 1.

Parameters: 3 r d_model^2 + (2 g N + h r) d_model + (w + 1) (r d_model + 2 g N) and some vectors, for g groups, h heads
of attention and w = `convolution`, so 6 d_model^2 + 256 d_model and more with the paper's r = 2 and N = 128, where
attention has 4 d_model^2 + 4 d_model; the paper has no feed-forward layer in return, and twice the layers. `match=`
makes budgets equal. No vector is decayed by the optimiser: A_log, dt_bias and D are such.

Not supported: anything but causal self-attention, biases, rotation; `reasons` says why.
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from xformer.attention.base import AttentionContext
from xformer.attention.kernels.linear_recurrence.convolution import ShortConvolution
from xformer.attention.kernels.linear_recurrence.dispatch import Implementation, check_installed, linear_attention
from xformer.attention.kernels.linear_recurrence.heads import blank_padding, merge_heads, split_heads
from xformer.attention.kernels.linear_recurrence.magnitude import limit_magnitude
from xformer.attention.kernels.linear_recurrence.state import RecurrentState
from xformer.attention.kernels.linear_recurrence.time_step import draw_rate, draw_time_step, time_step
from xformer.attention.mixer import TokenMixer
from xformer.core.capability import Capability
from xformer.core.linear import Linear
from xformer.core.mask import Mask
from xformer.core.precision import at_least_float32, without_autocast
from xformer.core.state import State
from xformer.errors import ConfigError
from xformer.position.base import Position

_NO_SCORES = "its state sums what it has read before any query comes, so there is no score of a pair to add to."


class Mamba2(TokenMixer):
    """Mamba-2: a gated selective state-space model in place of attention.

    Args:
        context: the layer's dimensions and role.
        state_size: features of B and C, N in the paper.
        expand: features of u, as a multiple of all heads' of attention.
        groups: the number of groups of heads that share B and C.
        convolution: the width of the short convolution, including the token itself.
        step_low: the minimum of the initial time steps.
        step_high: the maximum of the initial time steps.
        kernel: `torch`, or `fla` for flash-linear-attention's kernel on CUDA.

    Raises:
        ConfigError: `groups` does not divide the heads, the time steps are in the wrong order, or `kernel` is not
            installed.
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
        state_size: Annotated[int, Ge(1)],
        expand: Annotated[int, Ge(1)],
        groups: Annotated[int, Ge(1)],
        convolution: Annotated[int, Ge(1)],
        step_low: Annotated[float, Gt(0)],
        step_high: Annotated[float, Gt(0)],
        kernel: Implementation,
    ) -> None:
        super().__init__(context)
        check_installed(kernel, context.path)
        self.heads = context.heads * expand
        if self.heads % groups:
            divisors = ", ".join(str(n) for n in range(1, self.heads + 1) if self.heads % n == 0)
            raise ConfigError(
                f"{context.path}.groups={groups} does not divide the {self.heads} heads (size.heads times "
                f"{context.path}.expand); use {divisors}."
            )
        if step_low > step_high:
            raise ConfigError(
                f"{context.path}.step_low={step_low:g} is more than {context.path}.step_high={step_high:g}; the paper "
                "has 0.001 and 0.1."
            )
        self.kernel: Implementation = kernel
        self.groups, self.first_steps = groups, (step_low, step_high)
        inner = self.heads * context.head_dim
        self.widths = [inner, groups * state_size, groups * state_size]
        self.input = Linear(context.d_model, inner + sum(self.widths) + self.heads, bias=False)
        self.convolve = ShortConvolution(sum(self.widths), convolution, bias=True)
        self.norm = nn.RMSNorm(inner, eps=1e-5)
        self.dropout = nn.Dropout(context.dropout)
        self.output = Linear(inner, context.d_model, bias=False, gain=context.gain)
        self.log_rate = nn.Parameter(torch.empty(self.heads))
        self.step_bias = nn.Parameter(torch.empty(self.heads))
        self.skip = nn.Parameter(torch.empty(self.heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set rates, time steps and D, A_log, dt_bias and D in the paper; the parts set their own parameters."""
        draw_rate(self.log_rate, 1.0, 16.0)
        draw_time_step(self.step_bias, *self.first_steps)
        nn.init.ones_(self.skip)

    def forward(
        self,
        x: Float[Tensor, "b n d_model"],
        *,
        mask: Mask,
        position: Position | None,
        layer: int,
        state: State | None,
    ) -> Float[Tensor, "b n d_model"]:
        """RMSNorm(y * silu(z)) W_out."""
        assert state is None or isinstance(state, RecurrentState)
        x, valid = blank_padding(x, mask), mask.key_padding
        gate, inner, step = torch.split(self.input(x), [self.widths[0], sum(self.widths), self.heads], dim=-1)
        with without_autocast(x.device):
            convolved, past = self.convolve(inner, valid, None if state is None else state.past)
            u, b, c = torch.split(silu(convolved), self.widths, dim=-1)
            u, dt = split_heads(u, self.heads), time_step(step, self.step_bias, valid)  # b h n p, b h n 1
            mixed, matrix = linear_attention(
                self._for_heads(c),
                self._for_heads(b),
                dt * u,
                -at_least_float32(self.log_rate).exp()[:, None, None] * dt,
                None if state is None else state.matrix,
                kernel=self.kernel,
                path=self.context.path,
                dtype=gate.dtype,
            )
            if state is not None:
                state.keep(matrix, past, x.shape[1])
            gated = merge_heads(mixed + at_least_float32(self.skip)[:, None, None] * u) * silu(at_least_float32(gate))
            grouped = limit_magnitude(gated.reshape(*gated.shape[:2], self.groups, self.widths[0] // self.groups))
            normed = rms_norm(grouped, grouped.shape[-1:], eps=self.norm.eps).flatten(2) * at_least_float32(
                self.norm.weight
            )
        merged: Tensor = self.output(self.dropout(normed.to(gate.dtype)))
        return merged

    def _for_heads(self, x: Float[Tensor, "b n features"]) -> Float[Tensor, "b #h n state_size"]:
        """Expand B or C from groups to heads; one group is broadcast."""
        shared = split_heads(x, self.groups)
        return shared if self.groups == 1 else shared.repeat_interleave(self.heads // self.groups, dim=1)

    def init_state(self, max_length: int) -> RecurrentState:
        """An empty decoding state, for any number of tokens."""
        return RecurrentState()
