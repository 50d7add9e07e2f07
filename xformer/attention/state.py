"""What an attention remembers between decoding steps: for exact softmax attention, all keys and values."""

from abc import ABC, abstractmethod

from jaxtyping import Bool, Float, Int
from torch import Tensor


class State(ABC):
    """A decoding state; not necessarily a key-value cache."""

    length: int = 0
    """Tokens taken in so far, padding included."""

    @abstractmethod
    def reorder(self, indices: Int[Tensor, " batch"]) -> None:
        """Let row i become what row `indices[i]` was (the beams that survive)."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Memory held, in bytes."""


class KeyValueState(State):
    """Keys, values, positions and padding of every token so far, in buffers allocated once, by the first tokens."""

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
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
        end = self.length + key.shape[2]
        if end > self.max_length:
            raise ValueError(f"decoding state: {end} tokens do not fit into the {self.max_length} it was made for")
        if not self._buffers:
            batch, heads, _, head_dim = key.shape
            keys = key.new_zeros(batch, self.max_length, heads, head_dim)
            room = positions.new_zeros(batch, self.max_length)
            self._buffers = (keys, keys.clone(), room, room.bool())
        new = slice(self.length, end)
        keys, values, places, real = self._buffers
        keys[:, new], values[:, new] = key.transpose(1, 2), value.transpose(1, 2)
        places[:, new] = positions
        real[:, new] = True if padding is None else padding
        self.length = end

    @property
    def keys(self) -> Float[Tensor, "b h length d"]:
        """The keys of every token so far."""
        return self._buffers[0][:, : self.length].transpose(1, 2)

    @property
    def values(self) -> Float[Tensor, "b h length d"]:
        """The values of every token so far."""
        return self._buffers[1][:, : self.length].transpose(1, 2)

    @property
    def positions(self) -> Int[Tensor, "b length"]:
        """The positions of every token so far."""
        return self._buffers[2][:, : self.length]

    @property
    def padding(self) -> Bool[Tensor, "b length"]:
        """True at real tokens."""
        return self._buffers[3][:, : self.length]

    def reorder(self, indices: Int[Tensor, " batch"]) -> None:
        """Let row i become what row `indices[i]` was."""
        self._buffers = tuple(buffer.index_select(0, indices) for buffer in self._buffers)

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self._buffers)
