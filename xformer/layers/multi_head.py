"""The projections, rotation and decoding state that all attention variants share.

Shapes: b batch, q queries, k keys, h heads, g heads of keys and values, d features of one head.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from xformer.attention.base import Attention, AttentionContext, Capable
from xformer.attention.mixer import TokenMixer
from xformer.core.capability import Capability
from xformer.core.linear import Linear
from xformer.core.mask import Mask
from xformer.core.memory import KeysValues, Memory
from xformer.core.state import State
from xformer.errors import ConfigError
from xformer.position.base import Position


class MultiHeadAttention(TokenMixer):
    """Multi-head attention: mix(x W_Q, x W_K, x W_V) W_O, `mix` being a variant (Vaswani et al. 2017, section 3.2.2).

    With fewer heads of keys and values than of queries, each serves a group of neighbouring query heads: grouped-query
    attention (Ainslie et al. 2023), and multi-query attention with only one (Shazeer 2019). The variants are
    unaffected, because keys and values are repeated for each query head. So it saves parameters, projections and, in
    cross-attention, the memory's cache; a decoding state of self-attention stays as large as with all heads.

    It provides the capabilities of its variant.

    Args:
        attention: builds the variant from `context`.
        context: heads, dimensions and role of this layer.
        d_model: features of x.
        dropout: rate on the mixed values, the one place where attention dropout acts, for every variant.
        gain: scale of the output projection's initial values.
        key_value_heads: heads of keys and values; None for as many as queries have.

    Raises:
        ConfigError: `key_value_heads` does not divide the heads.
    """

    provides: ClassVar[Capability] = ~Capability.NONE

    def __init__(
        self,
        attention: Callable[[AttentionContext], Attention],
        context: AttentionContext,
        d_model: int,
        *,
        dropout: float = 0.0,
        gain: float = 1.0,
        key_value_heads: int | None = None,
    ) -> None:
        super().__init__(context)
        groups = context.heads if key_value_heads is None else key_value_heads
        if groups < 1 or context.heads % groups:
            divisors = [str(n) for n in range(1, context.heads + 1) if context.heads % n == 0]
            raise ConfigError(
                f"architecture.key_value_heads={groups} does not divide size.heads={context.heads}; use "
                f"{', '.join(divisors)}, or null for all of them."
            )
        self.group = context.heads // groups
        self.query = Linear(d_model, context.heads * context.head_dim)
        self.key = Linear(d_model, groups * context.head_dim)
        self.value = Linear(d_model, groups * context.head_dim)
        self.mix = attention(context)
        self.provides, self.reasons = self.mix.provides, self.mix.reasons  # type: ignore[misc]
        self.dropout = nn.Dropout(dropout)
        self.output = Linear(context.heads * context.head_dim, d_model, gain=gain)

    @property
    def variant(self) -> str:
        """The name of the variant, for messages."""
        return self.mix.variant

    def forward(
        self,
        x: Float[Tensor, "b q d_model"],
        *,
        mask: Mask,
        position: Position | None,
        layer: int,
        state: State | None,
    ) -> Float[Tensor, "b q d_model"]:
        """Attend from x to x or, while decoding, to everything that `state` holds and x.

        Args:
            x: the sequence.
            mask: its positions, causality and padding.
            position: rotates queries and keys, and gives the bias; None for no position scheme.
            layer: the layer of the bias, if one module serves several layers.
            state: the decoding state of the variant, from `init_state`.
        """
        query, key, value = (self._split(project(x)) for project in (self.query, self.key, self.value))
        if position is not None:
            query, key = position.rotate(query, mask.query_positions), position.rotate(key, mask.key_positions)
        key, value = self._for_all_heads(key), self._for_all_heads(value)
        bias = None if position is None else position.bias(layer)
        if bias is not None:
            query = bias.shift(query)
        if state is None or query.shape[2] == 0:  # no token changes no state
            return self._merge(self.mix(query, key, value, mask=mask, bias=bias))
        return self._merge(self.mix.step(query, key, value, state, mask=mask, bias=bias))

    def share_with(self, first: "MultiHeadAttention") -> None:
        """Let the variant share parameters with the first layer."""
        self.mix.share_with(first.mix)

    def before_batch(self, step: int) -> None:
        """Let the variant prepare for a training batch."""
        self.mix.before_batch(step)

    def init_state(self, max_length: int) -> State:
        """The variant's decoding state."""
        return self.mix.init_state(max_length)

    def _check(self, mask: Mask, position: Position | None, state: State | None) -> None:
        """Check nothing: the variant refuses what it does not declare."""

    def _for_all_heads(self, x: Float[Tensor, "b g k d"]) -> Float[Tensor, "b h k d"]:
        return x if self.group == 1 else x.repeat_interleave(self.group, dim=1)

    def _split(self, x: Float[Tensor, "b n features"]) -> Float[Tensor, "b heads n d"]:
        heads = x.shape[-1] // self.context.head_dim
        return x.view(*x.shape[:2], heads, self.context.head_dim).transpose(1, 2)  # b n (h d) -> b h n d

    def _merge(self, mixed: Float[Tensor, "b h q d"]) -> Float[Tensor, "b q d_model"]:
        mixed = mixed.transpose(1, 2).flatten(-2)  # b h q d -> b q (h d)
        merged: Tensor = self.output(self.dropout(mixed) if self.training else mixed)
        return merged


class CrossAttention(MultiHeadAttention):
    """Cross-attention from one sequence to the memory of another, without rotation or relative bias.

    Positions of two sequences have no distance (T5, Raffel et al. 2020, has no bias here either).
    """

    def project(self, memory: Memory) -> KeysValues:
        """The memory's keys and values, before they are repeated for groups of query heads."""
        key, value = (self._split(project(memory.hidden)) for project in (self.key, self.value))
        return KeysValues(key, value, memory.positions, memory.padding_mask)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "b q d_model"], *, mask: Mask, memory: KeysValues, **_: Any
    ) -> Float[Tensor, "b q d_model"]:
        """Attend from x, whose positions are in `mask`, to all tokens of the memory except padding."""
        across = Mask(mask.query_positions, memory.positions, key_padding=memory.padding_mask)
        query, key, value = self._split(self.query(x)), *map(self._for_all_heads, (memory.keys, memory.values))
        return self._merge(self.mix(query, key, value, mask=across))


def token_mixer(made: Capable, *, key_value_heads: int | None = None) -> TokenMixer:
    """Build the token mixer of a layer: an attention variant is wrapped in its projections.

    Args:
        made: the attention or token mixer that the option built from the layer's context.
        key_value_heads: heads of keys and values, only for an attention; None for as many as queries have.

    Raises:
        ConfigError: `key_value_heads` does not divide the heads.
    """
    if isinstance(made, TokenMixer):
        return made
    assert isinstance(made, Attention)
    context = made.context
    return (CrossAttention if context.cross else MultiHeadAttention)(
        lambda _: made,
        context,
        context.d_model,
        dropout=context.dropout,
        gain=context.gain,
        key_value_heads=key_value_heads,
    )
