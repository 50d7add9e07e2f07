"""Padding is nothing, whatever it holds: not even NaN or infinity reaches a real token, or a gradient."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.contracts.test_combinations import ALLOWED, VOCABULARY, Combination, create, sampled
from tests.contracts.tiny import encoder_decoder
from tests.contracts.variants import (
    ATTENTIONS,
    HEADS,
    POSITIONS,
    build_attention,
    build_position,
    position_class,
    provides,
    qkv,
    role,
)
from xformer.architecture.stack import Stack
from xformer.core.capability import Capability
from xformer.core.mask import Mask

LENGTH, LENGTHS = 13, torch.tensor([[13], [7], [1], [0]])
NOTHING, ANYTHING = torch.zeros(4), torch.tensor([math.nan, math.inf, -math.inf, 7.0])
"""What padding holds, over and over."""
PAD = VOCABULARY - 1


def filled(x: Tensor, real: Tensor, content: Tensor) -> Tensor:
    """The same, with that content at padding."""
    return torch.where(real, x, content.repeat(x.shape[-1] // len(content)))


def padded(side: str) -> tuple[Tensor, Tensor]:
    """Where tokens are real, and all positions."""
    slots = torch.arange(LENGTH)
    real = slots < LENGTHS if side == "right" else slots >= LENGTH - LENGTHS
    return real, slots[None] if side == "right" else (real.long().cumsum(-1) - 1).clamp(min=0)


SELF = [
    (name, scheme, causal, side)
    for name, scheme, causal, side in itertools.product(ATTENTIONS, POSITIONS, (False, True), ("right", "left"))
    if provides(name, Capability.PADDING, position_class(scheme).needs)
    and provides(name, role(causal))
    and (scheme == "none" or build_position(scheme, causal=causal).bias(0) is not None)
]


@pytest.mark.parametrize(("name", "scheme", "causal", "side"), SELF)
def test_what_padding_holds_changes_no_real_token_and_no_gradient(
    name: str, scheme: str, causal: bool, side: str
) -> None:
    attention, position = (build(x, causal=causal) for build, x in ((build_attention, name), (build_position, scheme)))
    real, positions = padded(side)
    mask, keep = Mask(positions, positions, causal, real), real[:, None, :, None]

    def run(content: Tensor) -> list[Tensor]:
        inputs = [filled(x, keep, content).requires_grad_() for x in qkv(4, LENGTH)]
        bias = position.bias(0)
        query = inputs[0] if bias is None else bias.shift(inputs[0])
        mixed = attention(query, *inputs[1:], mask=mask, bias=bias).where(keep, 0.0)
        parameters = [x for x in (*attention.parameters(), *position.parameters()) if x.requires_grad]
        gradients = torch.autograd.grad(mixed.square().sum(), [*inputs, *parameters], allow_unused=True)
        return [mixed, *(x for x in gradients if x is not None)]

    for found, expected in zip(run(ANYTHING), run(NOTHING), strict=True):
        assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize("name", [name for name in ATTENTIONS if provides(name, Capability.PADDING, Capability.CROSS)])
def test_nor_in_cross_attention(name: str) -> None:
    attention, real = build_attention(name, causal=False, cross=True), padded("right")[0]
    mask = Mask(torch.arange(5)[None], torch.arange(LENGTH)[None], False, real)

    def run(content: Tensor) -> list[Tensor]:
        query, key, value = qkv(4, 5, LENGTH)
        inputs = [query, *(filled(x, real[:, None, :, None], content) for x in (key, value))]
        inputs = [x.requires_grad_() for x in inputs]
        mixed = attention(*inputs, mask=mask)
        return [mixed, *torch.autograd.grad(mixed.square().sum(), inputs)]

    for found, expected in zip(run(ANYTHING), run(NOTHING), strict=True):
        assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize("first", [1, 6])
@pytest.mark.parametrize(
    "name", [name for name in ATTENTIONS if provides(name, Capability.PADDING, Capability.INCREMENTAL)]
)
def test_nor_while_decoding(name: str, first: int) -> None:
    attention, (real, positions) = build_attention(name, causal=True), padded("left")

    def run(content: Tensor) -> Tensor:
        inputs = [filled(x, real[:, None, :, None], content) for x in qkv(4, LENGTH)]
        state, parts = attention.init_state(LENGTH), []
        for new in (slice(0, first), *(slice(at, at + 1) for at in range(first, LENGTH))):
            mask = Mask(positions[:, new], positions[:, new], True, real[:, new])
            parts.append(attention.step(*(x[:, :, new] for x in inputs), state, mask=mask))
        return torch.cat(parts, dim=2)[real[:, None].expand(-1, HEADS, -1)]

    assert_close(run(ANYTHING), run(NOTHING), atol=0, rtol=0)


def differentiated(model: nn.Module, *inputs: Any, keep: Tensor) -> list[Tensor]:
    """The hidden states that are kept, and the gradients of all parameters."""
    model.zero_grad()
    hidden = model(*inputs).where(keep[..., None], 0.0)
    hidden.square().sum().backward()
    return [hidden, *(x.grad for x in model.parameters() if x.grad is not None)]


def same(model: Any, *inputs: Any, keep: Tensor) -> None:
    """Whatever the padding token's vector is."""
    results = []
    for content in (NOTHING, ANYTHING):
        with torch.no_grad():
            model.embedding.weight[PAD] = content.repeat(model.size.d_model // len(content))
        results.append(differentiated(model, *inputs, keep=keep))
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    "combination", sampled(one for one in ALLOWED if provides(one[0], Capability.PADDING, position_class(one[1]).needs))
)
def test_nor_in_a_model(combination: Combination) -> None:
    model: Stack = create(combination)
    sides = ["right", "left"] if provides(combination[0], Capability.VARIABLE_LENGTH) else ["right"]
    for side in sides:
        real, positions = padded(side)
        tokens = torch.randint(PAD, (4, LENGTH)).masked_fill(~real, PAD)
        same(model, tokens, real, positions, keep=real)


@pytest.mark.parametrize(
    "name", [name for name in ATTENTIONS if provides(name, Capability.PADDING, Capability.BIDIRECTIONAL)]
)
def test_nor_in_a_model_that_reads_a_padded_source(name: str) -> None:
    cross = name if provides(name, Capability.CROSS) else "full"
    model = encoder_decoder(attention=name, cross_attention=cross)
    real = padded("right")[0][:3]
    source, target = torch.randint(PAD, (3, LENGTH)).masked_fill(~real, PAD), torch.randint(PAD, (3, 5))
    keep = torch.ones(3, 5, dtype=torch.bool)
    same(model, source, real, target, keep=keep)
