"""Generation with a decoder-only model: prompts of unequal length and their continuations."""

from collections.abc import Callable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from xformer.architecture.stack import Stack
from xformer.errors import DataError
from xformer.generation.prefixes import Prefixes


class CausalPrefixes(Prefixes):
    """Prompts of unequal length and their continuations by a causal stack in evaluation mode.

    Padding is on the left. Each row counts positions from its own first token, so it does not depend on the other rows
    of the batch. If a row exceeds the length of a stack that cannot extrapolate, the stack reads its last `max_length`
    tokens, as if the sequence began there. This window slides with every token, which changes all positions, so the
    whole window is recomputed for each token, even with a decoding state.

    Args:
        stack: the model.
        head: hidden states (rows 1 d_model) to logits (rows 1 vocabulary).
        tokens: the prompts, padded on the left, at least one token each.
        valid: False at padding; None without padding.
        max_new: the maximum number of new tokens.

    Raises:
        DataError: a prompt is longer than the stack can read.
    """

    def __init__(
        self,
        stack: Stack,
        head: Callable[[Tensor], Tensor],
        tokens: Int[Tensor, "rows begin"],
        valid: Bool[Tensor, "rows begin"] | None,
        max_new: int,
    ) -> None:
        super().__init__(tokens, valid, max_new)
        self.stack, self.head = stack, head
        room = self.begin + max_new
        self.limit = room if stack.extrapolates else min(stack.max_length, room)
        if self.begin > self.limit:
            raise DataError(
                f"A prompt has {self.begin} tokens, but the model reads {self.limit} at most; shorten the prompt."
            )
        self._positions = None if self._valid is None else (self._valid.long().cumsum(1) - 1).clamp(min=0)
        self.incremental, self._seen = stack.incremental, 0
        self.states = stack.init_states(self.limit) if self.incremental else None

    def logits(self) -> Float[Tensor, "rows vocabulary"]:
        """Logits of every row's next token."""
        if self.length > self.limit:
            self.states = None
        start = max(0, self.length - self.limit) if self.states is None else self._seen
        new, self._seen = slice(start, self.length), self.length
        positions = None if self._positions is None else self._positions[:, new]
        if positions is not None and start > 0 and self.states is None:
            # Rows within the model's length lie completely in the window.
            positions = (positions - (positions[:, -1:] + 1 - self.limit).clamp(min=0)).clamp(min=0)
        unpadded = self._valid is None or (self.states is not None and start > 0)
        valid = None if unpadded else self._valid[:, new]  # type: ignore[index]
        hidden = self.stack(self._tokens[:, new], valid, positions, self.states)
        return self.head(hidden[:, -1:])[:, 0]

    @property
    def remarks(self) -> list[str]:
        """Remarks for the user on how these rows are generated."""
        if self._tokens.shape[1] - 1 <= self.limit:  # the last token is not read
            return super().remarks
        return [
            *super().remarks,
            f"The model reads {self.limit} tokens: beyond, it reads the last {self.limit}, recomputed for every token.",
        ]

    def reorder(self, indices: Int[Tensor, " rows_after"]) -> None:
        """Replace row i by row `indices[i]`."""
        super().reorder(indices)
        self._positions = None if self._positions is None else self._positions.index_select(0, indices)
