"""What every attention declares, it must do; what it does not declare, it must refuse."""

import copy
import itertools

import pytest
import torch
from torch.testing import assert_close

from tests.contracts.variants import (
    ATTENTION_ROWS,
    ATTENTIONS,
    HEAD_DIM,
    HEADS,
    MAX_LENGTH,
    OPTIONS,
    VARIANTS,
    attention_class,
    attention_factory,
    build_attention,
    forms,
    qkv,
    self_mask,
)
from xformer.attention.base import AttentionContext
from xformer.core.bias import RelativeBias, TableBias
from xformer.core.capability import Capability
from xformer.core.mask import Mask
from xformer.errors import IncompatibleError

LENGTHS = [1, 2, 3, 4, 5, 13, MAX_LENGTH]
CAPABILITIES = [c for c in Capability if c is not Capability.NONE]


def with_capability(capability: Capability) -> list[str]:
    return [name for name in ATTENTIONS if capability in attention_class(name).provides]


def without_capability(capability: Capability) -> list[str]:
    return [name for name in ATTENTIONS if capability not in attention_class(name).provides]


class Slope(TableBias):
    def table(self, distances: torch.Tensor) -> torch.Tensor:
        slopes = torch.tensor([0.3, 0.05]).to(distances.device)
        return -slopes.view(-1, *[1] * distances.ndim) * distances.abs()


class Content(RelativeBias):
    def scores(self, query: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
        return query.sum(-1, keepdim=True) * torch.cos(distances)[:, None]


def test_every_yaml_has_a_row_and_every_row_a_yaml() -> None:
    assert sorted(ATTENTION_ROWS) == sorted(OPTIONS)


def form(name: str) -> bool:
    """Whether the first of its forms is causal."""
    return forms(name)[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_missing_capability_has_a_reason(name: str) -> None:
    found = attention_class(name)
    missing = [c for c in CAPABILITIES if c not in found.provides]
    assert set(found.reasons) == set(missing)
    assert all(len(reason) > 20 for reason in found.reasons.values())


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("length", LENGTHS)
def test_any_length_has_the_shape_of_the_queries(name: str, length: int) -> None:
    attention = build_attention(name, causal=form(name))
    query, key, value = qkv(2, length)
    mixed = attention(query, key, value, mask=self_mask(length, causal=form(name)))
    assert mixed.shape == query.shape
    assert mixed.isfinite().all()


@pytest.mark.parametrize("name", with_capability(Capability.CAUSAL))
@pytest.mark.parametrize("cut", [1, 4, 7, 12])
def test_the_future_changes_nothing(name: str, cut: int) -> None:
    attention, length = build_attention(name, causal=True), 13
    query, key, value = qkv(2, length)
    mask = self_mask(length, causal=True)
    before = attention(query, key, value, mask=mask)
    for scale in (3.0, -50.0):
        later = [tensor.clone() for tensor in (query, key, value)]
        for tensor in later:
            tensor[:, :, cut:] *= scale
        after = attention(*later, mask=mask)
        assert_close(after[:, :, :cut], before[:, :, :cut])
        assert not torch.equal(after[:, :, cut:], before[:, :, cut:])


@pytest.mark.parametrize("name", with_capability(Capability.CAUSAL))
def test_no_gradient_flows_to_the_future(name: str) -> None:
    attention, length, cut = build_attention(name, causal=True), 13, 6
    inputs = [tensor.requires_grad_() for tensor in qkv(1, length)]
    attention(*inputs, mask=self_mask(length, causal=True))[:, :, :cut].square().sum().backward()
    for tensor in inputs:
        assert tensor.grad is not None
        assert tensor.grad[:, :, cut:].abs().max() == 0
        assert tensor.grad[:, :, :cut].abs().max() > 0


@pytest.mark.parametrize("name", ATTENTIONS)
def test_the_past_and_the_present_matter(name: str) -> None:
    attention, length = build_attention(name, causal=form(name)), 13
    query, key, value = qkv(1, length)
    mask = self_mask(length, causal=form(name))
    before = attention(query, key, value, mask=mask)
    value = value.clone()
    value[:, :, 5] += 10
    assert (attention(query, key, value, mask=mask) - before).abs()[:, :, 5].max() > 1e-3


@pytest.mark.parametrize("name", with_capability(Capability.PADDING))
@pytest.mark.parametrize("causal", [False, True])
def test_a_padded_batch_equals_single_sequences(name: str, causal: bool) -> None:
    if causal not in forms(name):
        pytest.skip("not of this form, and the contract of refusal covers it")
    attention, length, lengths = build_attention(name, causal=causal), 13, [13, 7, 1]
    query, key, value = qkv(3, length)
    real = torch.arange(length) < torch.tensor(lengths)[:, None]
    key[~real[:, None].expand(-1, HEADS, -1)] = 1e4
    value[~real[:, None].expand(-1, HEADS, -1)] = -1e4
    together = attention(query, key, value, mask=self_mask(length, causal, real))
    for row, n in enumerate(lengths):
        one = slice(row, row + 1)
        alone = attention(query[one, :, :n], key[one, :, :n], value[one, :, :n], mask=self_mask(n, causal))
        assert_close(together[one, :, :n], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", with_capability(Capability.PADDING))
@pytest.mark.parametrize("causal", [False, True])
def test_padding_on_the_left_equals_single_sequences(name: str, causal: bool) -> None:
    if causal not in forms(name) or (not causal and Capability.VARIABLE_LENGTH not in attention_class(name).provides):
        pytest.skip("depends on absolute places, or is not of this form")
    attention, length, lengths = build_attention(name, causal=causal), 13, [13, 7, 1]
    query, key, value = qkv(3, length)
    real = torch.arange(length) >= length - torch.tensor(lengths)[:, None]
    key[~real[:, None].expand(-1, HEADS, -1)] = 1e4
    positions = (real.long().cumsum(-1) - 1).clamp(min=0)
    together = attention(query, key, value, mask=Mask(positions, positions, causal, real))
    assert together.isfinite().all()
    for row, n in enumerate(lengths):
        one = slice(row, row + 1)
        alone = attention(query[one, :, -n:], key[one, :, -n:], value[one, :, -n:], mask=self_mask(n, causal))
        assert_close(together[one, :, -n:], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", with_capability(Capability.PADDING))
def test_nothing_to_attend_to_is_zero_and_has_finite_gradients(name: str) -> None:
    attention = build_attention(name, causal=form(name))
    inputs = [tensor.requires_grad_() for tensor in qkv(2, 5)]
    real = torch.tensor([[False] * 5, [True] * 5])
    mixed = attention(*inputs, mask=self_mask(5, form(name), real))
    assert mixed[0].abs().max() == 0
    assert mixed[1].abs().max() > 0
    mixed.square().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in inputs)


@pytest.mark.parametrize("name", with_capability(Capability.CROSS))
@pytest.mark.parametrize(("queries", "keys"), [(3, 11), (11, 3), (1, 7), (5, 5)])
def test_queries_and_keys_of_different_length(name: str, queries: int, keys: int) -> None:
    attention = build_attention(name, causal=False, cross=True)
    query, key, value = qkv(2, queries, keys)
    mask = Mask(torch.arange(queries)[None], torch.arange(keys)[None])
    mixed = attention(query, key, value, mask=mask)
    assert mixed.shape == query.shape
    constant = attention(query, key, torch.ones_like(value), mask=mask)
    each = [
        attention(query[:, :, [i]], key, value, mask=Mask(torch.tensor([[i]]), mask.key_positions))
        for i in range(queries)
    ]
    assert_close(torch.cat(each, 2), mixed, atol=1e-5, rtol=1e-5)
    assert constant.isfinite().all()


@pytest.mark.parametrize("name", with_capability(Capability.VARIABLE_LENGTH))
def test_longer_than_built_for(name: str) -> None:
    attention, length = build_attention(name, causal=form(name), max_length=8), MAX_LENGTH
    query, key, value = qkv(1, length)
    mixed = attention(query, key, value, mask=self_mask(length, causal=form(name)))
    assert mixed.shape == query.shape
    assert mixed.isfinite().all()


@pytest.mark.parametrize("name", with_capability(Capability.INCREMENTAL))
@pytest.mark.parametrize("first", [1, 5])
@pytest.mark.parametrize("padded", [False, True])
def test_step_repeated_equals_forward(name: str, first: int, padded: bool) -> None:
    attention, length = build_attention(name, causal=True), 13
    query, key, value = qkv(2, length)
    real = torch.ones(2, length, dtype=torch.bool)
    if padded:
        real[1, :3] = False
    positions = (real.long().cumsum(-1) - 1).clamp(min=0)
    whole = attention(query, key, value, mask=Mask(positions, positions, True, real))
    state, parts = attention.init_state(length), []
    cuts = [0, *range(first, length + 1)]
    for start, end in itertools.pairwise(cuts):
        new = slice(start, end)
        mask = Mask(positions[:, new], positions[:, new], True, real[:, new])
        parts.append(attention.step(query[:, :, new], key[:, :, new], value[:, :, new], state, mask=mask))
        assert state.length == end
    assert_close(torch.cat(parts, 2)[real[:, None].expand(-1, HEADS, -1)],
                 whole[real[:, None].expand(-1, HEADS, -1)], atol=1e-5, rtol=1e-5)  # fmt: skip
    assert state.bytes > 0


@pytest.mark.parametrize("name", with_capability(Capability.INCREMENTAL))
def test_reordered_state_goes_on_as_the_other_row(name: str) -> None:
    attention = build_attention(name, causal=True)
    query, key, value = qkv(2, 7)

    def run(order: list[int] | None) -> torch.Tensor:
        rows = [0, 1]
        state = attention.init_state(7)
        for i in range(7):
            new = slice(i, i + 1)
            if i == 6 and order:
                state.reorder(torch.tensor(order))
                rows = order
            positions = torch.tensor([[i]])
            inputs = (tensor[rows][:, :, new] for tensor in (query, key, value))
            last = attention.step(*inputs, state, mask=Mask(positions, positions, True))
        return last

    assert_close(run([1, 0]), run(None)[[1, 0]])
    assert_close(run([1, 1]), run(None)[[1, 1]])


@pytest.mark.parametrize("name", with_capability(Capability.BIAS))
def test_a_bias_changes_the_mixture_and_distance_zero_alone_does_not(name: str) -> None:
    attention, length = build_attention(name, causal=form(name)), 13
    query, key, value = qkv(1, length)
    mask = self_mask(length, causal=form(name))
    plain = attention(query, key, value, mask=mask)
    assert (attention(query, key, value, mask=mask, bias=Slope()) - plain).abs().max() > 1e-3


@pytest.mark.parametrize("name", ATTENTIONS)
def test_gradients_reach_every_input_and_parameter(name: str) -> None:
    attention = build_attention(name, causal=form(name))
    inputs = [tensor.requires_grad_() for tensor in qkv(2, MAX_LENGTH)]
    attention(*inputs, mask=self_mask(MAX_LENGTH, causal=form(name))).square().sum().backward()
    for tensor in [*inputs, *attention.parameters()]:
        assert tensor.grad is not None
        assert tensor.grad.abs().max() > 0


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("causal", [False, True])
def test_gradcheck(name: str, causal: bool) -> None:
    if causal not in forms(name):
        pytest.skip("not of this form, and the contract of refusal covers it")
    attention = build_attention(name, causal=causal).double()
    inputs = [tensor.double().requires_grad_() for tensor in qkv(1, 5)]
    mask = self_mask(5, causal=causal)
    assert torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v, mask=mask), inputs)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_evaluation_is_deterministic(name: str) -> None:
    attention = build_attention(name, causal=form(name))
    query, key, value = qkv(2, 13)
    mask = self_mask(13, causal=form(name))
    assert torch.equal(attention(query, key, value, mask=mask), attention(query, key, value, mask=mask))


@pytest.mark.parametrize("name", ATTENTIONS)
def test_bfloat16_autocast_stays_close(name: str) -> None:
    attention = build_attention(name, causal=form(name))
    query, key, value = qkv(2, 13)
    mask = self_mask(13, causal=form(name))
    exact = attention(query, key, value, mask=mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = attention(query.bfloat16(), key.bfloat16(), value.bfloat16(), mask=mask)
    assert rounded.dtype is torch.bfloat16
    assert_close(rounded.float(), exact, atol=0.06, rtol=0.06)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_state_dict_round_trip(name: str) -> None:
    attention = build_attention(name, causal=form(name))
    other = attention_factory(name)(attention.context).eval()
    other.load_state_dict(copy.deepcopy(attention.state_dict()))
    query, key, value = qkv(1, 13)
    mask = self_mask(13, causal=form(name))
    assert torch.equal(attention(query, key, value, mask=mask), other(query, key, value, mask=mask))


@pytest.mark.parametrize("name", without_capability(Capability.CAUSAL))
def test_undeclared_causality_is_refused(name: str) -> None:
    with pytest.raises(IncompatibleError, match="CAUSAL"):
        build_attention(name, causal=True)
    query, key, value = qkv(1, 5)
    with pytest.raises(IncompatibleError, match="CAUSAL"):
        build_attention(name, causal=False)(query, key, value, mask=self_mask(5, causal=True))


@pytest.mark.parametrize("name", without_capability(Capability.BIDIRECTIONAL))
def test_an_undeclared_bidirectional_form_is_refused(name: str) -> None:
    with pytest.raises(IncompatibleError, match="BIDIRECTIONAL"):
        build_attention(name, causal=False)
    query, key, value = qkv(1, 5)
    with pytest.raises(IncompatibleError, match="BIDIRECTIONAL"):
        build_attention(name, causal=True)(query, key, value, mask=self_mask(5, causal=False))


@pytest.mark.parametrize("name", without_capability(Capability.CROSS))
def test_undeclared_cross_attention_is_refused(name: str) -> None:
    with pytest.raises(IncompatibleError, match="CROSS"):
        attention_factory(name)(AttentionContext(HEADS, HEAD_DIM, 8, 8, causal=False, cross=True))


@pytest.mark.parametrize("name", without_capability(Capability.PADDING))
def test_undeclared_padding_is_refused(name: str) -> None:
    query, key, value = qkv(1, 5)
    mask = self_mask(5, form(name), torch.ones(1, 5, dtype=torch.bool))
    with pytest.raises(IncompatibleError, match="PADDING"):
        build_attention(name, causal=form(name))(query, key, value, mask=mask)


@pytest.mark.parametrize("name", without_capability(Capability.BIAS))
def test_undeclared_bias_is_refused(name: str) -> None:
    query, key, value = qkv(1, 5)
    with pytest.raises(IncompatibleError, match="BIAS"):
        build_attention(name, causal=form(name))(query, key, value, mask=self_mask(5, causal=form(name)), bias=Slope())


@pytest.mark.parametrize("name", without_capability(Capability.CONTENT_BIAS))
def test_undeclared_content_bias_is_refused(name: str) -> None:
    query, key, value = qkv(1, 5)
    with pytest.raises(IncompatibleError, match="CONTENT_BIAS"):
        build_attention(name, causal=form(name))(
            query, key, value, mask=self_mask(5, causal=form(name)), bias=Content()
        )


@pytest.mark.parametrize("name", without_capability(Capability.INCREMENTAL))
def test_undeclared_decoding_is_refused(name: str) -> None:
    with pytest.raises(IncompatibleError, match="INCREMENTAL"):
        build_attention(name, causal=form(name)).init_state(8)
