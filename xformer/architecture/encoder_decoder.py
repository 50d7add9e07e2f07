"""The encoder-decoder (Vaswani et al. 2017, figure 1): it writes one sequence while it reads another.

    memory = encoder(source),    hidden_i = decoder(target_0 ... target_i, memory)

Every layer of the decoder has causal self-attention, cross-attention to the memory and feed-forward. Source and target
share their embedding (section 3.4) and the size of both stacks. Cross-attention has no positions of its own: those of
two sequences have no distance.

Where there is no target, the source is read on both sides (BART, Lewis et al. 2020, section 3.1), so that a task that
only asks for hidden states, such as classification, can compare it with the other architectures.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Interval
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xformer.architecture.base import Architecture, EmbeddingFactory
from xformer.architecture.design import Design
from xformer.architecture.size import Size
from xformer.architecture.slot import Slot
from xformer.architecture.tower import Tower, check_length
from xformer.attention.base import AttentionFactory
from xformer.core.capability import Capability
from xformer.core.state import State
from xformer.layers.feed_forward import Activation
from xformer.layers.memory import Memory
from xformer.layers.norm import NormLayer
from xformer.layers.residual import NormPlacement
from xformer.position.base import PositionFactory


class EncoderDecoder(Architecture):
    """A bidirectional stack, and a causal one that reads it.

    Args:
        embedding: builds the input layer of both sides from `size.d_model`.
        max_length: the longest source, in tokens.
        max_target: the longest target; None for as long as a source.
        size: width, depth of each stack, heads.
        attention: builds the encoder's self-attention.
        decoder_attention: builds the decoder's self-attention.
        cross_attention: builds what the decoder reads the encoder with.
        position: builds the encoder's position scheme.
        decoder_position: builds the decoder's.
        norm: `pre` or `post`.
        norm_layer: `layer` or `rms`.
        activation: of the feed-forward layers.
        dropout: rate on the embeddings, on the mixed values of the attentions and on every branch's output.
        stochastic_depth: the last layer's probability of losing a branch for a sequence; earlier layers' is smaller.
        share_layers: whether all layers of a stack are one block (ALBERT, Lan et al. 2020).
        key_value_heads: heads of keys and values, in all three attentions; None for as many as queries have.
        gradient_checkpointing: recompute each block in the backward pass instead of storing its activations.
    """

    causal: ClassVar[bool] = False
    transduces: ClassVar[bool] = True
    slots: ClassVar[dict[str, Slot]] = {
        "attention": Slot("encoder"),
        # What is padded in a target comes last, where no real token reads it.
        "decoder_attention": Slot("decoder", Capability.CAUSAL, "decoder_position", pads=False),
        "cross_attention": Slot("cross", Capability.CROSS, None),
    }

    def __init__(
        self,
        embedding: EmbeddingFactory,
        max_length: int,
        max_target: int | None = None,
        *,
        size: Size,
        attention: AttentionFactory,
        decoder_attention: AttentionFactory,
        cross_attention: AttentionFactory,
        position: PositionFactory,
        decoder_position: PositionFactory,
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
        self._max_target = max_length if max_target is None else max_target
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
        # The encoder has the name that a Stack's blocks have, so that with one seed both start from the same weights.
        self.tower = Tower(design, max_length, attention, position, causal=False)
        self.decoder = Tower(
            design,
            self.max_target,
            decoder_attention,
            decoder_position,
            causal=True,
            cross=cross_attention,
            max_memory=max_length,
        )

    @property
    def max_target(self) -> int:
        """The longest target."""
        return self._max_target

    def forward(
        self,
        inputs: Tensor,
        padding_mask: Bool[Tensor, "batch length"] | None = None,
        target: Tensor | None = None,
    ) -> Float[Tensor, "batch target d_model"]:
        """The decoder's hidden states.

        Args:
            inputs: the source, as the embedding takes it, such as token ids (batch length).
            padding_mask: True at real tokens of the source.
            target: what the decoder reads (batch target), padded on the right; the source where not given.

        Raises:
            DataError: a sequence is longer than the model can take.
        """
        return self.decode(inputs if target is None else target, self.encode(inputs, padding_mask))

    def encode(
        self,
        inputs: Tensor,
        padding_mask: Bool[Tensor, "batch length"] | None = None,
        positions: Int[Tensor, "#batch length"] | None = None,
    ) -> Memory:
        """What the decoder reads of a source.

        Args:
            inputs: the source, as the embedding takes it.
            padding_mask: True at real tokens.
            positions: of every token; counted from 0 where not given, which suits padding on the right.

        Raises:
            DataError: the source is longer than the model can take.
        """
        x = self.embedding(inputs)
        check_length(x.shape[1], self.max_length, self.decoder.attentions[1])
        hidden = self.tower(x, padding_mask, positions)  # which knows that it counts, where nobody gave positions
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)[None]
        return Memory(hidden, positions, padding_mask)

    def decode(
        self,
        target: Tensor,
        memory: Memory | None = None,
        *,
        padding_mask: Bool[Tensor, "batch target"] | None = None,
        positions: Int[Tensor, "#batch target"] | None = None,
        states: Sequence[State] | None = None,
    ) -> Float[Tensor, "batch target d_model"]:
        """The decoder's hidden states.

        Args:
            target: what the decoder reads (batch target), or the tokens that come next.
            memory: what `encode` gave; not needed with `states`, which hold it.
            padding_mask: True at real tokens of the target; needed where padding is on the left.
            positions: of every token; counted from 0 where not given, which suits padding on the right.
            states: one per layer while decoding, from `init_states`.

        Raises:
            DataError: the target is longer than the model can take.
        """
        hidden: Tensor = self.decoder(self.embedding(target), padding_mask, positions, states, memory)
        return hidden

    @property
    def incremental(self) -> bool:
        """Whether decoding can go on from a state instead of computing everything again."""
        return self.decoder.incremental

    @property
    def extrapolates(self) -> bool:
        """Whether sources may be longer than `max_length`; targets have `decoder.extrapolates`."""
        across = self.decoder.attentions[1]
        return self.tower.extrapolates and Capability.VARIABLE_LENGTH in across.provides

    def init_states(self, memory: Memory, max_length: int) -> list[State]:
        """One decoding state per layer, for targets of at most `max_length` tokens, the memory projected in each."""
        return self.decoder.init_states(max_length, memory)
