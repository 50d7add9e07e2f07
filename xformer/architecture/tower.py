"""Positions, blocks and, with pre-norm, a last norm: what every architecture has once or twice."""

from collections.abc import Sequence
from typing import cast

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xformer.architecture.design import Design
from xformer.attention.base import Attention, AttentionContext, AttentionFactory
from xformer.core.capability import Capability
from xformer.core.mask import Mask, finite
from xformer.core.state import State
from xformer.errors import DataError
from xformer.layers.block import Block
from xformer.layers.memory import Memory
from xformer.position.base import Position, PositionContext, PositionFactory


class Tower(nn.Module):
    """A stack of blocks over sequences that are embedded already.

    Args:
        design: how blocks are made.
        max_length: the longest sequence, in tokens.
        attention: builds one variant per layer.
        position: builds the position scheme.
        causal: whether every token reads itself and those before it alone.
        cross: builds one variant per layer that reads a memory; None where there is no memory.
        max_memory: the longest memory, in tokens.

    Raises:
        IncompatibleError: the attention lacks what its role or the position scheme needs.
    """

    def __init__(
        self,
        design: Design,
        max_length: int,
        attention: AttentionFactory,
        position: PositionFactory,
        *,
        causal: bool,
        cross: AttentionFactory | None = None,
        max_memory: int = 0,
    ) -> None:
        super().__init__()
        size = design.size
        self.max_length, self.causal, self.layers = max_length, causal, size.layers
        self.gradient_checkpointing = design.gradient_checkpointing
        self.dropout = nn.Dropout(design.dropout)
        self.position = position(
            PositionContext(size.d_model, size.heads, size.head_dim, size.layers, max_length, causal)
        )

        def block(layer: int) -> Block:
            context = AttentionContext(size.heads, size.head_dim, max_length, max_length, causal, layer=layer)
            across = AttentionContext(size.heads, size.head_dim, max_length, max_memory, False, True, layer)
            return design.block((attention, context), None if cross is None else (cross, across))

        self.blocks = nn.ModuleList(block(layer) for layer in range(1 if design.share_layers else size.layers))
        self.attentions[0].require(self.position.needs)
        for other in self.blocks[1:]:
            for mix, first in zip(cast(Block, other).attentions, self.attentions, strict=True):
                mix.share_with(first)
        self.norm = design.last_norm()

    def forward(
        self,
        x: Float[Tensor, "batch length d_model"],
        padding_mask: Bool[Tensor, "batch length"] | None = None,
        positions: Int[Tensor, "#batch length"] | None = None,
        states: Sequence[State] | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "batch length d_model"]:
        """The hidden states of a batch.

        Args:
            x: the embedded tokens.
            padding_mask: True at real tokens.
            positions: of every token; counted from 0 where not given, which suits padding on the right.
            states: one per layer while decoding; `x` are then the tokens that come next.
            memory: what cross-attention reads; while decoding, the states hold it.

        Raises:
            DataError: the sequence is longer than the model can take.
        """
        length = x.shape[1] + (states[0].length if states else 0)
        if length > self.max_length:
            check_length(length, self.max_length, self.position, self.attentions[0])
        if positions is None:
            start = length - x.shape[1]
            mask = Mask.consecutive(start, x.shape[1], causal=self.causal, key_padding=padding_mask, device=x.device)
        else:
            mask = Mask(positions, positions, self.causal, padding_mask)
        if padding_mask is not None:
            x = finite(x, ~padding_mask[..., None])
        x = self.dropout(self.position.embed(x, mask.query_positions))
        blocks = list(self.blocks)  # to index the modules themselves is slow, and decoding comes by often
        for layer in range(self.layers):
            block, state = blocks[layer % len(blocks)], states[layer] if states else None
            if self.gradient_checkpointing and self.training:
                about = mask, self.position, layer, state, memory
                x = checkpoint(block, x, *about, use_reentrant=False, preserve_rng_state=True)
            else:
                x = block(x, mask, self.position, layer, state, memory)
        return self.norm(x)  # type: ignore[no-any-return]

    def block(self, layer: int) -> Block:
        """A layer's block; with shared parameters, the same for all."""
        return cast(Block, self.blocks[layer % len(self.blocks)])

    @property
    def attentions(self) -> list[Attention]:
        """The first layer's, self-attention and cross-attention: they speak for all, which differ by index alone."""
        return self.block(0).attentions

    @property
    def incremental(self) -> bool:
        """Whether decoding can go on from a state instead of computing everything again."""
        return Capability.INCREMENTAL in self.attentions[0].provides

    @property
    def extrapolates(self) -> bool:
        """Whether sequences may be longer than `max_length`."""
        return _extrapolates(self.position) and _extrapolates(self.attentions[0])

    def init_states(self, max_length: int, memory: Memory | None = None) -> list[State]:
        """One empty decoding state per layer, for sequences of at most `max_length` tokens."""
        return [self.block(layer).init_state(max_length, memory) for layer in range(self.layers)]


def check_length(length: int, limit: int, *parts: Position | Attention) -> None:
    """Refuse a sequence that one of these parts was not built for.

    Raises:
        DataError: naming the part.
    """
    culprit = next((part for part in parts if length > limit and not _extrapolates(part)), None)
    if culprit is not None:
        raise DataError(
            f"A sequence of {length} tokens came, and {type(culprit).__name__} was built for {limit}; "
            "shorten the data, or choose attention=full with position=sinusoidal, which have no limit."
        )


def _extrapolates(part: Position | Attention) -> bool:
    return part.extrapolates if isinstance(part, Position) else Capability.VARIABLE_LENGTH in part.provides
