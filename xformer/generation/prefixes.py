"""The interface between models and decoding methods: sequences being generated, and their next-token logits."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xformer.core.state import State


class Prefixes(ABC):
    """A batch of sequences being generated, one in each row, in preallocated buffers.

    Args:
        tokens: the prompts, padded on the left.
        valid: False at padding; None without padding.
        max_new: the maximum number of new tokens.

    Attributes:
        max_new: the maximum number of new tokens; less than requested if the model cannot generate as many.
        incremental: whether the model has a decoding state; otherwise it recomputes the whole sequence for every token.
    """

    incremental: bool
    states: Sequence[State] | None
    """One decoding state per layer; None if there are none, or no longer."""

    def __init__(
        self, tokens: Int[Tensor, "rows begin"], valid: Bool[Tensor, "rows begin"] | None, max_new: int
    ) -> None:
        rows, self.begin = tokens.shape
        self.max_new, self.length = max_new, self.begin
        self._tokens = torch.cat((tokens, tokens.new_zeros(rows, max_new)), dim=1)
        self._valid = None if valid is None else torch.cat((valid, valid.new_ones(rows, max_new)), dim=1)

    @abstractmethod
    def logits(self) -> Float[Tensor, "rows vocabulary"]:
        """Logits of every row's next token; to be called once after each `append` and `reorder`."""

    @property
    def remarks(self) -> list[str]:
        """Remarks for the user on how these rows are generated."""
        if self.incremental:
            return []
        return ["This attention has no decoding state: the whole sequence is recomputed for every token."]

    @property
    def tokens(self) -> Int[Tensor, "rows length"]:
        """All tokens of every row so far, padded on the left."""
        return self._tokens[:, : self.length]

    @property
    def valid(self) -> Bool[Tensor, "rows length"] | None:
        """False where `tokens` has padding; None without padding."""
        return None if self._valid is None else self._valid[:, : self.length]

    @property
    def written(self) -> Int[Tensor, "rows new"]:
        """The appended tokens."""
        return self._tokens[:, self.begin : self.length]

    def append(self, tokens: Int[Tensor, " rows"]) -> None:
        """Append a token to every row."""
        self._tokens[:, self.length] = tokens
        self.length += 1

    def reorder(self, indices: Int[Tensor, " rows_after"]) -> None:
        """Replace row i by row `indices[i]`; the number of rows may change."""
        self._tokens = self._tokens.index_select(0, indices)
        self._valid = None if self._valid is None else self._valid.index_select(0, indices)
        for state in self.states or ():
            state.reorder(indices)


def pad_left(rows: Sequence[Int[Tensor, "..."]]) -> tuple[Int[Tensor, "rows n"], Bool[Tensor, "rows n"] | None]:
    """Stack rows with padding on the left; also the mask of valid tokens, None if all rows are equally long."""
    flipped, valid = pad_right([row.flip(0) for row in rows])
    return flipped.flip(1), None if valid is None else valid.flip(1)


def pad_right(rows: Sequence[Int[Tensor, "..."]]) -> tuple[Int[Tensor, "rows n"], Bool[Tensor, "rows n"] | None]:
    """Stack rows with padding on the right; also the mask of valid tokens, None if all rows are equally long."""
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=padded.device)
    if bool((lengths == padded.shape[1]).all()):
        return padded, None
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
