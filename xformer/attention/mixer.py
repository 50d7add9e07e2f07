"""The base class of token mixers, which have their own projections and replace multi-head attention.

    Attention     mixes the values of given queries and keys, head by head                 (`base.py`)
    TokenMixer    reads x and owns its projections, gates, convolutions and state          (here)

Both stand in the same place of a block, are options of `conf/attention/`, and declare what they can do in the same way.
`MultiHeadAttention` makes a token mixer of every `Attention`; gated linear attention or a state-space model is one
itself. Shapes: b batch, n tokens, k tokens of another sequence.
"""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from xformer.attention.base import AttentionContext, Capable
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.core.memory import KeysValues, Memory
from xformer.core.state import State
from xformer.position.base import Position


class TokenMixer(Capable):
    """The base class of token mixers, from (b, n, d_model) to the same shape.

    A mixer that declares INCREMENTAL returns a state from `init_state`, whose `length` is the number of tokens,
    including padding; `forward` with that state reads one or more next tokens and updates it. The `reset_parameters` of
    the mixer and of its parts set initial values, each with its own generator (`xformer.layers.initialise`); the last
    projection is `Linear(..., gain=context.gain)`. Padding has no effect on the output of other tokens, the state and
    gradients; its content is finite.

    Args:
        context: the layer's dimensions and role. A subclass adds its own hyper-parameters, keyword-only.

    Attributes:
        auxiliary_loss: a weighted term from the last training `forward`, which the task adds to its loss and logs; None
            without one.

    Raises:
        IncompatibleError: the context needs a capability that the class does not declare.
    """

    auxiliary_loss: Float[Tensor, ""] | None = None

    def __init__(self, context: AttentionContext) -> None:
        super().__init__(context)

    def __call__(
        self,
        x: Float[Tensor, "b n d_model"],
        *,
        mask: Mask | None = None,
        position: Position | None = None,
        layer: int | None = None,
        state: State | None = None,
        **cross: Any,
    ) -> Float[Tensor, "b n d_model"]:
        """Refuse capabilities that are not declared, then run `forward`.

        Args:
            x: the sequence or, with a state, the next tokens.
            mask: their positions, causality and padding; None for consecutive tokens without padding, causal if
                `context` is.
            position: the layer's position scheme; None for none.
            layer: the index of the layer, if one module serves several; None for `context.layer`.
            state: the decoding state, from `init_state`.
            cross: `memory`, the result of `project`, if the mixer reads another sequence.

        Raises:
            IncompatibleError: the call needs a capability that the class does not declare.
        """
        if mask is None:
            start = 0 if state is None else state.length
            mask = Mask.consecutive(start, x.shape[1], causal=self.context.causal, device=x.device)
        self._check(mask, position, state)
        layer = self.context.layer if layer is None else layer
        mixed: Tensor = super().__call__(x, mask=mask, position=position, layer=layer, state=state, **cross)
        return mixed

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "b n d_model"],
        *,
        mask: Mask,
        position: Position | None,
        layer: int,
        state: State | None,
    ) -> Float[Tensor, "b n d_model"]:
        """Mix the tokens; a mixer without positions of its own ignores `position` and `layer`."""

    def undecayed(self) -> Iterable[nn.Parameter]:
        """The matrices without weight decay, in addition to all vectors and scalars."""
        return ()

    def project(self, memory: Memory) -> KeysValues:
        """Project the memory of another sequence once for all decoding steps.

        For mixers that declare CROSS; their `forward` takes it as `memory`.
        """
        raise self._refusal(Capability.CROSS)

    def _check(self, mask: Mask, position: Position | None, state: State | None) -> None:
        if self.context.cross:
            return self.require(
                Capability.CROSS | (Capability.PADDING if mask.key_padding is not None else Capability.NONE)
            )
        self._check_mask(mask)
        if position is not None:
            self.require(position.needs)
        if state is not None:
            self.require(Capability.INCREMENTAL)
