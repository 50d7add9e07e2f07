"""What Performer remembers between decoding steps: running sums, whose size does not depend on the context."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xformer.attention.performer_sums import Sums
from xformer.core.state import State


class Tokens(NamedTuple):
    """Keys and values as they came."""

    key: Float[Tensor, "b h k d"]
    values: Float[Tensor, "b h k e"]
    """With a 1 after each value, so that one product gives numerator and denominator."""
    positions: Int[Tensor, "#b k"]
    real: Bool[Tensor, "b k"] | None

    def part(self, tokens: slice) -> "Tokens":
        """Some of the tokens."""
        return self._replace(key=self.key[:, :, tokens], values=self.values[:, :, tokens])._at(tokens)

    def parts(self, wanted: Sequence[slice]) -> "list[Tokens]":
        """Many parts, which may overlap: cut once, as the gradient of every slice is as long as the whole."""
        cuts = sorted({0, self.key.shape[2], *(cut for part in wanted for cut in (part.start, part.stop))})
        sizes = [stop - start for start, stop in pairwise(cuts)]
        keys, values = torch.split(self.key, sizes, dim=2), torch.split(self.values, sizes, dim=2)

        def joined(pieces: tuple[Tensor, ...], part: slice) -> Tensor:
            return torch.cat(pieces[cuts.index(part.start) : cuts.index(part.stop)] or (pieces[0][:, :, :0],), dim=2)

        return [self._replace(key=joined(keys, part), values=joined(values, part))._at(part) for part in wanted]

    def _at(self, tokens: slice) -> "Tokens":
        real = None if self.real is None else self.real[:, tokens]
        return self._replace(positions=self.positions[:, tokens], real=real)

    def whole(self) -> "Tokens":
        """The same, with the positions and padding of every row."""
        shape = self.key.shape[0], self.key.shape[2]
        real = torch.ones(shape, dtype=torch.bool, device=self.key.device) if self.real is None else self.real
        return self._replace(positions=self.positions.expand(shape), real=real)


class PerformerState(State):
    """Sums over the keys far away, and the keys near enough for the bias to tell them apart: none without a bias."""

    def __init__(self) -> None:
        self.sums: Sums | None = None
        self.recent: Tokens | None = None

    def with_recent(self, new: Tokens) -> Tokens:
        """The recent tokens and the new ones."""
        if self.recent is None or self.recent.key.shape[2] == 0:
            return new
        old, new = self.recent.whole(), new.whole()
        assert old.real is not None
        assert new.real is not None
        return Tokens(
            torch.cat((old.key, new.key), dim=2),
            torch.cat((old.values, new.values), dim=2),
            torch.cat((old.positions, new.positions), dim=1),
            torch.cat((old.real, new.real), dim=1),
        )

    def keep(self, recent: Tokens) -> None:
        """Hold these, in storage of their own: a view would hold all that they were cut from."""
        self.recent = Tokens(*(tensor.clone() for tensor in recent.whole() if tensor is not None))

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
