"""The encoder-decoder architecture (Vaswani et al. 2017, figure 1): it generates a target from a source.

    memory = encoder(source),    hidden_i = decoder(target_0 ... target_i, memory)

Every layer of the decoder has causal self-attention, cross-attention to the memory and feed-forward. Source and target
share their embedding (section 3.4) and the size of both stacks. Cross-attention has no positions of its own: those of
two sequences have no distance.

Without a target, the decoder reads the source too (BART, Lewis et al. 2020, section 3.1), so that tasks that only need
hidden states, such as classification, can compare it with the other architectures.
"""

from collections.abc import Sequence
from typing import ClassVar, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xformer.architecture.base import Architecture, EmbeddingFactory
from xformer.architecture.block_options import BlockOptions
from xformer.architecture.slot import Slot
from xformer.architecture.tower import Tower, check_length, limited
from xformer.attention.base import AttentionFactory
from xformer.core.capability import Capability
from xformer.core.memory import Memory
from xformer.core.state import State
from xformer.position.base import PositionFactory


class EncoderDecoder(Architecture):
    """Encoder-decoder architecture: a bidirectional stack, and a causal stack that attends to its output.

    Args:
        embedding: builds the input layer of both sides from `size.d_model`.
        max_length: the longest source, in tokens.
        max_target: the longest target; None for as long as a source.
        attention: builds the encoder's self-attention.
        decoder_attention: builds the decoder's self-attention.
        cross_attention: builds the decoder's cross-attention.
        position: builds the encoder's position scheme.
        decoder_position: builds the decoder's.
        options: the options of the blocks of both stacks.
    """

    causal: ClassVar[bool] = False
    transduces: ClassVar[bool] = True
    slots: ClassVar[dict[str, Slot]] = {
        "attention": Slot("encoder"),
        # Padding of a target comes last, where no valid token attends to it.
        "decoder_attention": Slot("decoder", Capability.CAUSAL, "decoder_position", pads=False),
        "cross_attention": Slot("cross", Capability.CROSS, None),
    }

    def __init__(
        self,
        embedding: EmbeddingFactory,
        max_length: int,
        max_target: int | None = None,
        *,
        attention: AttentionFactory,
        decoder_attention: AttentionFactory,
        cross_attention: AttentionFactory,
        position: PositionFactory,
        decoder_position: PositionFactory,
        **options: Unpack[BlockOptions],
    ) -> None:
        super().__init__()
        self.size, self.max_length = options["size"], max_length
        self._max_target = max_length if max_target is None else max_target
        self.embedding = embedding(self.size.d_model)
        # The encoder has the name that a Stack's blocks have, so that with one seed both start from the same weights.
        self.tower = Tower(max_length, attention, position, causal=False, **options)
        self.decoder = Tower(
            self.max_target,
            decoder_attention,
            decoder_position,
            causal=True,
            cross=cross_attention,
            max_memory=max_length,
            prefix="decoder_",
            **options,
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
            inputs: the source as input of the embedding, such as token ids (batch length).
            padding_mask: False at padding of the source.
            target: the input of the decoder (batch target), padded on the right; by default the source.

        Raises:
            DataError: a sequence is too long for the model.
        """
        return self.decode(inputs if target is None else target, self.encode(inputs, padding_mask))

    def encode(
        self,
        inputs: Tensor,
        padding_mask: Bool[Tensor, "batch length"] | None = None,
        positions: Int[Tensor, "#batch length"] | None = None,
    ) -> Memory:
        """Encode a source into the memory that the decoder reads.

        Args:
            inputs: the source as input of the embedding.
            padding_mask: False at padding.
            positions: the position of every token; by default counted from 0, which suits padding on the right.

        Raises:
            DataError: the source is too long for the model.
        """
        x = self.embedding(inputs)
        check_length(x.shape[1], self.max_length, limited(self.decoder.mixers[1]))
        hidden = self.tower(x, padding_mask, positions)  # without positions, it uses consecutive ones
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
            target: the input of the decoder (batch target), or the next tokens.
            memory: the result of `encode`; not needed with `states`, which hold it.
            padding_mask: False at padding of the target; required if padding is on the left.
            positions: the position of every token; by default counted from 0, which suits padding on the right.
            states: one per layer while decoding, from `init_states`.

        Raises:
            DataError: the target is too long for the model.
        """
        hidden: Tensor = self.decoder(self.embedding(target), padding_mask, positions, states, memory)
        return hidden

    @property
    def incremental(self) -> bool:
        """Whether decoding can use a state instead of recomputing the whole sequence."""
        return self.decoder.incremental

    @property
    def extrapolates(self) -> bool:
        """Whether sources may be longer than `max_length`; targets have `decoder.extrapolates`."""
        return self.tower.extrapolates and not limited(self.decoder.mixers[1])

    def init_states(self, memory: Memory, max_length: int) -> list[State]:
        """One decoding state per layer, for targets of at most `max_length` tokens, the memory projected in each."""
        return self.decoder.init_states(max_length, memory)
