"""The angles that sinusoidal, rotary and Transformer-XL positions share."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def angles(
    positions: Int[Tensor, "*shape"], features: int, base: float, dtype: torch.dtype
) -> Float[Tensor, "*shape half"]:
    """The angles position / base^(2i / features), for i below half the features, rounded up.

    In float32 or wider, whatever `dtype`, because bfloat16 has no integers beyond 256. For the same reason the
    frequencies are not a buffer, which a cast of the model would round.
    """
    precise = torch.promote_types(dtype, torch.float32)
    exponents = torch.arange(0, features, 2, device=positions.device, dtype=precise) / features
    return positions[..., None] * base**-exponents
