"""How the blocks of an architecture are made: what the configuration says of all of them."""

from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from xformer.architecture.size import Size
from xformer.attention.base import AttentionContext, AttentionFactory
from xformer.layers.block import Block
from xformer.layers.feed_forward import Activation, feed_forward
from xformer.layers.multi_head import CrossAttention, MultiHeadAttention
from xformer.layers.norm import NormLayer, norm_layer
from xformer.layers.residual import PLACEMENTS, Branch, NormPlacement, PreNorm
from xformer.layers.stochastic_depth import StochasticDepth

Kind = TypeVar("Kind", bound=MultiHeadAttention)


@dataclass(frozen=True, kw_only=True)
class Design:
    """The options that every architecture has; its own documentation explains them."""

    size: Size
    norm: NormPlacement
    norm_layer: NormLayer
    activation: Activation
    dropout: float
    stochastic_depth: float
    share_layers: bool
    key_value_heads: int | None
    gradient_checkpointing: bool

    def block(
        self,
        attention: tuple[AttentionFactory, AttentionContext],
        cross: tuple[AttentionFactory, AttentionContext] | None,
    ) -> Block:
        """One block, with cross-attention where it is given."""
        d_model = self.size.d_model
        # Every branch ends in the residual sum: scaled so, its variance does not grow with depth (GPT-2).
        gain = ((2 if cross is None else 3) * self.size.layers) ** -0.5

        def attend(kind: type[Kind], build: AttentionFactory, context: AttentionContext) -> Kind:
            groups = self.key_value_heads
            return kind(build, context, d_model, dropout=self.dropout, gain=gain, key_value_heads=groups)

        forward = feed_forward(self.activation, d_model, self.size.feed_forward, gain=gain)
        return Block(
            self._residual(attend(MultiHeadAttention, *attention)),
            self._residual(forward),
            None if cross is None else self._residual(attend(CrossAttention, *cross)),
        )

    def last_norm(self) -> nn.Module:
        """What follows the last block: with pre-norm the sum has not been normalised yet."""
        return norm_layer(self.norm_layer, self.size.d_model) if self.norm == "pre" else nn.Identity()

    def _residual(self, branch: Branch) -> PreNorm[Branch]:
        norm = norm_layer(self.norm_layer, self.size.d_model)
        return PLACEMENTS[self.norm](
            norm, branch, self.dropout, StochasticDepth(self.stochastic_depth, self.size.layers)
        )
