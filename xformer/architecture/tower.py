"""A tower: positions, a stack of blocks and a last norm; each architecture has one or two."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Unpack, cast

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xformer.architecture.block_options import BlockOptions, build_block, last_norm, residual_gain
from xformer.architecture.size import Size
from xformer.attention.base import AttentionContext, AttentionFactory, Capable
from xformer.attention.mixer import TokenMixer
from xformer.core.capability import Capability
from xformer.core.mask import Mask, finite
from xformer.core.memory import Memory
from xformer.core.state import State
from xformer.errors import DataError
from xformer.layers.block import Block
from xformer.position.base import Position, PositionContext, PositionFactory


class Tower(nn.Module):
    """A stack of blocks over embedded sequences, with positions and a last norm.

    Args:
        max_length: the longest sequence, in tokens.
        attention: builds the attention or token mixer of a layer.
        position: builds the position scheme.
        causal: whether every token attends only to itself and earlier tokens.
        cross: builds the cross-attention of each layer; None without a memory.
        max_memory: the longest memory, in tokens.
        prefix: what the configuration's keys of attention and position begin with, such as `decoder_`, for messages.
        options: the options of the blocks.

    Raises:
        IncompatibleError: a layer lacks what its role or the position scheme needs.
    """

    stable_names: ClassVar[dict[str, str]] = {"layer_positions": "own_positions"}

    auxiliary_loss: Float[Tensor, ""] | None = None
    """The sum of the mixers' auxiliary losses of the last training pass; None without any."""

    def __init__(
        self,
        max_length: int,
        attention: AttentionFactory,
        position: PositionFactory,
        *,
        causal: bool,
        cross: AttentionFactory | None = None,
        max_memory: int = 0,
        prefix: str = "",
        **options: Unpack[BlockOptions],
    ) -> None:
        super().__init__()
        size, dropout = options["size"], options["dropout"]
        self.max_length, self.causal, self.layers = max_length, causal, size.layers
        self.gradient_checkpointing = options["gradient_checkpointing"]
        self.dropout = nn.Dropout(dropout)
        gain = residual_gain(options, branches=2 if cross is None else 3)

        def context(layer: int, *, crosses: bool) -> AttentionContext:
            longest, reads = (max_memory, False) if crosses else (max_length, causal)
            path = "cross_attention" if crosses else f"{prefix}attention"
            return AttentionContext(
                size.heads,
                size.head_dim,
                max_length,
                longest,
                reads,
                crosses,
                layer,
                dropout=dropout,
                gain=gain,
                path=path,
            )

        layers = range(1 if options["share_layers"] else size.layers)
        within = [attention(context(layer, crosses=False)) for layer in layers]
        across = [None if cross is None else cross(context(layer, crosses=True)) for layer in layers]
        self._build_positions(within, position, size, f"{prefix}position")
        self.blocks = nn.ModuleList(build_block(options, *each) for each in zip(within, across, strict=True))
        for mixers in self.mixers:
            for mixer in mixers[1:]:
                mixer.share_with(mixers[mixer.context.first])
        for mixer, (scheme, _) in zip(self.mixers[0], self._positions, strict=False):
            mixer.require(scheme.needs)
        self.norm = last_norm(options)

    def _build_positions(self, variants: Sequence[Capable], position: PositionFactory, size: Size, path: str) -> None:
        """Build the stack's position scheme and those of single layers; each numbers the layers that it serves."""

        def build(factory: PositionFactory, layers: int) -> Position:
            return factory(
                PositionContext(size.d_model, size.heads, size.head_dim, layers, self.max_length, self.causal, path)
            )

        served = [variants[layer % len(variants)] for layer in range(self.layers)]
        kinds = ["" if made.layer_position is None else str(made.context.first) for made in served]
        self.position = build(position, kinds.count("") or 1)
        self.layer_positions = nn.ModuleDict(
            {kind: build(made.layer_position, kinds.count(kind)) for kind, made in zip(kinds, served, strict=True)
             if made.layer_position is not None and kind == str(made.context.layer)}
        )  # fmt: skip
        self._positions = [
            (cast(Position, self.layer_positions[kind]) if kind else self.position, kinds[:layer].count(kind))
            for layer, kind in enumerate(kinds)
        ]
        """Each layer's position scheme, and the layer's index among those that the scheme serves."""

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
            padding_mask: False at padding.
            positions: the position of every token; by default counted from 0, which suits padding on the right.
            states: one per layer while decoding; `x` are then the next tokens.
            memory: the input of cross-attention; while decoding, the states hold it.

        Raises:
            DataError: the sequence is too long for the model.
        """
        length = x.shape[1] + (states[0].length if states else 0)
        if length > self.max_length:
            check_length(length, self.max_length, self.limited_by)
        if positions is None:
            start = length - x.shape[1]
            mask = Mask.consecutive(start, x.shape[1], causal=self.causal, key_padding=padding_mask, device=x.device)
        else:
            mask = Mask(positions, positions, self.causal, padding_mask)
        if padding_mask is not None:
            x = finite(x, ~padding_mask[..., None])
        x = self.dropout(self.position.embed(x, mask.query_positions))
        if self.training:
            self.auxiliary_loss = None
        blocks = list(self.blocks)  # to index the modules themselves is slow, and decoding comes by often
        for layer in range(self.layers):
            block, state = cast(Block, blocks[layer % len(blocks)]), states[layer] if states else None
            position, served = self._positions[layer]
            about = mask, position, layer, served, state, memory
            if not self.training:
                x = block(x, *about)
                continue
            if self.gradient_checkpointing:
                x = checkpoint(block, x, *about, use_reentrant=False, preserve_rng_state=True)
            else:
                x = block(x, *about)
            self._add_auxiliary_losses(block.mixers)
        return self.norm(x)  # type: ignore[no-any-return]

    def _add_auxiliary_losses(self, mixers: Iterable[TokenMixer]) -> None:
        for mixer in mixers:
            asked, mixer.auxiliary_loss = mixer.auxiliary_loss, None
            if asked is not None:
                self.auxiliary_loss = asked if self.auxiliary_loss is None else self.auxiliary_loss + asked

    def block(self, layer: int) -> Block:
        """A layer's block; with shared parameters, the same for all."""
        return cast(Block, self.blocks[layer % len(self.blocks)])

    @property
    def mixers(self) -> list[list[TokenMixer]]:
        """The token mixers of all blocks and, if there is a memory, their cross-attentions."""
        return [list(place) for place in zip(*(cast(Block, block).mixers for block in self.blocks), strict=True)]

    @property
    def incremental(self) -> bool:
        """Whether decoding can use a state instead of recomputing the whole sequence."""
        return all(Capability.INCREMENTAL in mixer.provides for mixer in self.mixers[0])

    @property
    def extrapolates(self) -> bool:
        """Whether sequences may be longer than `max_length`."""
        return not self.limited_by

    @property
    def limited_by(self) -> list[str]:
        """The position scheme and the variants that are not defined beyond `max_length`, each once."""
        schemes = [scheme for scheme in (self.position, *self.layer_positions.values()) if isinstance(scheme, Position)]
        names = dict.fromkeys(type(scheme).__name__ for scheme in schemes if not scheme.extrapolates)
        return [*names, *limited(self.mixers[0])]

    def init_states(self, max_length: int, memory: Memory | None = None) -> list[State]:
        """One empty decoding state per layer, for sequences of at most `max_length` tokens."""
        return [self.block(layer).init_state(max_length, memory) for layer in range(self.layers)]


def limited(mixers: Iterable[TokenMixer]) -> list[str]:
    """The variants that cannot read a sequence longer than they were built for, each once."""
    return [*dict.fromkeys(mixer.variant for mixer in mixers if Capability.VARIABLE_LENGTH not in mixer.provides)]


def check_length(length: int, limit: int, limited_by: Sequence[str]) -> None:
    """Refuse a sequence longer than one of these parts was built for.

    Raises:
        DataError: naming the part.
    """
    if length > limit and limited_by:
        raise DataError(
            f"A sequence has {length} tokens, and {limited_by[0]} was built for at most {limit}; "
            "shorten the data, or choose attention=full with position=sinusoidal, which have no limit."
        )
