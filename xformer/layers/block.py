"""One layer of a Transformer."""

from jaxtyping import Float
from torch import Tensor, nn

from xformer.attention.mask import Mask
from xformer.attention.state import State
from xformer.layers.multi_head import MultiHeadAttention
from xformer.layers.residual import NormPlacement, residual
from xformer.position.base import Position


class Block(nn.Module):
    """Self-attention, then feed-forward, each on a residual branch."""

    def __init__(
        self, attention: MultiHeadAttention, feed_forward: nn.Module, d_model: int, norm: NormPlacement, dropout: float
    ) -> None:
        super().__init__()
        self.attention = residual(norm, d_model, attention, dropout)
        self.feed_forward = residual(norm, d_model, feed_forward, dropout)

    def forward(
        self, x: Float[Tensor, "batch length d_model"], mask: Mask, position: Position, state: State | None = None
    ) -> Float[Tensor, "batch length d_model"]:
        """One layer; `state` is what its attention remembers while decoding."""
        x = self.attention(x, mask=mask, position=position, state=state)
        out: Tensor = self.feed_forward(x)
        return out
