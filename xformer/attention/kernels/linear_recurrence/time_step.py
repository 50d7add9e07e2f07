"""Gates of a state-space model, exp(-exp(A_log) dt) with dt = softplus(x W + dt_bias), and their initial values.

Gu & Dao 2024, "Mamba", section 3.6: a time step dt so small is a long memory, one so large a short one, and rates
A = exp(A_log) of several heads differ.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from xformer.core.precision import at_least_float32

SMALLEST = 1e-4
"""The minimum of the initial time steps, as in the paper's code."""


def draw_rate(log_rate: nn.Parameter, low: float, high: float) -> None:
    """Draw A from U(low, high); A_log is its logarithm."""
    with torch.no_grad():
        log_rate.uniform_(low, high).log_()


def draw_time_step(bias: nn.Parameter, low: float, high: float) -> None:
    """Draw dt log-uniformly between low and high; dt_bias is the inverse softplus of it, log(exp(dt) - 1)."""
    with torch.no_grad():
        step = bias.uniform_(math.log(low), math.log(high)).exp_().clamp_(min=SMALLEST)
        step += torch.log(-torch.expm1(-step))


def time_step(
    x: Float[Tensor, "b n h"], bias: Float[Tensor, " h"], valid: Bool[Tensor, "b n"] | None
) -> Float[Tensor, "b h n 1"]:
    """Compute the time step dt = softplus(x + bias); 0 at padding."""
    step = softplus(at_least_float32(x) + at_least_float32(bias))
    if valid is not None:
        step = step.masked_fill(~valid[..., None], 0.0)
    return step.mT[..., None]
