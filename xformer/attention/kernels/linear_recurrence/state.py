"""The decoding state of a linear recurrence, of constant size in the length of the context."""

from jaxtyping import Float, Int
from torch import Tensor

from xformer.core.state import State


class RecurrentState(State):
    """A decoding state: a matrix per head and the last tokens for a short convolution, in float32 at least."""

    def __init__(self) -> None:
        self.matrix: Float[Tensor, "b h d e"] | None = None
        self.past: Float[Tensor, "b before c"] | None = None

    def keep(self, matrix: Float[Tensor, "b h d e"], past: Float[Tensor, "b before c"] | None, length: int) -> None:
        """Store the new state after `length` more tokens, as copies: a view would keep its whole base tensor alive."""
        self.matrix, self.past = matrix.contiguous(), None if past is None else past.clone()
        self.length += length

    def reorder(self, indices: Int[Tensor, " batch"]) -> None:
        """Reorder rows: row i becomes what row `indices[i]` was."""
        self.matrix, self.past = (
            None if held is None else held.index_select(0, indices) for held in (self.matrix, self.past)
        )

    @property
    def bytes(self) -> int:
        """The memory in bytes."""
        return sum(held.numel() * held.element_size() for held in (self.matrix, self.past) if held is not None)
