"""One layer of a Transformer."""

from jaxtyping import Float
from torch import Tensor, nn

from xformer.attention.mixer import TokenMixer
from xformer.core.mask import Mask
from xformer.core.memory import CrossState, Memory
from xformer.core.state import State
from xformer.layers.residual import PreNorm
from xformer.position.base import Position


class Block(nn.Module):
    """A Transformer block: token mixer, optional cross-attention and feed-forward, each on a residual branch.

    Args:
        attention: the token mixer.
        feed_forward: the position-wise feed-forward layer.
        cross: the cross-attention; None without a memory.
    """

    def __init__(
        self,
        attention: PreNorm[TokenMixer],
        feed_forward: PreNorm[nn.Module],
        cross: PreNorm[TokenMixer] | None = None,
    ) -> None:
        super().__init__()
        self.attention, self.cross, self.feed_forward = attention, cross, feed_forward

    @property
    def mixers(self) -> list[TokenMixer]:
        """The token mixer, then the cross-attention if there is one."""
        return [branch.branch for branch in (self.attention, self.cross) if branch is not None]

    def forward(
        self,
        x: Float[Tensor, "batch length d_model"],
        mask: Mask,
        position: Position,
        layer: int,
        served: int | None = None,
        state: State | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "batch length d_model"]:
        """Apply the block.

        Args:
            x: the sequence.
            mask: its positions, causality and padding.
            position: the layer's position scheme.
            layer: the index of the layer; a shared block serves several.
            served: the index among the layers that the position scheme serves; None if it serves all.
            state: the decoding state of the layer.
            memory: the input of cross-attention; while decoding, the state holds it.
        """
        self_state = state.self_state if isinstance(state, CrossState) else state
        x = self.attention(
            x, layer, mask=mask, position=position, layer=layer if served is None else served, state=self_state
        )
        if self.cross is not None:
            read = state.memory if isinstance(state, CrossState) else self.cross.branch.project(_require_memory(memory))
            x = self.cross(x, layer, mask=mask, memory=read)
        out: Tensor = self.feed_forward(x, layer)
        return out

    def init_state(self, max_length: int, memory: Memory | None = None) -> State:
        """An empty decoding state for sequences of at most `max_length` tokens, the memory projected."""
        self_state = self.attention.branch.init_state(max_length)
        return (
            self_state
            if self.cross is None
            else CrossState(self_state, self.cross.branch.project(_require_memory(memory)))
        )


def _require_memory(memory: Memory | None) -> Memory:
    if memory is None:
        raise ValueError("a block with cross-attention needs a memory to read")
    return memory
