"""Recording the inputs of every token mixer in a forward pass and, for an attention, its queries, keys and values."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xformer.architecture.base import Architecture
from xformer.architecture.tower import Tower
from xformer.attention.base import Attention
from xformer.attention.mixer import TokenMixer
from xformer.core.bias import RelativeBias
from xformer.core.mask import Mask
from xformer.layers.multi_head import MultiHeadAttention


@dataclass(frozen=True)
class AttentionCall:
    """One layer's call of its attention variant.

    Attributes:
        slot: the slot of the attention, by its configuration key.
        layer: the index of the layer in its stack.
        mix: the variant.
        query: rotated, and shifted by the bias.
        key: rotated.
        value: the values.
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
        """The output of this or another variant for the same queries, keys and values."""
        return mix(self.query, self.key, self.value, mask=self.mask, bias=self.bias)


@dataclass(frozen=True)
class LayerCall:
    """One layer's call of its token mixer.

    Attributes:
        slot: the slot of the mixer, by its configuration key.
        layer: the index of the layer in its stack.
        mixer: the mixer called.
        x: its input.
        arguments: the other arguments of the call, by name.
        attention: the queries, keys and values; None if the mixer owns its projections.
    """

    slot: str
    layer: int
    mixer: TokenMixer
    x: Float[Tensor, "b q d_model"]
    arguments: Mapping[str, Any]
    attention: AttentionCall | None = None


def attention_calls(model: Architecture, forward: Callable[[], object]) -> list[AttentionCall]:
    """The calls of all layers that have queries, keys and values, slot by slot, in evaluation mode.

    Args:
        model: the model to record.
        forward: runs the model on whole sequences, calling every layer, without a decoding state.
    """
    return [call.attention for call in layer_calls(model, forward) if call.attention is not None]


@torch.no_grad()
def layer_calls(model: Architecture, forward: Callable[[], object]) -> list[LayerCall]:
    """The calls of all layers, slot by slot, in evaluation mode; layers that share parameters have one call each.

    Args:
        model: the model to record.
        forward: runs the model on whole sequences, calling every layer, without a decoding state.
    """
    calls: dict[str, list[LayerCall]] = {slot: [] for slot in model.slots}
    hooks = []
    for slot, layers, mixer in _mixers(model):
        remember = partial(_remember_layer, calls[slot], slot, itertools.cycle(layers))
        hooks.append(mixer.register_forward_pre_hook(remember, with_kwargs=True))
        if isinstance(mixer, MultiHeadAttention):
            remember_attention = partial(_remember_attention, calls[slot])
            hooks.append(mixer.mix.register_forward_pre_hook(remember_attention, with_kwargs=True))
    training = model.training
    try:
        model.eval()
        forward()
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return [call for made in calls.values() for call in made]


def _remember_layer(
    calls: list[LayerCall],
    slot: str,
    layers: Iterator[int],
    mixer: nn.Module,
    positional: tuple[Tensor, ...],
    arguments: dict[str, Any],
) -> None:
    (x,) = positional
    calls.append(LayerCall(slot, next(layers), cast(TokenMixer, mixer), x, arguments))


def _remember_attention(
    calls: list[LayerCall], mix: nn.Module, positional: tuple[Tensor, ...], arguments: dict[str, Any]
) -> None:
    layer, (query, key, value) = calls[-1], positional
    about = {name: arguments[name] for name in ("mask", "bias")}
    made = AttentionCall(layer.slot, layer.layer, cast(Attention, mix), query, key, value, **about)
    calls[-1] = replace(layer, attention=made)


def _mixers(model: Architecture) -> Iterator[tuple[str, range, TokenMixer]]:
    """Every token mixer of the model with its slot and its layers, in the order of the slots."""
    slots = [mixers for part in model.children() if isinstance(part, Tower) for mixers in part.mixers]
    for slot, mixers in zip(model.slots, slots, strict=True):
        for first, mixer in enumerate(mixers):
            yield slot, range(first, model.size.layers, len(mixers)), mixer
