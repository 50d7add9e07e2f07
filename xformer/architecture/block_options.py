"""Options of blocks that every architecture shares, and functions that build blocks from them."""

from typing import Annotated, TypedDict

from annotated_types import Ge, Interval
from torch import nn

from xformer.architecture.size import Size
from xformer.attention.base import Capable
from xformer.layers.block import Block
from xformer.layers.feed_forward import Activation, feed_forward
from xformer.layers.multi_head import token_mixer
from xformer.layers.norm import NormLayer, norm_layer
from xformer.layers.residual import PLACEMENTS, Branch, NormPlacement, PreNorm
from xformer.layers.stochastic_depth import StochasticDepth


class BlockOptions(TypedDict):
    """Keyword arguments that every architecture takes and passes on to its stacks of blocks.

    Attributes:
        size: width, depth of each stack, heads.
        norm: `pre` or `post`.
        norm_layer: `layer` or `rms`.
        activation: of the feed-forward layers.
        dropout: rate on the embeddings, on the mixed values of the attentions and on every branch's output.
        stochastic_depth: the last layer's probability of losing a branch for a sequence; earlier layers' is smaller.
        share_layers: whether all layers of a stack are one block (ALBERT, Lan et al. 2020).
        key_value_heads: heads of keys and values, in all attentions; None for as many as queries have.
        gradient_checkpointing: recompute each block in the backward pass instead of storing its activations.
    """

    size: Size
    norm: NormPlacement
    norm_layer: NormLayer
    activation: Activation
    dropout: Annotated[float, Interval(ge=0, lt=1)]
    stochastic_depth: Annotated[float, Interval(ge=0, lt=1)]
    share_layers: bool
    key_value_heads: Annotated[int, Ge(1)] | None
    gradient_checkpointing: bool


def residual_gain(options: BlockOptions, *, branches: int) -> float:
    """Initial scale of layers that end in the residual sum, so that its variance does not depend on depth (GPT-2)."""
    return float((branches * options["size"].layers) ** -0.5)


def build_block(options: BlockOptions, attention: Capable, cross: Capable | None = None) -> Block:
    """Build a block around an attention or token mixer, optionally with cross-attention."""
    size, heads = options["size"], options["key_value_heads"]
    gain = residual_gain(options, branches=2 if cross is None else 3)
    return Block(
        _residual(options, token_mixer(attention, key_value_heads=heads)),
        _residual(options, feed_forward(options["activation"], size.d_model, size.feed_forward, gain=gain)),
        None if cross is None else _residual(options, token_mixer(cross, key_value_heads=heads)),
    )


def last_norm(options: BlockOptions) -> nn.Module:
    """The layer after the last block: a norm with pre-norm blocks, whose sum is not normalised yet."""
    return norm_layer(options["norm_layer"], options["size"].d_model) if options["norm"] == "pre" else nn.Identity()


def _residual(options: BlockOptions, branch: Branch) -> PreNorm[Branch]:
    size = options["size"]
    norm = norm_layer(options["norm_layer"], size.d_model)
    depth = StochasticDepth(options["stochastic_depth"], size.layers)
    return PLACEMENTS[options["norm"]](norm, branch, options["dropout"], depth)
