"""One stack of blocks: what the encoder and the decoder share."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from annotated_types import Ge, Interval
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xformer.architecture.base import Architecture, EmbeddingFactory
from xformer.architecture.design import Design
from xformer.architecture.size import Size
from xformer.architecture.slot import Slot
from xformer.architecture.tower import Tower
from xformer.attention.base import AttentionFactory
from xformer.core.state import State
from xformer.layers.feed_forward import Activation
from xformer.layers.norm import NormLayer
from xformer.layers.residual import NormPlacement
from xformer.position.base import PositionFactory


class Stack(Architecture):
    """Embedding, positions, blocks and, with pre-norm, a last norm.

    Args:
        embedding: builds the input layer from `size.d_model`.
        max_length: the longest sequence, in tokens.
        size: width, depth, heads.
        attention: builds one variant per layer.
        position: builds the position scheme.
        norm: `pre` or `post`.
        norm_layer: `layer` or `rms`.
        activation: of the feed-forward layers.
        dropout: rate on the embeddings, on the mixed values of the attention and on every branch's output.
        stochastic_depth: the last layer's probability of losing a branch for a sequence; earlier layers' is smaller.
        share_layers: whether all layers are one block (ALBERT, Lan et al. 2020).
        key_value_heads: heads of keys and values; None for as many as queries have.
        gradient_checkpointing: recompute each block in the backward pass instead of storing its activations.
    """

    slots: ClassVar[dict[str, Slot]] = {"attention": Slot("self")}

    def __init__(
        self,
        embedding: EmbeddingFactory,
        max_length: int,
        *,
        size: Size,
        attention: AttentionFactory,
        position: PositionFactory,
        norm: NormPlacement,
        norm_layer: NormLayer,
        activation: Activation,
        dropout: Annotated[float, Interval(ge=0, lt=1)],
        stochastic_depth: Annotated[float, Interval(ge=0, lt=1)],
        share_layers: bool,
        key_value_heads: Annotated[int, Ge(1)] | None,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.size, self.max_length = size, max_length
        design = Design(
            size=size,
            norm=norm,
            norm_layer=norm_layer,
            activation=activation,
            dropout=dropout,
            stochastic_depth=stochastic_depth,
            share_layers=share_layers,
            key_value_heads=key_value_heads,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.embedding = embedding(size.d_model)
        self.tower = Tower(design, max_length, attention, position, causal=self.causal)

    def forward(
        self,
        inputs: Tensor,
        padding_mask: Bool[Tensor, "batch length"] | None = None,
        positions: Int[Tensor, "#batch length"] | None = None,
        states: Sequence[State] | None = None,
    ) -> Float[Tensor, "batch length d_model"]:
        """The hidden states of a batch.

        Args:
            inputs: what the embedding takes, such as token ids (batch length).
            padding_mask: True at real tokens.
            positions: of every token; counted from 0 where not given, which suits padding on the right.
            states: one per layer while decoding; `inputs` are then the tokens that come next.

        Raises:
            DataError: the sequence is longer than the model can take.
        """
        hidden: Tensor = self.tower(self.embedding(inputs), padding_mask, positions, states)
        return hidden

    @property
    def incremental(self) -> bool:
        """Whether decoding can go on from a state instead of computing everything again."""
        return self.tower.incremental

    @property
    def extrapolates(self) -> bool:
        """Whether sequences may be longer than `max_length`."""
        return self.tower.extrapolates

    def init_states(self, max_length: int) -> list[State]:
        """One empty decoding state per layer, for sequences of at most `max_length` tokens."""
        return self.tower.init_states(max_length)
