"""Luong's scores against their equations, pair by pair."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from xformer.attention.base import AttentionContext
from xformer.attention.multiplicative import Multiplicative
from xformer.core.bias import RelativeBias
from xformer.core.mask import Mask
from xformer.position.alibi import LinearBias

HEADS, DIM = 2, 4
FORMS: list[Any] = ["dot", "general", "scaled"]


class Content(RelativeBias):
    """A term of query and distance, and one added to the values."""

    def scores(self, query: Tensor, distances: Tensor) -> Tensor:
        return query.sum(-1, keepdim=True) * torch.cos(distances)[:, None]

    def values(self, weights: Tensor, distances: Tensor) -> Tensor:
        return (weights * distances[:, None]).sum(-1, keepdim=True).expand(*weights.shape[:-1], DIM)


BIASES = {"none": None, "alibi": LinearBias(torch.tensor([0.5, 0.1])), "content": Content()}


def build(form: Any, causal: bool = False) -> Multiplicative:
    torch.manual_seed(0)
    return Multiplicative(AttentionContext(HEADS, DIM, 32, 32, causal), form=form)


def score(attention: Multiplicative, form: str, head: int, query: Tensor, key: Tensor) -> Tensor:
    """Luong et al. 2015, equation 8 (and Vaswani et al. 2017)."""
    if form == "general":
        assert attention.weight is not None
        return query @ attention.weight[head] @ key
    return torch.dot(query, key) / (2.0 if form == "scaled" else 1.0)


def oracle(
    attention: Multiplicative, form: str, tensors: list[Tensor], mask: Mask, bias: RelativeBias | None
) -> Tensor:
    query, key, value = tensors
    mixed = torch.zeros_like(query)
    distances = (mask.key_positions[:, None, :] - mask.query_positions[:, :, None]).expand(len(query), -1, -1)
    added = torch.zeros(()) if bias is None else bias.scores(query, distances)
    added = added.expand(len(query), HEADS, query.shape[2], key.shape[2])
    for row in range(len(query)):
        for head in range(HEADS):
            for i in range(query.shape[2]):
                real = range(key.shape[2])
                readable = [
                    j
                    for j in real
                    if (mask.key_padding is None or mask.key_padding[row, j])
                    and (not mask.causal or distances[row, i, j] <= 0)
                ]
                if not readable:
                    continue
                scores = [score(attention, form, head, query[row, head, i], key[row, head, j]) for j in readable]
                weights = (torch.stack(scores) + added[row, head, i, readable]).softmax(0)
                mixed[row, head, i] = weights @ value[row, head, readable]
                if isinstance(bias, Content):
                    mixed[row, head, i] += weights @ distances[row, i, readable].float()
    return mixed


def inputs(queries: int, keys: int, batch: int = 2) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(batch, HEADS, length, DIM) for length in (queries, keys, keys)]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("form", FORMS)
def test_equals_the_equation(form: str, name: str, causal: bool, padded: bool) -> None:
    attention, bias, tensors = build(form, causal), BIASES[name], inputs(7, 7)
    positions = torch.arange(7)[None]
    padding = torch.arange(7) >= torch.tensor([[0], [3]]) if padded else None
    mask = Mask(positions, positions, causal, padding)
    expected = oracle(attention, form, tensors, mask, bias)
    assert_close(attention(*tensors, mask=mask, bias=bias), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_cross_attention_and_rows_without_a_key(form: str) -> None:
    attention, tensors = build(form), inputs(3, 5)
    padding = torch.tensor([[True] * 5, [False] * 5])
    mask = Mask(torch.arange(3)[None], torch.arange(5)[None], False, padding)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    mixed = attention(*leaves, mask=mask)
    assert_close(mixed, oracle(attention, form, tensors, mask, None), atol=1e-5, rtol=1e-5)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(mixed.sum(), leaves))


@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("form", FORMS)
def test_steps_equal_forward(form: str, name: str) -> None:
    attention, bias, tensors = build(form, causal=True), BIASES[name], inputs(9, 9)
    positions = torch.arange(9)[None]
    expected = attention(*tensors, mask=Mask(positions, positions, True), bias=bias)
    state, found = attention.init_state(9), []
    for part in (slice(0, 4), *(slice(i, i + 1) for i in range(4, 9))):
        places = positions[:, part]
        new = (tensor[:, :, part] for tensor in tensors)
        found.append(attention.step(*new, state, mask=Mask(places, places, True), bias=bias))
    assert_close(torch.cat(found, dim=2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["none", "alibi"])
def test_gradcheck(name: str) -> None:
    attention = build("general", causal=True).double()
    tensors = [tensor.double().requires_grad_() for tensor in inputs(3, 3, batch=1)]
    positions = torch.arange(3)[None]
    mask = Mask(positions, positions, True, torch.tensor([[True, True, False]]))
    bias = BIASES[name]
    assert torch.autograd.gradcheck(lambda *qkv: attention(*qkv, mask=mask, bias=bias), tensors, fast_mode=True)


def test_only_general_has_parameters_and_they_give_scores_of_variance_1() -> None:
    assert not [*build("dot").parameters(), *build("scaled").parameters()]
    torch.manual_seed(0)
    weight = Multiplicative(AttentionContext(8, 64, 32, 32, False), form="general").weight
    assert weight is not None
    query, key = torch.randn(2, 8, 100, 64)
    assert 0.8 < float((query @ weight.detach() @ key.mT).var()) < 1.2
