"""Generation with an encoder-decoder: sources and the targets generated for them."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xformer.architecture.encoder_decoder import EncoderDecoder
from xformer.errors import DataError
from xformer.generation.prefixes import Prefixes


class Seq2SeqPrefixes(Prefixes):
    """Sources and the targets that an encoder-decoder in evaluation mode generates for them.

    A decoder that cannot extrapolate generates at most as many tokens as its length.

    Args:
        model: the encoder-decoder, which reads the sources once.
        head: hidden states (rows 1 d_model) to logits (rows 1 vocabulary).
        source: token ids, padded on the right.
        padding_mask: False at padding of the source; None without padding.
        begin: the token that begins a target.
        max_new: the maximum number of new tokens.

    Raises:
        DataError: a source is too long for the model.
    """

    def __init__(
        self,
        model: EncoderDecoder,
        head: Callable[[Tensor], Tensor],
        source: Int[Tensor, "rows source"],
        padding_mask: Bool[Tensor, "rows source"] | None,
        *,
        begin: int,
        max_new: int,
    ) -> None:
        if source.shape[1] > model.max_length and not model.extrapolates:
            raise DataError(
                f"A source has {source.shape[1]} tokens, but the model reads {model.max_length} at most; shorten it."
            )
        room = max_new if model.decoder.extrapolates else min(max_new, model.max_target)
        super().__init__(source.new_full((len(source), 1), begin), None, room)
        self.model, self.head, self._asked = model, head, max_new
        self.incremental = model.incremental
        with torch.no_grad():
            self._memory = model.encode(source, padding_mask)
            self.states = model.init_states(self._memory, room) if self.incremental else None

    def logits(self) -> Float[Tensor, "rows vocabulary"]:
        """Logits of every row's next token."""
        if self.states is None:
            hidden = self.model.decode(self.tokens, self._memory)
        else:
            hidden = self.model.decode(self.tokens[:, -1:], states=self.states)
        return self.head(hidden[:, -1:])[:, 0]

    @property
    def remarks(self) -> list[str]:
        """Remarks for the user on how these rows are generated."""
        if self.max_new == self._asked:
            return super().remarks
        return [
            *super().remarks,
            f"The model generates {self.max_new} tokens at most; {self._asked} were requested.",
        ]

    def reorder(self, indices: Int[Tensor, " rows_after"]) -> None:
        """Replace row i by row `indices[i]`."""
        super().reorder(indices)
        if self.states is None:
            self._memory = self._memory.select(indices)
