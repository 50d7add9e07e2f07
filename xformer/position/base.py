"""The base class of position schemes, which may act on embeddings, on queries and keys, or on scores.

embed(x, positions)            sinusoidal, learned        any attention
rotate(q_or_k, positions)      rotary                     attention that declares ROTARY
bias(layer)                    a relative score bias      attention that declares BIAS
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from xformer.core.bias import RelativeBias
from xformer.core.capability import Capability


@dataclass(frozen=True)
class PositionContext:
    """The dimensions that a stack passes to its position scheme.

    Attributes:
        d_model: features of a token.
        heads: query heads.
        head_dim: the features of one head.
        layers: how many layers the scheme serves.
        max_length: the longest sequence, in tokens.
        causal: whether every token attends only to itself and earlier tokens.
        path: of the scheme in the configuration, such as `decoder_position`, for messages.
    """

    d_model: int
    heads: int
    head_dim: int
    layers: int
    max_length: int
    causal: bool
    path: str = "position"


class Position(nn.Module):
    """The base class of position schemes; by itself, no position information beyond what a causal mask implies."""

    needs: ClassVar[Capability] = Capability.NONE
    """The capabilities that the attention must provide."""
    extrapolates: ClassVar[bool] = True
    """Whether positions beyond `max_length` are defined."""
    vectors: ClassVar[tuple[str, ...]] = ()
    """The names of parameters with a vector or a number per head, which the optimiser does not decay."""

    def __init__(self, context: PositionContext) -> None:
        super().__init__()
        self.context = context

    def embed(
        self, x: Float[Tensor, "batch length d_model"], positions: Int[Tensor, "#batch length"]
    ) -> Float[Tensor, "batch length d_model"]:
        """Add positions to the token embeddings."""
        return x

    def rotate(
        self, x: Float[Tensor, "batch heads length head_dim"], positions: Int[Tensor, "#batch length"]
    ) -> Float[Tensor, "batch heads length head_dim"]:
        """Rotate queries or keys by their positions."""
        return x

    def bias(self, layer: int) -> RelativeBias | None:
        """The bias added to a layer's scores; None if the scheme has none."""
        return None


PositionFactory = Callable[[PositionContext], Position]
"""What `conf/position/*.yaml` instantiates to."""
