"""A decoding state that finds keys by their positions."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xformer.core.state import State


class Read(NamedTuple):
    """Keys and values at the positions asked for, and whether they were there."""

    key: Float[Tensor, "b h k d"]
    value: Float[Tensor, "b h k d"]
    there: Bool[Tensor, "b #h k"]


class PositionState(State):
    """A ring: the token at position p is in slot p mod `size`, until the one at p + `size` takes its place.

    Padding is never stored, so that it pushes nothing out, wherever it stands.

    Args:
        size: slots; one more takes what nobody reads.
        max_length: the most tokens, padding included; None where there is no limit.
    """

    def __init__(self, size: int, max_length: int | None) -> None:
        self.size, self.max_length = size, max_length
        self._buffers: tuple[Tensor, ...] = ()

    def append(
        self,
        key: Float[Tensor, "b h new d"],
        value: Float[Tensor, "b h new d"],
        positions: Int[Tensor, "#b new"],
        padding: Bool[Tensor, "b new"] | None,
    ) -> None:
        """Take in the next tokens.

        Raises:
            ValueError: there is no room for them.
        """
        batch, heads, new, head_dim = key.shape
        if self.max_length is not None and self.length + new > self.max_length:
            raise ValueError(
                f"decoding state: {self.length + new} tokens do not fit into the {self.max_length} it was made for"
            )
        if not self._buffers:
            keys = key.new_zeros(batch, self.size + 1, heads, head_dim)
            self._buffers = (keys, keys.clone(), positions.new_full((batch, self.size + 1), -1))
        positions = positions.expand(batch, -1)
        real = torch.ones_like(positions, dtype=torch.bool) if padding is None else padding
        last = positions.masked_fill(~real, -1).amax(dim=1, keepdim=True)
        slots = (positions % self.size).where(real & (positions > last - self.size), self.size)
        rows = torch.arange(batch, device=key.device)[:, None]
        keys, values, places = self._buffers
        keys[rows, slots], values[rows, slots] = key.transpose(1, 2), value.transpose(1, 2)
        places[rows, slots] = positions
        self.length += new

    def read(self, wanted: Int[Tensor, "b #h k"]) -> Read:
        """What is stored for these positions; a negative one is never there."""
        keys, values, places = self._buffers  # b size h d, b size h d, b size
        slots = wanted % self.size
        rows = torch.arange(len(keys), device=keys.device)[:, None, None]
        there = (places[rows, slots] == wanted) & (wanted >= 0)
        heads = torch.arange(keys.shape[2], device=keys.device)[:, None]
        return Read(keys[rows, slots, heads], values[rows, slots, heads], there)

    def reorder(self, indices: Int[Tensor, " batch"]) -> None:
        """Let row i become what row `indices[i]` was."""
        self._buffers = tuple(buffer.index_select(0, indices) for buffer in self._buffers)

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self._buffers)
