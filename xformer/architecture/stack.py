"""A stack of blocks with positions: what the encoder and the decoder share."""

from collections.abc import Callable, Sequence
from typing import ClassVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xformer.architecture.size import Size
from xformer.attention.base import Attention, AttentionContext, AttentionFactory
from xformer.attention.capability import Capability
from xformer.attention.mask import Mask
from xformer.attention.state import State
from xformer.errors import DataError
from xformer.layers.block import Block
from xformer.layers.feed_forward import Activation, feed_forward
from xformer.layers.multi_head import MultiHeadAttention
from xformer.layers.residual import NormPlacement
from xformer.position.base import PositionContext, PositionFactory

EmbeddingFactory = Callable[[int], nn.Module]
"""Builds the input layer, from whatever the data yields to vectors of the given width."""


class Stack(nn.Module):
    """Embedding, positions, blocks and, with pre-norm, a last norm.

    Args:
        embedding: builds the input layer from `size.d_model`.
        max_length: the longest sequence, in tokens.
        size: width, depth, heads.
        attention: builds one variant per layer.
        position: builds the position scheme.
        norm: `pre` or `post`.
        activation: of the feed-forward layers.
        dropout: rate on the embeddings, on the mixed values of the attention and on every branch's output.
        gradient_checkpointing: recompute each block in the backward pass instead of storing its activations.
    """

    causal: ClassVar[bool]
    needs: ClassVar[Capability]

    def __init__(
        self,
        embedding: EmbeddingFactory,
        max_length: int,
        *,
        size: Size,
        attention: AttentionFactory,
        position: PositionFactory,
        norm: NormPlacement,
        activation: Activation,
        dropout: float,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.size, self.max_length, self.gradient_checkpointing = size, max_length, gradient_checkpointing
        # Two branches a layer end in the residual sum: scaled so, its variance does not grow with depth (GPT-2).
        gain = (2 * size.layers) ** -0.5
        self.embedding = embedding(size.d_model)
        self.dropout = nn.Dropout(dropout)
        self.position = position(
            PositionContext(size.d_model, size.heads, size.head_dim, size.layers, max_length, self.causal)
        )

        def block(layer: int) -> Block:
            context = AttentionContext(size.heads, size.head_dim, max_length, max_length, self.causal, layer=layer)
            mixer = MultiHeadAttention(attention, context, size.d_model, dropout=dropout, gain=gain)
            forward = feed_forward(activation, size.d_model, size.feed_forward, gain=gain)
            return Block(mixer, forward, size.d_model, norm, dropout)

        self.blocks = nn.ModuleList(block(layer) for layer in range(size.layers))
        for other in self.blocks[1:]:
            cast(Block, other).attention.branch.mix.share_with(self.attention)
        self.norm = nn.LayerNorm(size.d_model) if norm == "pre" else nn.Identity()

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
        x = self.embedding(inputs)
        length = x.shape[1] + (states[0].length if states else 0)
        self._check_length(length)
        if positions is None:
            positions = torch.arange(length - x.shape[1], length, device=x.device)[None]
        x = self.dropout(self.position.embed(x, positions))
        mask = Mask(positions, positions, self.causal, padding_mask)
        for index, block in enumerate(self.blocks):
            if self.gradient_checkpointing and self.training:
                x = checkpoint(block, x, mask, self.position, use_reentrant=False, preserve_rng_state=True)
            else:
                x = block(x, mask, self.position, states[index] if states else None)
        return self.norm(x)  # type: ignore[no-any-return]

    @property
    def attention(self) -> Attention:
        """The first layer's attention, which speaks for all: they differ by their layer's index alone."""
        return cast(Block, self.blocks[0]).attention.branch.mix

    @property
    def incremental(self) -> bool:
        """Whether decoding can go on from a state instead of computing everything again."""
        return Capability.INCREMENTAL in self.attention.provides

    @property
    def extrapolates(self) -> bool:
        """Whether sequences may be longer than `max_length`."""
        return self.position.extrapolates and Capability.VARIABLE_LENGTH in self.attention.provides

    def init_states(self, max_length: int) -> list[State]:
        """One empty decoding state per layer, for sequences of at most `max_length` tokens."""
        return [cast(Block, block).attention.branch.mix.init_state(max_length) for block in self.blocks]

    def _check_length(self, length: int) -> None:
        if length > self.max_length and not self.extrapolates:
            culprit = self.attention if self.position.extrapolates else self.position
            raise DataError(
                f"A sequence of {length} tokens came, and {type(culprit).__name__} was built for {self.max_length}; "
                "shorten the data, or choose attention=full with position=sinusoidal, which have no limit."
            )
