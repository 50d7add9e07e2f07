"""An embedding and a stack of blocks: the base class of encoder and decoder."""

from collections.abc import Sequence
from typing import Unpack

from jaxtyping import Bool, Float, Int
from torch import Tensor

from xformer.architecture.base import Architecture, EmbeddingFactory
from xformer.architecture.block_options import BlockOptions
from xformer.architecture.tower import Tower
from xformer.attention.base import AttentionFactory
from xformer.core.state import State
from xformer.position.base import PositionFactory


class Stack(Architecture):
    """An architecture of an embedding and one stack of blocks.

    Args:
        embedding: builds the input layer from `size.d_model`.
        max_length: the longest sequence, in tokens.
        attention: builds the attention or token mixer of a layer.
        position: builds the position scheme.
        options: the options of the blocks.
    """

    def __init__(
        self,
        embedding: EmbeddingFactory,
        max_length: int,
        *,
        attention: AttentionFactory,
        position: PositionFactory,
        **options: Unpack[BlockOptions],
    ) -> None:
        super().__init__()
        self.size, self.max_length = options["size"], max_length
        self.embedding = embedding(self.size.d_model)
        self.tower = Tower(max_length, attention, position, causal=self.causal, **options)

    def forward(
        self,
        inputs: Tensor,
        padding_mask: Bool[Tensor, "batch length"] | None = None,
        positions: Int[Tensor, "#batch length"] | None = None,
        states: Sequence[State] | None = None,
    ) -> Float[Tensor, "batch length d_model"]:
        """The hidden states of a batch.

        Args:
            inputs: the inputs of the embedding, such as token ids (batch length).
            padding_mask: False at padding.
            positions: the position of every token; by default counted from 0, which suits padding on the right.
            states: one per layer while decoding; `inputs` are then the next tokens.

        Raises:
            DataError: the sequence is too long for the model.
        """
        hidden: Tensor = self.tower(self.embedding(inputs), padding_mask, positions, states)
        return hidden

    @property
    def incremental(self) -> bool:
        """Whether decoding can use a state instead of recomputing the whole sequence."""
        return self.tower.incremental

    @property
    def extrapolates(self) -> bool:
        """Whether sequences may be longer than `max_length`."""
        return self.tower.extrapolates

    def init_states(self, max_length: int) -> list[State]:
        """One empty decoding state per layer, for sequences of at most `max_length` tokens."""
        return self.tower.init_states(max_length)
