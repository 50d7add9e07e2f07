"""Tokens moved to where their positions say, so that a pattern is the same for every row of a batch.

Rows may be shifted against each other (padding on the left). A pattern is a function of positions, so each real token
is moved to the slot that its position names, the pattern is applied, and the results are moved back. Slots that no
token takes hold zeros and are not read.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad


class Slots:
    """The slot of each token, and the token of each slot.

    Args:
        positions: of every token; those of real tokens differ from each other.
        real: True at real tokens; None where all are.
        counted: whether it is known that positions are 0, 1, 2, ... in all rows; otherwise they are read, for which one
            has to wait where they are on another device.
    """

    def __init__(
        self, positions: Int[Tensor, "#b n"], real: Bool[Tensor, "b n"] | None, *, counted: bool = False
    ) -> None:
        length = positions.shape[1]
        index = torch.arange(length, device=positions.device)
        self.span = length
        """Every position is below it."""
        self.taken: Bool[Tensor, "#b span"] | None = None
        """True at slots that hold a token; None where all do."""
        self._in_place = real is None and (counted or torch.equal(positions, index.expand_as(positions)))
        if self._in_place:
            return
        self.span = length if counted else int(positions.max()) + 1
        # One more slot takes the padding, and one more token, of zeros, fills the slots that stay empty.
        self._slot = positions if real is None else positions.where(real, self.span)  # b n
        token = self._slot.new_full((len(self._slot), self.span + 1), length)
        self._token = token.scatter(1, self._slot, index.expand_as(self._slot))[:, : self.span]  # b span
        self.taken = self._token < length

    def place(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h span d"]:
        """Every token to its slot; zeros in the empty ones."""
        return x if self._in_place else _pick(x, self._token)

    def take(self, x: Float[Tensor, "b h span d"]) -> Float[Tensor, "b h n d"]:
        """Every slot back to its token; zeros at padding."""
        return x if self._in_place else _pick(x, self._slot)


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x, and zeros where the index is one too large."""
    index = index[:, None, :, None].expand(len(x), x.shape[1], -1, x.shape[3])
    return pad(x, (0, 0, 0, 1)).gather(2, index)
