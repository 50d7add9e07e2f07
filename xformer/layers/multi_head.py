"""The projections, rotation and decoding state that all attention variants share.

Shapes: b batch, q queries, k keys, h heads, d features of one head.
"""

from jaxtyping import Float
from torch import Tensor, nn

from xformer.attention.base import AttentionContext, AttentionFactory
from xformer.attention.mask import Mask
from xformer.attention.state import State
from xformer.layers.linear import Linear
from xformer.position.base import Position


class MultiHeadAttention(nn.Module):
    """mix(x W_Q, x W_K, x W_V) W_O with `mix` one of the variants (Vaswani et al. 2017, section 3.2.2).

    Args:
        attention: builds the variant from `context`.
        context: heads, dimensions and role of this layer.
        d_model: features of x.
        dropout: rate on the mixed values, the one place where attention dropout acts, for every variant.
        gain: scale of the output projection's initial values.
    """

    def __init__(
        self, attention: AttentionFactory, context: AttentionContext, d_model: int, *, dropout: float, gain: float
    ) -> None:
        super().__init__()
        self.context = context
        inner = context.heads * context.head_dim
        self.query = Linear(d_model, inner)
        self.key = Linear(d_model, inner)
        self.value = Linear(d_model, inner)
        self.mix = attention(context)
        self.dropout = nn.Dropout(dropout)
        self.output = Linear(inner, d_model, gain=gain)

    def forward(
        self, x: Float[Tensor, "b q d_model"], *, mask: Mask, position: Position, state: State | None = None
    ) -> Float[Tensor, "b q d_model"]:
        """Attend from x to x or, while decoding, to everything that `state` holds and x."""
        query, key, value = (self._split(project(x)) for project in (self.query, self.key, self.value))
        query = position.rotate(query, mask.query_positions)
        key = position.rotate(key, mask.key_positions)
        bias = position.bias(self.context.layer)
        if bias is not None:
            query = bias.shift(query)
        if state is None:
            mixed = self.mix(query, key, value, mask=mask, bias=bias)
        else:
            mixed = self.mix.step(query, key, value, state, mask=mask, bias=bias)
        merged: Tensor = self.output(self.dropout(mixed.transpose(1, 2).flatten(-2)))  # b h q d -> b q (h d)
        return merged

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.context.heads, self.context.head_dim).transpose(1, 2)  # b n (h d) -> b h n d
