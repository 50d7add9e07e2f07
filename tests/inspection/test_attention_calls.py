"""What is watched while a model runs: every use of every layer, and nothing left behind."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.architecture.tiny import LAYERS, encoder_decoder, randomised, real, stack, tokens
from xformer.architecture.encoder import Encoder
from xformer.attention.full import Full
from xformer.inspection.attention_calls import attention_calls
from xformer.inspection.attention_maps import attention_maps


def test_training_goes_on_as_before() -> None:
    model = stack(Encoder, dropout=0.5).train()
    ids = tokens(1, 5)
    first, second = (attention_maps(model, lambda: model(ids))[1].weights for _ in range(2))
    assert torch.equal(first, second)
    assert model.training
    with pytest.raises(ZeroDivisionError):
        attention_maps(model, lambda: 1 // 0)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_calls_come_slot_by_slot_and_layer_by_layer_with_what_the_layer_was_given() -> None:
    model = randomised(encoder_decoder(attention="local", position="rotary", decoder_position="alibi"))
    source, target, padding = tokens(2, 9), tokens(2, 5, seed=1), real([9, 4], 9)
    calls = attention_calls(model, lambda: model(source, padding, target))
    slots = ("attention", "decoder_attention", "cross_attention")
    assert [(call.slot, call.layer) for call in calls] == [(slot, layer) for slot in slots for layer in range(LAYERS)]
    lengths = {"attention": (9, 9), "decoder_attention": (5, 5), "cross_attention": (5, 9)}
    for call in calls:
        assert (call.query.shape[2], call.key.shape[2]) == lengths[call.slot]
        assert call.mask.causal == (call.slot == "decoder_attention")
        assert (call.mask.key_padding is None) == (call.slot == "decoder_attention")
        assert (call.bias is not None) == (call.slot == "decoder_attention")


def test_a_call_can_be_made_again_with_the_same_or_another_variant() -> None:
    model = randomised(stack(Encoder, attention="performer", layers=1)).eval()
    given: list[Tensor] = []
    model.tower.mixers[0][0].mix.register_forward_hook(lambda mix, inputs, output: given.append(output))
    (call,) = attention_calls(model, lambda: model(tokens(2, 7)))
    assert_close(call.mixed(call.mix), given[0])
    full = Full(call.mix.context)
    scores = call.query @ call.key.transpose(-1, -2) / call.query.shape[-1] ** 0.5
    assert_close(call.mixed(full), scores.softmax(-1) @ call.value)


def test_layers_that_share_their_parameters_are_used_once_each() -> None:
    model = stack(Encoder, share_layers=True, layers=3)
    assert [call.layer for call in attention_calls(model, lambda: model(tokens(1, 4)))] == [0, 1, 2]
