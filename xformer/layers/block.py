"""One layer of a Transformer."""

from jaxtyping import Float
from torch import Tensor, nn

from xformer.attention.base import Attention
from xformer.core.mask import Mask
from xformer.core.state import State
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
        self_state = state.self_state if isinstance(state, CrossState) else state
        x = self.attention(x, layer, mask=mask, position=position, layer=layer, state=self_state)
        if self.cross is not None:
            read = state.memory if isinstance(state, CrossState) else self.cross.branch.project(_require_memory(memory))
            x = self.cross(x, layer, mask=mask, memory=read)
        out: Tensor = self.feed_forward(x, layer)
        return out

    def init_state(self, max_length: int, memory: Memory | None = None) -> State:
        """An empty decoding state for sequences of at most `max_length` tokens, the memory projected."""
        self_state = self.attention.branch.mix.init_state(max_length)
        return (
            self_state
            if self.cross is None
            else CrossState(self_state, self.cross.branch.project(_require_memory(memory)))
        )


def _require_memory(memory: Memory | None) -> Memory:
    if memory is None:
        raise ValueError("a block with cross-attention needs a memory to read")
    return memory
