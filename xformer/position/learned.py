"""Learned positions: one vector per position, added to the token embeddings (Gehring et al. 2017; GPT, BERT)."""

from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from xformer.core.embedding import Embedding
from xformer.position.base import Position, PositionContext


class Learned(Position):
    """Learned absolute positions: a table of `max_length` vectors, on the same scale as the token embeddings."""

    extrapolates: ClassVar[bool] = False

    def __init__(self, context: PositionContext) -> None:
        super().__init__(context)
        self.table = Embedding(context.max_length, context.d_model)

    def embed(
        self, x: Float[Tensor, "batch length d_model"], positions: Int[Tensor, "#batch length"]
    ) -> Float[Tensor, "batch length d_model"]:
        """Compute x + table[positions]."""
        added: Tensor = x + self.table(positions)
        return added
