r"""Sinusoidal position encoding.

Vaswani et al. 2017, section 3.5:

    PE(pos, 2i) = sin(pos / base^(2i / d)),     PE(pos, 2i + 1) = cos(pos / base^(2i / d))

Computed from the positions on the fly, so any length is defined. An odd `d_model` ends on a sine.
"""

from typing import Annotated

import torch
from annotated_types import Gt
from jaxtyping import Float, Int
from torch import Tensor

from xformer.position.base import Position, PositionContext
from xformer.position.waves import angles


class Sinusoidal(Position):
    """Sinusoidal position encoding: adds fixed sines and cosines to the token embeddings.

    Args:
        context: the stack's dimensions.
        base: the longest wavelength is `2 pi base` tokens; 10000 in the paper.
    """

    def __init__(self, context: PositionContext, *, base: Annotated[float, Gt(1)]) -> None:
        super().__init__(context)
        self.base = base

    def embed(
        self, x: Float[Tensor, "batch length d_model"], positions: Int[Tensor, "#batch length"]
    ) -> Float[Tensor, "batch length d_model"]:
        """Compute x + PE(positions)."""
        turned = angles(positions, x.shape[-1], self.base, x.dtype)  # b n d/2
        waves = torch.stack((turned.sin(), turned.cos()), dim=-1).flatten(-2)
        return x + waves[..., : x.shape[-1]].to(x.dtype)
