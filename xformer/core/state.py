"""Decoding states, which an attention keeps between steps, such as a key-value cache."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class State(ABC):
    """A decoding state; not necessarily a key-value cache."""

    length: int = 0
    """Tokens processed so far, including padding."""

    @abstractmethod
    def reorder(self, indices: Int[Tensor, " batch"]) -> None:
        """Replace row i by row `indices[i]`, as beam search does with the surviving beams."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """The memory in bytes."""


class KeyValueState(State):
    """A key-value cache: keys, values, positions and padding, in buffers allocated with the first tokens.

    While positions count up from 0 in all rows without padding, they are stored once for all rows.
    """

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self._tokens: tuple[Tensor, ...] = ()  # keys and values, b h max_length d
        self._positions = torch.empty(0)  # 1 max_length, or b max_length
        self._valid: Tensor | None = None  # b max_length

    def append(
        self,
        key: Float[Tensor, "b h new d"],
        value: Float[Tensor, "b h new d"],
        positions: Int[Tensor, "#b new"],
        padding: Bool[Tensor, "b new"] | None,
        *,
        start: int | None = None,
    ) -> None:
        """Append the next tokens.

        Args:
            key: their keys.
            value: their values.
            positions: their positions.
            padding: False at padding.
            start: the first position, if the positions are known to count up from it in all rows.

        Raises:
            ValueError: the buffers are full.
        """
        batch, heads, more, head_dim = key.shape
        end = self.length + more
        if end > self.max_length:
            raise ValueError(f"decoding state: {end} tokens exceed its maximum length of {self.max_length}")
        if not self._tokens:
            keys = key.new_zeros(batch, heads, self.max_length, head_dim)
            self._tokens = (keys, keys.clone())
            self._positions = torch.arange(self.max_length, device=key.device)[None]
        new = slice(self.length, end)
        keys, values = self._tokens
        keys[:, :, new], values[:, :, new] = key, value
        if padding is not None or start != self.length:
            self._store_each_row(batch)
        if self._valid is not None:
            self._positions[:, new] = positions
            self._valid[:, new] = True if padding is None else padding
        self.length = end

    def _store_each_row(self, batch: int) -> None:
        if self._valid is None:
            self._positions = self._positions.repeat(batch, 1)
            self._valid = torch.ones_like(self._positions, dtype=torch.bool)

    @property
    def keys(self) -> Float[Tensor, "b h length d"]:
        """The keys of every token so far."""
        return self._tokens[0][:, :, : self.length]

    @property
    def values(self) -> Float[Tensor, "b h length d"]:
        """The values of every token so far."""
        return self._tokens[1][:, :, : self.length]

    @property
    def positions(self) -> Int[Tensor, "#b length"]:
        """The positions of every token so far."""
        return self._positions[:, : self.length]

    @property
    def padding(self) -> Bool[Tensor, "b length"] | None:
        """False at padding; None if there is no padding and positions count up from 0 in all rows."""
        return None if self._valid is None else self._valid[:, : self.length]

    def reorder(self, indices: Int[Tensor, " batch"]) -> None:
        """Replace row i by row `indices[i]`."""
        self._tokens = tuple(buffer.index_select(0, indices) for buffer in self._tokens)
        if self._valid is not None:
            self._positions, self._valid = (
                self._positions.index_select(0, indices),
                self._valid.index_select(0, indices),
            )

    @property
    def bytes(self) -> int:
        """The memory in bytes."""
        held = [*self._tokens, self._positions, *(() if self._valid is None else (self._valid,))]
        return sum(buffer.numel() * buffer.element_size() for buffer in held)
