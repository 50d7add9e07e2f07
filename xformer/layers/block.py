"""One layer of a Transformer."""

from jaxtyping import Float
from torch import Tensor, nn

from xformer.attention.base import Attention
from xformer.attention.mask import Mask
from xformer.attention.state import State
from xformer.layers.memory import CrossState, Memory
from xformer.layers.multi_head import CrossAttention, MultiHeadAttention
from xformer.layers.residual import PreNorm
from xformer.position.base import Position


class Block(nn.Module):
    """Self-attention, in a decoder with an encoder cross-attention, then feed-forward, each on a residual branch."""

    def __init__(
        self,
        attention: PreNorm[MultiHeadAttention],
        feed_forward: PreNorm[nn.Module],
        cross: PreNorm[CrossAttention] | None = None,
    ) -> None:
        super().__init__()
        self.attention, self.cross, self.feed_forward = attention, cross, feed_forward

    @property
    def attentions(self) -> list[Attention]:
        """The variants in it: self-attention's first."""
        return [branch.branch.mix for branch in (self.attention, self.cross) if branch is not None]

    def forward(
        self,
        x: Float[Tensor, "batch length d_model"],
        mask: Mask,
        position: Position,
        layer: int,
        state: State | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "batch length d_model"]:
        """One layer.

        Args:
            x: the sequence.
            mask: its positions, causality and padding.
            position: the stack's position scheme.
            layer: which layer this is; a shared block is several.
            state: what the layer remembers while decoding.
            memory: what a block with cross-attention reads; while decoding, the state holds it.
        """
        own = state.own if isinstance(state, CrossState) else state
        x = self.attention(x, layer, mask=mask, position=position, state=own, **{"layer_of_bias": layer})
        if self.cross is not None:
            x = self._read(x, mask, layer, state, memory)
        out: Tensor = self.feed_forward(x, layer)
        return out
