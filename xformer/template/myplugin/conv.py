r"""A gated short convolution over the last few tokens of each feature.

"LFM2 Technical Report" (Liquid AI 2025), the gated short convolution:

    (b, c, h) = W x,     y_i = sum_j w_j * (b * h)_(i - j),     output = W_o (c * y)

with j = 0 ... width - 1. Time and memory O(n d); decoding remembers width - 1 tokens. No deviation.

Not supported: a bidirectional form, because it reads only earlier tokens; biases and rotation, because pairs of tokens
have no score.
"""

from typing import Annotated, ClassVar

from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor, nn

from xformer.attention.base import AttentionContext
from xformer.attention.kernels.linear_recurrence.convolution import ShortConvolution
from xformer.attention.mixer import TokenMixer
from xformer.core.capability import Capability
from xformer.core.linear import Linear
from xformer.core.mask import Mask
from xformer.core.state import State
from xformer.position.base import Position


class ConvState(State):
    """The last width - 1 tokens of b * h."""

    past: Float[Tensor, "b before d_model"] | None = None

    def reorder(self, indices: Int[Tensor, " batch"]) -> None:
        """Replace row i by row `indices[i]`."""
        self.past = None if self.past is None else self.past.index_select(0, indices)

    @property
    def bytes(self) -> int:
        """The memory in bytes."""
        return 0 if self.past is None else self.past.numel() * self.past.element_size()


class MyPluginConv(TokenMixer):
    """A causal convolution of each feature over its last few tokens, gated before and after.

    Args:
        context: the layer's dimensions and role.
        width: the number of tokens that each output reads, including its own.
    """

    # Capabilities that are not declared are refused with the message in `reasons`.
    provides: ClassVar[Capability] = (
        Capability.CAUSAL | Capability.PADDING | Capability.INCREMENTAL | Capability.VARIABLE_LENGTH
    )
    reasons: ClassVar[dict[Capability, str]] = {
        Capability.BIDIRECTIONAL: "its convolution reads earlier tokens alone.",
        Capability.CROSS: "its convolution reads its own sequence.",
        Capability.BIAS: "it has no score of a pair of tokens.",
        Capability.CONTENT_BIAS: "it has no score of a pair of tokens.",
        Capability.ROTARY: "it has no score of a pair of tokens.",
    }

    def __init__(self, context: AttentionContext, *, width: Annotated[int, Ge(2)]) -> None:
        super().__init__(context)
        self.input = Linear(context.d_model, 3 * context.d_model, bias=False)
        self.convolution = ShortConvolution(context.d_model, width)  # skips padding anywhere
        self.dropout = nn.Dropout(context.dropout)
        self.output = Linear(context.d_model, context.d_model, bias=False, gain=context.gain)

    def init_state(self, max_length: int) -> ConvState:
        """The state before the first token, for any number of tokens."""
        return ConvState()

    def forward(
        self,
        x: Float[Tensor, "b n d_model"],
        *,
        mask: Mask,
        position: Position | None,
        layer: int,
        state: State | None,
    ) -> Float[Tensor, "b n d_model"]:
        """Process the whole sequence or, with a state, the next tokens."""
        state = ConvState() if state is None else state
        assert isinstance(state, ConvState)
        before, after, h = self.input(x).chunk(3, dim=-1)
        y, past = self.convolution(before * h, mask.key_padding, state.past)
        state.past, state.length = past.clone(), state.length + x.shape[1]  # a view would keep the whole sequence alive
        mixed: Tensor = self.output(self.dropout(after * y.to(x.dtype)))
        return mixed
