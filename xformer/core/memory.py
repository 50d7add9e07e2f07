"""The encoder's output as the decoder reads it, for whole sequences and step by step.

Shapes: b batch, k tokens of the source, h heads (of keys and values), d features of one head.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from xformer.core.state import State


class Memory(NamedTuple):
    """The encoder's output."""

    hidden: Float[Tensor, "b k d_model"]
    positions: Int[Tensor, "#b k"]
    padding_mask: Bool[Tensor, "b k"] | None
    """False at padding."""

    def select(self, indices: Int[Tensor, " rows"]) -> "Memory":
        """Select rows of the batch in this order; beam search repeats a row for each of its beams."""
        positions, padding_mask = _select_shared(self.positions, self.padding_mask, len(self.hidden), indices)
        return Memory(self.hidden.index_select(0, indices), positions, padding_mask)


class KeysValues(NamedTuple):
    """The memory projected to keys and values of one layer's cross-attention."""

    keys: Float[Tensor, "b h k d"]
    values: Float[Tensor, "b h k d"]
    positions: Int[Tensor, "#b k"]
    padding_mask: Bool[Tensor, "b k"] | None

    def select(self, indices: Int[Tensor, " rows"]) -> "KeysValues":
        """Select rows of the batch in this order."""
        positions, padding_mask = _select_shared(self.positions, self.padding_mask, len(self.keys), indices)
        keys, values = self.keys.index_select(0, indices), self.values.index_select(0, indices)
        return KeysValues(keys, values, positions, padding_mask)


class CrossState(State):
    """The decoding state of a layer with cross-attention: its self-attention's state and the projected memory.

    Args:
        self_state: the self-attention's state.
        memory: the projected memory.
    """

    def __init__(self, self_state: State, memory: KeysValues) -> None:
        self.self_state, self.memory = self_state, memory

    @property
    def length(self) -> int:  # type: ignore[override]
        """Tokens of the target processed so far, including padding."""
        return self.self_state.length

    def reorder(self, indices: Int[Tensor, " batch"]) -> None:
        """Replace row i by row `indices[i]`."""
        self.self_state.reorder(indices)
        self.memory = self.memory.select(indices)

    @property
    def bytes(self) -> int:
        """The memory in bytes; positions that all rows share are counted once."""
        held = [tensor for tensor in self.memory if tensor is not None]
        return self.self_state.bytes + sum(tensor.numel() * tensor.element_size() for tensor in held)


def _select_shared(
    positions: Int[Tensor, "#b k"], padding_mask: Bool[Tensor, "b k"] | None, rows: int, indices: Int[Tensor, " rows"]
) -> tuple[Tensor, Tensor | None]:
    """Select the same rows of padding, and of positions unless all rows share them."""
    if len(positions) == rows:
        positions = positions.index_select(0, indices)
    return positions, None if padding_mask is None else padding_mask.index_select(0, indices)
