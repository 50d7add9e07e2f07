"""Hybrids: stacks whose layers have different attentions or token mixers.

    attention=hybrid attention.layers='[local,local,local,full]'
    attention=hybrid attention.layers='[{local: {window: 8}}, {full: {position: none}}]'

The entries are repeated over the depth, layer i having entry i mod their number, or written out, one for each layer. An
entry is an option of `conf/attention/`, with hyper-parameters of its own where it is a mapping, and with a position
scheme of its own in place of the stack's where it names one under `position`. Layers of equal entries share what a
variant shares between layers, and the position scheme of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

from annotated_types import MinLen

from xformer.attention.base import AttentionContext, AttentionFactory, Capable
from xformer.position.base import Position, PositionContext, PositionFactory


@dataclass(frozen=True, kw_only=True)
class LayerEntry:
    """An entry of a hybrid: the attention and position scheme of one or several layers.

    Attributes:
        name: the option with its hyper-parameters, which identifies equal entries.
        attention: builds the layer's attention or token mixer.
        position: builds the position scheme of these layers; None for the stack's.
        option: the name of the attention or token mixer alone, for messages.
        position_option: the name of the position scheme, likewise.
    """

    name: str
    attention: AttentionFactory
    position: PositionFactory | None
    option: str
    position_option: str | None


def hybrid(context: AttentionContext, *, layers: Annotated[Sequence[LayerEntry], MinLen(1)]) -> Capable:
    """Build the attention or token mixer of a layer.

    Args:
        context: the layer's dimensions and role.
        layers: the entries, repeated over the depth.

    Raises:
        IncompatibleError: the layer's variant does not declare what its role needs.
    """
    index = context.layer % len(layers)
    entry = layers[index]
    first = next(index for index, other in enumerate(layers) if other.name == entry.name)
    path = f"{context.path}.layers[{index}].{entry.option}"
    made = entry.attention(replace(context, first=first, path=path))
    if entry.position is not None:
        made.layer_position = partial(_position, entry.position, f"{path}.position.{entry.position_option}")
    return made


def _position(build: PositionFactory, path: str, context: PositionContext) -> Position:
    return build(replace(context, path=path))
