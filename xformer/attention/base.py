"""The base class of attention variants, and the context with which a layer builds one.

Shapes: b batch, h heads, q queries, k keys, d features of one head.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from xformer.core.bias import RelativeBias, TableBias
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.core.state import KeyValueState, State
from xformer.errors import IncompatibleError
from xformer.position.base import PositionFactory


@dataclass(frozen=True)
class AttentionContext:
    """The dimensions and role of a layer, from which it builds its attention or token mixer.

    An attention does not use width, dropout and gain: `MultiHeadAttention` applies dropout to its mixed values, equally
    for all variants, because linear attentions have no probabilities to drop, and dropping those of others would
    confound a comparison. For the same reason a token mixer applies dropout to the input of its output projection.

    Attributes:
        heads: query heads.
        head_dim: the features of one head.
        max_query: the longest sequence of queries, in tokens.
        max_key: the longest sequence of keys.
        causal: whether every token attends only to itself and earlier tokens.
        cross: whether queries and keys come from different sequences.
        layer: the index of the layer in its stack.
        first: the first layer of the stack with the same variant, with which later ones may share parameters.
        d_model: features of a token; 0 for `heads * head_dim`.
        dropout: rate on the mixed values.
        gain: scale of the output projection's initial values.
        path: of the option in the configuration, for messages, such as `decoder_attention`.
    """

    heads: int
    head_dim: int
    max_query: int
    max_key: int
    causal: bool
    cross: bool = False
    layer: int = 0
    first: int = 0
    d_model: int = 0
    dropout: float = 0.0
    gain: float = 1.0
    path: str = "attention"

    def __post_init__(self) -> None:
        object.__setattr__(self, "d_model", self.d_model or self.heads * self.head_dim)

    @property
    def role(self) -> Capability:
        """The capabilities that this layer requires."""
        if self.cross:
            return Capability.CROSS
        return Capability.CAUSAL if self.causal else Capability.BIDIRECTIONAL


class Capable(nn.Module, ABC):
    """A module that declares its capabilities and refuses all others: base class of attentions and token mixers.

    Args:
        context: the layer's dimensions and role.

    Raises:
        IncompatibleError: the context needs a capability that the class does not declare.
    """

    provides: ClassVar[Capability] = Capability.NONE
    reasons: ClassVar[dict[Capability, str]] = {}
    """The reason for each missing capability, as a sentence for the user."""
    layer_position: PositionFactory | None = None
    """Builds the layer's own position scheme, which replaces the stack's, in a hybrid that sets one."""

    def __init__(self, context: AttentionContext) -> None:
        super().__init__()
        self.context = context
        self.require(context.role)

    @property
    def variant(self) -> str:
        """The name of the variant, for messages."""
        return type(self).__name__

    def share_with(self, first: Any) -> None:
        """Share parameters with the first layer; most variants share nothing.

        Called on every later layer of the same variant with the first one, that of `context.first`.
        """

    def before_batch(self, step: int) -> None:
        """Prepare for a training batch, for example by redrawing random features; most variants do nothing.

        Random draws must depend only on the step and on state saved with the weights, so that ranks agree.

        Args:
            step: optimiser steps done; all batches of an accumulation have the same.
        """

    def init_state(self, max_length: int) -> State:
        """An empty decoding state for sequences of at most `max_length` tokens."""
        raise self._refusal(Capability.INCREMENTAL)

    def require(self, capability: Capability) -> None:
        """Refuse capabilities that are not declared.

        Raises:
            IncompatibleError: naming the first capability that is missing, and why.
        """
        if not capability.value & ~self.provides.value:  # on numbers, as flags are slow and every step asks
            return
        for missing in capability & ~self.provides:
            raise self._refusal(missing)

    def _check_mask(self, mask: Mask) -> None:
        if mask.causal:
            self.require(Capability.CAUSAL)
        elif not self.context.cross:
            self.require(Capability.BIDIRECTIONAL)
        if mask.key_padding is not None:
            self.require(Capability.PADDING)

    def _refusal(self, capability: Capability) -> IncompatibleError:
        reason = self.reasons.get(capability, "it does not declare this capability.")
        return IncompatibleError(f"{self.variant} cannot do {capability.name}: {reason}")


class Attention(Capable):
    """The base class of attention variants: each query receives a weighted mean of the values it may read.

    Args:
        context: the layer's dimensions and role. A subclass adds its own hyper-parameters, keyword-only.

    Raises:
        IncompatibleError: the context needs a capability that the class does not declare.
    """

    def __call__(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d"],
        value: Float[Tensor, "b h k d"],
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h q d"]:
        """Refuse capabilities that are not declared, then run `forward`; without rows or queries, return no values."""
        self._check(mask, bias)
        if query.numel() == 0:  # no kernel has to divide nothing into blocks; gradients are zeros and not None
            return query + sum(tensor.sum() for tensor in (key, value, *self.parameters()))
        mixed: Tensor = super().__call__(query, key, value, mask=mask, bias=bias)
        return mixed

    @abstractmethod
    def forward(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d"],
        value: Float[Tensor, "b h k d"],
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h q d"]:
        """Mix the values; a query with nothing to attend to yields zeros."""

    def step(
        self,
        query: Float[Tensor, "b h new d"],
        key: Float[Tensor, "b h new d"],
        value: Float[Tensor, "b h new d"],
        state: State,
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h new d"]:
        """Attend for the next tokens, whose positions and padding are in `mask`, and add them to `state`."""
        raise self._refusal(Capability.INCREMENTAL)

    def _check(self, mask: Mask, bias: RelativeBias | None) -> None:
        self._check_mask(mask)
        if bias is not None:
            self.require(Capability.BIAS if isinstance(bias, TableBias) else Capability.CONTENT_BIAS)


class CachedAttention(Attention):
    """Attention that decodes with a key-value cache: the base class of variants with a score for each key."""

    def __call__(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d"],
        value: Float[Tensor, "b h k d"],
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h q d"]:
        """Run `forward` with padding masked."""
        return super().__call__(*mask.blank(query, key, value), mask=mask, bias=bias)

    def init_state(self, max_length: int) -> KeyValueState:
        """An empty cache for the keys and values of `max_length` tokens."""
        return KeyValueState(max_length)

    def step(
        self,
        query: Float[Tensor, "b h new d"],
        key: Float[Tensor, "b h new d"],
        value: Float[Tensor, "b h new d"],
        state: State,
        *,
        mask: Mask,
        bias: RelativeBias | None = None,
    ) -> Float[Tensor, "b h new d"]:
        """Append the new keys and values to the cache, then attend to all of it."""
        assert isinstance(state, KeyValueState)
        self._check(mask, bias)
        query, key, value = mask.blank(query, key, value)
        start = None if mask.offsets is None else mask.offsets[0]
        state.append(key, value, mask.key_positions, mask.key_padding, start=start)
        if state.length == query.shape[2]:  # nothing came before
            return self.forward(query, key, value, mask=mask, bias=bias)
        offsets = None if start is None or state.padding is not None else (start, 0)
        causal = mask.causal and query.shape[2] > 1  # nothing comes after a single one
        past = Mask(mask.query_positions, state.positions, causal, state.padding, offsets)
        return self.forward(query, state.keys, state.values, mask=past, bias=bias)


AttentionFactory = Callable[[AttentionContext], Capable]
"""What `conf/attention/*.yaml` instantiates to; every layer builds its own attention or token mixer from it."""
