"""What every attention of a model is given when the model runs: the queries, keys and values of each layer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xformer.architecture.base import Architecture
from xformer.architecture.tower import Tower
from xformer.attention.base import Attention
from xformer.core.bias import RelativeBias
from xformer.core.mask import Mask
from xformer.layers.block import Block


@dataclass(frozen=True)
class AttentionCall:
    """One layer's use of its variant.

    Attributes:
        slot: the place of the attention, by the configuration's key.
        layer: of its stack, from 0.
        mix: the variant.
        query: rotated, and shifted by the bias.
        key: rotated.
        value: what is mixed.
        mask: positions, causality and padding.
        bias: the relative bias.
    """

    slot: str
    layer: int
    mix: Attention
    query: Float[Tensor, "b h q d"]
    key: Float[Tensor, "b h k d"]
    value: Float[Tensor, "b h k d"]
    mask: Mask
    bias: RelativeBias | None

    def mixed(self, mix: Attention) -> Float[Tensor, "b h q d"]:
        """What this or another variant makes of the same queries, keys and values."""
        return mix(self.query, self.key, self.value, mask=self.mask, bias=self.bias)


@torch.no_grad()
def attention_calls(model: Architecture, forward: Callable[[], object]) -> list[AttentionCall]:
    """The uses of all layers, slot by slot, in evaluation mode.

    Layers that share their parameters are used once each.

    Args:
        model: whose attentions are watched.
        forward: runs the model, on sequences and not from a decoding state; every layer each time.
    """
    calls: dict[str, list[AttentionCall]] = {slot: [] for slot in model.slots}
    hooks = [
        mix.register_forward_pre_hook(partial(_remember, calls[slot], slot, model.size.layers), with_kwargs=True)
        for slot, mix in _attentions(model)
    ]
    training = model.training
    try:
        model.eval()
        forward()
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return [call for made in calls.values() for call in made]


def _remember(
    calls: list[AttentionCall],
    slot: str,
    layers: int,
    mix: nn.Module,
    arguments: tuple[Tensor, ...],
    about: dict[str, Any],
) -> None:
    (query, key, value), layer = arguments, len(calls) % layers
    calls.append(AttentionCall(slot, layer, cast(Attention, mix), query, key, value, about["mask"], about["bias"]))


def _attentions(model: Architecture) -> list[tuple[str, Attention]]:
    """Every variant in the model and its slot: towers come in the slots' order, and a block's attentions do."""
    towers = [part for part in model.children() if isinstance(part, Tower)]
    slots = [(tower, place) for tower in towers for place in range(len(tower.attentions))]
    return [
        (slot, block.attentions[place])
        for slot, (tower, place) in zip(model.slots, slots, strict=True)
        for block in cast(list[Block], tower.blocks)
    ]
