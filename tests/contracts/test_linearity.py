"""What an attention map may say of a variant: whether its weights times the values are its output.

Nothing is declared and no name is listed: it is measured for every variant and position scheme that go together, and a
layer's map is drawn by the same measurement (`xformer.inspection.attention_maps.Linearity`).
"""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.contracts.tiny import LENGTH, VOCABULARY, randomised, stack
from tests.contracts.variants import (
    ATTENTIONS,
    MIXERS,
    POSITIONS,
    attention_class,
    build_attention,
    build_position,
    forms,
    position_class,
    qkv,
    role,
    self_mask,
)
from xformer.architecture.decoder import Decoder
from xformer.architecture.encoder import Encoder
from xformer.inspection.attention_calls import AttentionCall
from xformer.inspection.attention_maps import AttentionMap, Linearity, attention_maps, map_of
from xformer.inspection.influence_maps import InfluenceMap

TOKENS = 13
SCALES = (1.0, -40.0, 0.01)
PADDED = torch.arange(TOKENS) < torch.tensor([TOKENS, 6])[:, None]
CASES = [
    (name, causal, scheme)
    for name, scheme in itertools.product(ATTENTIONS, POSITIONS)
    for causal in forms(name)
    if position_class(scheme).needs | role(causal) in attention_class(name).provides
]


def call_of(name: str, causal: bool, scheme: str, scale: float = 1.0, seed: int = 0) -> AttentionCall:
    """A variant's queries, keys and values, and a scheme whose tables are not at their initial values."""
    position, mask = randomised(build_position(scheme, causal=causal)), self_mask(TOKENS, causal, PADDED)
    query, key, value = qkv(2, TOKENS, seed=seed)
    query, key = position.rotate(query, mask.query_positions), position.rotate(key, mask.key_positions)
    bias = position.bias(0)
    query = query if bias is None else bias.shift(query)
    return AttentionCall("attention", 0, build_attention(name, causal=causal), query, key, scale * value, mask, bias)


def mixed(call: AttentionCall, value: Tensor) -> Tensor:
    return replace(call, value=value).mixed(call.mix)


@pytest.mark.parametrize(("name", "causal", "scheme"), CASES)
def test_what_is_linear_is_so_for_all_values_and_its_map_is_the_same(name: str, causal: bool, scheme: str) -> None:
    """Values of another size, sign and seed change neither the verdict nor the weights."""
    found = [map_of(call_of(name, causal, scheme, scale)) for scale in SCALES]
    linear = {each.linearity != Linearity.NONE for each in found}
    assert len(linear) == 1
    if linear == {True}:
        for each in found[1:]:
            assert_close(each.weights, found[0].weights)
        call, other = call_of(name, causal, scheme), call_of(name, causal, scheme, seed=1).value
        together = mixed(call, call.value) + mixed(call, other) - mixed(call, torch.zeros_like(other))
        assert_close(mixed(call, call.value + other), together, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "causal", "scheme"), CASES)
def test_a_constant_is_what_the_schemes_own_values_add(name: str, causal: bool, scheme: str) -> None:
    call = call_of(name, causal, scheme)
    found = map_of(call)
    if found.linearity == Linearity.NONE:
        pytest.skip("not linear in its values")
    adds = call.bias is not None and call.bias.adds_values
    assert (found.linearity == Linearity.CONSTANT) == adds
    assert_close(found.weights @ call.value, call.mixed(call.mix) - mixed(call, 0 * call.value), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [*ATTENTIONS, *MIXERS])
def test_a_layer_is_drawn_as_what_it_is(name: str) -> None:
    """Weights where they are the layer, influence elsewhere; causal layers have none of what comes later."""
    causal = forms(name)[-1]
    model = stack(Decoder if causal else Encoder, attention=name, layers=1)
    tokens = torch.arange(LENGTH)[None] % VOCABULARY
    (found,) = attention_maps(model, lambda: model(tokens))
    linear = name in ATTENTIONS and map_of(call_of(name, causal, "none")).linearity != Linearity.NONE
    assert isinstance(found, AttentionMap if linear else InfluenceMap)
    assert found.values.shape[2:] == (LENGTH, LENGTH)
    assert found.values.isfinite().all()
    assert (found.values.diagonal(dim1=2, dim2=3) != 0).any()
    if causal:
        assert (found.values.triu(1) == 0).all()
