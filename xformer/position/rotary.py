r"""Rotary position embedding (RoPE).

Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", equation 15: the features of a head
form r / 2 pairs, and pair i of a token at position p turns by an angle,

    (x_i, x_{i + r/2})  ->  R(p theta_i) (x_i, x_{i + r/2}),     theta_i = base^(-2i / r)

so that q_p . k_s depends on s - p alone. Time O(n d), no parameters. The angles are computed in float32 from the
positions, so any length is defined.

Deviation: the paper pairs neighbours, (x_2i, x_2i+1); here the first half pairs with the second, as GPT-NeoX and
Hugging Face's LLaMA do, which is the same but for a fixed permutation of the features. Option: `fraction` below 1
rotates only the first features of each head (GPT-NeoX's `rotary_pct`).

Not supported: attention that mixes positions before the scores, such as Linformer's; a mixture has no position.
"""

from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Interval
from jaxtyping import Float, Int
from torch import Tensor

from xformer.core.capability import Capability
from xformer.errors import ConfigError
from xformer.position.base import Position, PositionContext
from xformer.position.waves import angles


class Rotary(Position):
    """Rotary position embedding: rotates queries and keys by their positions.

    Args:
        context: the stack's dimensions.
        base: the longest wavelength is nearly `2 pi base` tokens; 10000 in the paper.
        fraction: the share of each head's features to rotate; 1 in the paper.

    Raises:
        ConfigError: the rotated features do not pair up.
    """

    needs: ClassVar[Capability] = Capability.ROTARY

    def __init__(
        self,
        context: PositionContext,
        *,
        base: Annotated[float, Gt(1)],
        fraction: Annotated[float, Interval(gt=0, le=1)],
    ) -> None:
        super().__init__(context)
        self.base = base
        self.features = int(context.head_dim * fraction)
        if self.features < 2 or self.features % 2:
            raise ConfigError(
                f"{context.path}.fraction={fraction} of the {context.head_dim} features of a head leaves "
                f"{self.features} to rotate in pairs; choose a fraction in (0, 1], size.d_model and size.heads that "
                "give an even number."
            )

    def rotate(
        self, x: Float[Tensor, "batch heads length head_dim"], positions: Int[Tensor, "#batch length"]
    ) -> Float[Tensor, "batch heads length head_dim"]:
        """Compute R(positions) x."""
        turned = angles(positions[:, None], self.features, self.base, x.dtype)  # b 1 n r/2
        cos, sin = turned.cos(), turned.sin()
        first, second = x[..., : self.features].to(cos.dtype).chunk(2, dim=-1)
        rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
        return torch.cat((rotated.to(x.dtype), x[..., self.features :]), dim=-1)
