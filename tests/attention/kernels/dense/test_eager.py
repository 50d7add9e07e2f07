"""Attention with its scores written out, against one query at a time over the keys that it may attend to."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from xformer.attention.kernels.dense.eager import eager_attention
from xformer.core.bias import RelativeBias
from xformer.core.mask import Mask
from xformer.position.alibi import LinearBias

HEADS, DIM, LENGTH = 2, 4, 9


class Content(RelativeBias):
    """A term of query and distance, and one added to the values."""

    def scores(self, query: Tensor, distances: Tensor) -> Tensor:
        return query.sum(-1, keepdim=True) * torch.cos(distances)[:, None]

    def values(self, weights: Tensor, distances: Tensor) -> Tensor:
        return (weights * distances[:, None]).sum(-1, keepdim=True).expand(*weights.shape[:-1], DIM)


BIASES = {"none": None, "alibi": LinearBias(torch.tensor([0.5, 0.1])), "content": Content()}


def inputs(length: int) -> list[Tensor]:
    torch.manual_seed(0)
    query, value = torch.randn(2, 2, HEADS, length, DIM)
    return [torch.randn(2, HEADS, length, length), value, query]


def one_by_one(scores: Tensor, value: Tensor, query: Tensor, mask: Mask, bias: RelativeBias | None) -> Tensor:
    mixed = torch.zeros_like(query)
    distances = mask.distances().expand(len(query), -1, -1)
    added = torch.zeros_like(scores) if bias is None else bias.scores(query, distances)
    for row, head, i in torch.cartesian_prod(*(torch.arange(size) for size in query.shape[:3])):
        keys = [
            j
            for j in range(value.shape[2])
            if (mask.key_padding is None or mask.key_padding[row, j]) and (not mask.causal or j <= i)
        ]
        if keys:
            weights = (scores + added)[row, head, i, keys].softmax(0)
            mixed[row, head, i] = weights @ value[row, head, keys]
            if isinstance(bias, Content):
                mixed[row, head, i] += weights @ distances[row, i, keys].float()
    return mixed


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", BIASES)
def test_equals_one_query_at_a_time_and_its_gradients(name: str, causal: bool, padded: bool) -> None:
    """The second row begins with padding, so that its first causal queries have no key."""
    (scores, value, query), bias = inputs(LENGTH), BIASES[name]
    leaves = [scores.requires_grad_(), value.requires_grad_()]
    valid = torch.arange(LENGTH) >= torch.tensor([[0], [3]]) if padded else None
    mask = Mask.consecutive(0, LENGTH, causal=causal, key_padding=valid)
    mixed = eager_attention(scores, value, query=query, mask=mask, bias=bias)
    expected = one_by_one(scores, value, query, mask, bias)
    assert_close(mixed, expected)
    grad = torch.randn_like(mixed)
    for found, known in zip(*(torch.autograd.grad(x, leaves, grad) for x in (mixed, expected)), strict=True):
        assert_close(found, known)


@pytest.mark.parametrize("causal", [False, True])
def test_is_torch_s_attention_of_scaled_products(causal: bool) -> None:
    length = 1024
    query, key, value = torch.randn(3, 1, HEADS, length, 64, generator=torch.Generator().manual_seed(0))
    mask = Mask.consecutive(0, length, causal=causal)
    mixed = eager_attention(query @ key.mT / 8, value, query=query, mask=mask, bias=None)
    assert_close(mixed, scaled_dot_product_attention(query, key, value, is_causal=causal), atol=1e-5, rtol=1e-5)
