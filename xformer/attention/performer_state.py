"""What Performer remembers between decoding steps: running sums, whose size does not depend on the context."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xformer.attention.performer_sums import Sums
from xformer.attention.state import State


class Tokens(NamedTuple):
    """Keys and values as they came."""

    key: Float[Tensor, "b h k d"]
    values: Float[Tensor, "b h k e"]
    """With a 1 after each value, so that one product gives numerator and denominator."""
    positions: Int[Tensor, "#b k"]
    real: Bool[Tensor, "b k"] | None

    def part(self, tokens: slice) -> "Tokens":
        """Some of the tokens."""
        real = None if self.real is None else self.real[:, tokens]
        return Tokens(self.key[:, :, tokens], self.values[:, :, tokens], self.positions[:, tokens], real)

    def whole(self) -> "Tokens":
        """The same with positions and padding of every row, and storage of its own."""
        shape = self.key.shape[0], self.key.shape[2]
        real = torch.ones(shape, dtype=torch.bool, device=self.key.device) if self.real is None else self.real
        return Tokens(self.key.clone(), self.values.clone(), self.positions.expand(shape).clone(), real.clone())


class PerformerState(State):
    """Sums over the keys far away, and the keys near enough for the bias to tell them apart: none without a bias."""

    def __init__(self) -> None:
        self.sums: Sums | None = None
        self.recent: Tokens | None = None

    def with_recent(self, new: Tokens) -> Tokens:
        """The recent tokens and the new ones."""
        if self.recent is None or self.recent.key.shape[2] == 0:
            return new
        new = new.whole()
        return Tokens(
            *(torch.cat(pair, dim=dim) for pair, dim in zip(zip(self.recent, new, strict=True), (2, 2, 1, 1), strict=True))
        )

    def reorder(self, indices: Int[Tensor, " batch"]) -> None:
        """Let row i become what row `indices[i]` was."""
        if self.sums is not None:
            self.sums = Sums(*(tensor.index_select(0, indices) for tensor in self.sums))
        if self.recent is not None:
            self.recent = Tokens(*(tensor.index_select(0, indices) for tensor in self.recent if tensor is not None))

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        held = [*(self.sums or ()), *(self.recent or ())]
        return sum(tensor.numel() * tensor.element_size() for tensor in held if tensor is not None)
