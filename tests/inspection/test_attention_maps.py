"""The implied matrix of every variant, by what defines it and by each variant's own equation written densely."""

import itertools
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.architecture.tiny import HEADS as MODEL_HEADS
from tests.architecture.tiny import LAYERS, encoder_decoder, randomised, real, stack, tokens
from tests.attention import block_sparse_oracle as oracle
from tests.contracts.variants import (
    ATTENTIONS,
    HEAD_DIM,
    HEADS,
    MAX_LENGTH,
    MIXERS,
    attention_class,
    attention_factory,
    build_attention,
    build_position,
    forms,
    position_class,
    qkv,
    self_mask,
)
from xformer.architecture.decoder import Decoder
from xformer.architecture.encoder import Encoder
from xformer.attention.additive import Additive
from xformer.attention.base import Attention, AttentionContext
from xformer.attention.full import Full
from xformer.attention.linformer import Linformer
from xformer.attention.performer import Performer
from xformer.config.groups import groups
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.inspection.attention_calls import AttentionCall
from xformer.inspection.attention_maps import AttentionMap, Linearity, attention_maps, implied_matrix, map_of
from xformer.inspection.influence_maps import InfluenceMap

LENGTH = 13  # more than a head's features, and no multiple of them
SCHEMES = ["none", "alibi", "t5", "relative", "transformer_xl"]


def declared(name: str, causal: bool, scheme: str) -> bool:
    needed = position_class(scheme).needs | (Capability.CAUSAL if causal else Capability.NONE)
    return needed in attention_class(name).provides


CASES = [case for case in itertools.product(ATTENTIONS, [False, True], ["none", "t5", "relative"]) if declared(*case)]
PADDED = torch.arange(LENGTH) < torch.tensor([LENGTH, 6])[:, None]


@pytest.mark.parametrize("padding", [None, PADDED], ids=["whole", "padded"])
@pytest.mark.parametrize(("name", "causal", "scheme"), CASES)
def test_the_matrix_times_any_value_is_what_the_variant_mixes(
    name: str, causal: bool, scheme: str, padding: Tensor | None
) -> None:
    attention, mask = build_attention(name, causal=causal), self_mask(LENGTH, causal, padding)
    query, key, value = qkv(2, LENGTH)
    bias = build_position(scheme, causal=causal).bias(0)
    weights = implied_matrix(attention, query, key, mask=mask, bias=bias)
    assert weights.shape == (2, HEADS, LENGTH, LENGTH)
    expected = attention(query, key, value, mask=mask, bias=bias)
    if bias is not None and bias.adds_values:
        expected = expected - bias.values(weights, mask.distances())
    assert_close(weights @ value, expected, atol=1e-5, rtol=1e-5)

    rows = slice(None) if padding is None else padding[:, None, :, None].expand_as(weights)
    if padding is not None:
        assert (weights.masked_select(~padding[:, None, None, :].expand_as(weights)) == 0).all()
    if causal:
        assert (weights.triu(1) == 0).all()
    if name != "linformer":
        assert weights.min() >= 0
        assert_close(weights.sum(-1, keepdim=True).expand_as(weights)[rows], torch.ones_like(weights)[rows])


@pytest.mark.parametrize("padding", [None, PADDED], ids=["whole", "padded"])
@pytest.mark.parametrize(("causal", "scheme"), list(itertools.product([False, True], SCHEMES)))
def test_full_attention_is_the_softmax_of_its_scores(causal: bool, scheme: str, padding: Tensor | None) -> None:
    query, key, _ = qkv(2, LENGTH)
    bias, mask = build_position(scheme, causal=causal).bias(0), self_mask(LENGTH, causal, padding)
    if bias is not None:
        query = bias.shift(query)
    found = implied_matrix(build_attention("full", causal=causal), query, key, mask=mask, bias=bias)
    for b, h, i in itertools.product(range(2), range(HEADS), range(LENGTH)):
        scores = torch.stack([query[b, h, i] @ key[b, h, j] / math.sqrt(HEAD_DIM) for j in range(LENGTH)])
        if bias is not None:
            distances = torch.arange(LENGTH)[None, None] - i
            added = bias.scores(query[b : b + 1, :, i : i + 1], distances)
            scores = scores + added[0, h, 0]
        if causal:
            scores[i + 1 :] = -math.inf
        if padding is not None:
            scores[~padding[b]] = -math.inf
        assert_close(found[b, h, i], scores.softmax(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", oracle.BIASES)
@pytest.mark.parametrize(("name", "causal"), list(itertools.product(oracle.VARIANTS, [False, True])))
def test_block_sparse_attention_is_the_softmax_over_its_pattern(name: str, causal: bool, bias: str) -> None:
    variant = oracle.VARIANTS[name]
    attention, added = variant.attention(causal), oracle.BIASES[bias]()
    query, key, _ = oracle.qkv(1, 21)
    found = implied_matrix(attention, query, key, mask=oracle.own_mask(21, causal), bias=added)
    reads, eye = oracle.matrix(variant, attention, 21, causal), torch.eye(21).expand(1, oracle.HEADS, -1, -1)
    if added is not None:
        added.values = lambda weights, distances: None
    assert_close(found, oracle.dense(query, key, eye, reads, added), atol=1e-5, rtol=1e-5)


def test_linformer_is_a_softmax_times_the_values_projection() -> None:
    attention = attention_factory("linformer")(AttentionContext(HEADS, HEAD_DIM, LENGTH, LENGTH, False), sharing="none")
    assert isinstance(attention, Linformer)
    query, key, _ = qkv(2, LENGTH)
    found = implied_matrix(attention, query, key, mask=self_mask(LENGTH, False))
    scores = query @ (attention.project_key @ key).mT / math.sqrt(HEAD_DIM)
    assert_close(found, scores.softmax(-1) @ attention.project_value, atol=1e-5, rtol=1e-5)
    assert found.min() < 0


@pytest.mark.parametrize("causal", [False, True])
def test_performer_is_the_product_of_its_features(causal: bool) -> None:
    attention = build_attention("performer", causal=causal)
    assert isinstance(attention, Performer)
    query, key, _ = qkv(2, LENGTH)
    product = attention.log_features(query).exp() @ attention.log_features(key).exp().mT
    product = product.tril() if causal else product
    found = implied_matrix(attention, query, key, mask=self_mask(LENGTH, causal))
    assert_close(found, product / product.sum(-1, keepdim=True), atol=1e-5, rtol=1e-5)


def test_additive_is_the_softmax_of_a_hidden_layer() -> None:
    attention = build_attention("additive", causal=False)
    assert isinstance(attention, Additive)
    query, key, _ = qkv(2, LENGTH)
    left, right = query @ attention.from_query, key @ attention.from_key
    scores = (torch.tanh(left[:, :, :, None] + right[:, :, None]) @ attention.weight[:, None]).squeeze(-1)
    found = implied_matrix(attention, query, key, mask=self_mask(LENGTH, False))
    assert_close(found, scores.softmax(-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in ATTENTIONS if Capability.CROSS in attention_class(name).provides])
@pytest.mark.parametrize("keys", [1, HEAD_DIM, MAX_LENGTH])
def test_queries_of_another_sequence(name: str, keys: int) -> None:
    attention = build_attention(name, causal=False, cross=True)
    query, key, value = qkv(2, 5, keys)
    mask = Mask(torch.arange(5)[None], torch.arange(keys)[None])
    found = implied_matrix(attention, query, key, mask=mask)
    assert_close(found @ value, attention(query, key, value, mask=mask), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "position"), [("full", "rotary"), ("full", "relative"), ("performer", "t5")])
def test_the_maps_of_a_model_are_what_its_layers_do(name: str, position: str) -> None:
    """Each layer's output, computed again from its map, its values and the bias's own term."""
    model = randomised(stack(Decoder, attention=name, position=position, key_value_heads=2))
    mixed: list[tuple[Tensor, Tensor]] = []
    for block in model.tower.blocks:
        mix = block.attention.branch.mix
        mix.register_forward_hook(lambda mix, arguments, output: mixed.append((arguments[2], output)))
    ids = tokens(2, 9)
    expected = model(ids)
    layers = mixed[:]
    maps = attention_maps(model, lambda: model(ids))
    assert [(each.slot, each.layer) for each in maps] == [("attention", layer) for layer in range(LAYERS)]
    for each, (value, output) in zip(maps, layers, strict=True):
        bias = model.tower.position.bias(each.layer)
        again = each.weights @ value
        if bias is not None and bias.adds_values:
            again = again + bias.values(each.weights, self_mask(9, True).distances())
        assert_close(again, output, atol=1e-5, rtol=1e-5)
    assert torch.equal(model(ids), expected)  # nothing is left behind
    assert len(mixed) == LAYERS + LAYERS + len(maps) * (3 + math.ceil(9 / 4)) + LAYERS


def test_shared_layers_have_a_map_each() -> None:
    model = randomised(stack(Encoder, share_layers=True, layers=3))
    ids = tokens(1, 7)
    maps = attention_maps(model, lambda: model(ids))
    assert [each.layer for each in maps] == [0, 1, 2]
    assert len(model.tower.blocks) == 1
    for first, second in itertools.combinations(maps, 2):
        assert not torch.allclose(first.weights, second.weights, atol=1e-3)


def test_every_slot_of_an_encoder_decoder_has_its_maps() -> None:
    model = randomised(encoder_decoder(attention="linformer", decoder_attention="local", cross_attention="performer"))
    source, target, padding = tokens(2, 9), tokens(2, 5, seed=1), real([9, 4], 9)
    maps = attention_maps(model, lambda: model(source, padding, target))
    found = {(each.slot, each.layer): (each.variant, *each.weights.shape) for each in maps}
    assert found == {
        **{("attention", layer): ("Linformer", 2, MODEL_HEADS, 9, 9) for layer in range(LAYERS)},
        **{("decoder_attention", layer): ("Local", 2, MODEL_HEADS, 5, 5) for layer in range(LAYERS)},
        **{("cross_attention", layer): ("Performer", 2, MODEL_HEADS, 5, 9) for layer in range(LAYERS)},
    }
    for each in maps:
        if each.slot == "decoder_attention":
            assert (each.weights.triu(1) == 0).all()
        else:
            assert (each.weights[1, :, :, 4:] == 0).all()


class Normalised(Full):
    """A variant that normalises what it has mixed, feature by feature, as retention does: not linear in its values."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **about: Any) -> Tensor:
        mixed = super().forward(query, key, value, **about)
        return torch.nn.functional.layer_norm(mixed, mixed.shape[-1:])


class Rough(Normalised):
    """The same without anything to keep it from dividing by zero."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **about: Any) -> Tensor:
        mixed = super(Normalised, self).forward(query, key, value, **about)
        return mixed / mixed.norm(dim=-1, keepdim=True)


def call_of(mix: Attention, **about: Any) -> AttentionCall:
    return AttentionCall("attention", 0, mix, *qkv(2, LENGTH), self_mask(LENGTH, False, None), None, **about)


@pytest.mark.parametrize("kind", [Normalised, Rough])
def test_a_map_of_what_is_not_linear_says_how_far_off_it_is(kind: type[Full]) -> None:
    mix = kind(build_attention("full", causal=False).context)
    call = call_of(mix)
    found = map_of(call)
    assert not found.exact
    assert found.entropy is None
    assert found.weights.isfinite().all()
    if kind is Normalised:
        weights = implied_matrix(mix, call.query, call.key, mask=call.mask)
        output = call.mixed(mix)
        assert found.error == pytest.approx(float((weights @ call.value - output).norm() / output.norm()))
        assert found.error > 0.1
    assert found.linearity == Linearity.NONE


@pytest.mark.parametrize(("name", "causal", "scheme"), CASES)
def test_a_map_of_what_is_linear_says_so(name: str, causal: bool, scheme: str) -> None:
    attention, mask = build_attention(name, causal=causal), self_mask(LENGTH, causal, PADDED)
    bias = build_position(scheme, causal=causal).bias(0)
    found = map_of(AttentionCall("attention", 0, attention, *qkv(2, LENGTH), mask, bias))
    assert found.error < 1e-4
    assert found.linearity == (Linearity.CONSTANT if scheme == "relative" else Linearity.WEIGHTS)


@pytest.mark.parametrize("kind", [Normalised, Rough])
def test_of_what_is_not_linear_influence_is_drawn(kind: type[Full]) -> None:
    model = stack(Encoder, attention=kind)
    ids = tokens(2, 7)
    first, second = attention_maps(model, lambda: model(ids))
    assert isinstance(first, InfluenceMap)
    assert first.influence.shape == (2, 1, 7, 7)
    assert first.influence.isfinite().all()
    assert first.weights_error is not None
    assert first.weights_error > 0.1
    assert (first.layer, second.layer) == (0, 1)


def test_a_hybrid_has_weights_where_there_are_some_and_influence_elsewhere() -> None:
    options = [attention_factory(name) for name in ("local", "mamba2", "full")]
    model = stack(Decoder, attention=lambda context: options[context.layer](context), layers=3)
    ids = tokens(1, 7)
    maps = attention_maps(model, lambda: model(ids))
    assert [type(each) for each in maps] == [AttentionMap, InfluenceMap, AttentionMap]
    assert [(each.layer, each.variant) for each in maps] == [(0, "Local"), (1, "Mamba2"), (2, "Full")]
    assert maps[1].weights_error is None


def test_entropy_of_a_head() -> None:
    even, sure = torch.full((5, 8), 1 / 8), torch.eye(8)[:5]
    causal = torch.ones(4, 4).tril() / torch.arange(1, 5)[:, None]
    nothing = torch.cat((torch.zeros(2, 8), even[:3]))  # two queries with nothing to read do not count

    def entropy(*heads: Tensor) -> Tensor | None:
        return AttentionMap("attention", 0, "Full", torch.stack(heads)[None]).entropy

    found = entropy(even, sure, nothing)
    assert found is not None
    assert_close(found, torch.tensor([math.log(8), 0.0, math.log(8)]))
    assert_close(entropy(causal), torch.tensor([math.log(24) / 4]))
    assert entropy(even, even - 0.2) is None
    assert entropy(2 * even) is None


def test_the_table_of_the_documents_is_what_is_measured() -> None:
    """Which variants are weights times values, with a position scheme that adds a constant and without."""
    text = (Path(__file__).parents[2] / "docs/inspecting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z0-9, `_]+) \| (weights|influence) \| (.+) \|$", text, re.MULTILINE)
    table = {name: (drawn, scheme) for names, *(drawn, scheme) in rows for name in re.findall(r"`(\w+)`", names)}

    def measured(name: str, scheme: str) -> Linearity:
        causal = forms(name)[0]
        bias = build_position(scheme, causal=causal).bias(0)
        return map_of(
            AttentionCall("", 0, build_attention(name, causal=causal), *qkv(2, LENGTH), self_mask(LENGTH, causal), bias)
        ).linearity

    words = {Linearity.WEIGHTS: "weights", Linearity.CONSTANT: "weights and a constant", Linearity.NONE: "influence"}
    expected = {name: ("influence", "-") for name in MIXERS if name in groups()["attention"]}
    for name in ATTENTIONS:
        able = declared(name, forms(name)[0], "relative")
        expected[name] = (words[measured(name, "none")], words[measured(name, "relative")] if able else "-")
    assert table == expected
