"""Bahdanau's scores against their equation, and their memory."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xformer.attention.additive import HIDDEN_NUMBERS, Additive
from xformer.attention.base import AttentionContext
from xformer.core.bias import RelativeBias
from xformer.core.mask import Mask
from xformer.position.alibi import LinearBias

HEADS, DIM, HIDDEN = 2, 4, 5


class Content(RelativeBias):
    def scores(self, query: Tensor, distances: Tensor) -> Tensor:
        return query.sum(-1, keepdim=True) * torch.cos(distances)[:, None]


BIASES = {"none": None, "alibi": LinearBias(torch.tensor([0.5, 0.1])), "content": Content()}


def build(causal: bool = False, hidden: int = HIDDEN) -> Additive:
    torch.manual_seed(0)
    return Additive(AttentionContext(HEADS, DIM, 1024, 1024, causal), hidden=hidden)


def inputs(queries: int, keys: int, batch: int = 2) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(batch, HEADS, length, DIM) for length in (queries, keys, keys)]


def oracle(attention: Additive, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Any) -> Tensor:
    """Bahdanau et al. 2015, appendix A.1.2, all pairs at once."""
    left = torch.einsum("bhid,hdu->bhiu", query, attention.from_query)
    right = torch.einsum("bhjd,hdu->bhju", key, attention.from_key)
    hidden = torch.tanh(left[:, :, :, None, :] + right[:, :, None, :, :])
    scores = torch.einsum("bhiju,hu->bhij", hidden, attention.weight[..., 0])
    distances = mask.key_positions[:, None, :] - mask.query_positions[:, :, None]
    if bias is not None:
        scores = scores + bias.scores(query, distances)
    weights = scores.exp()
    if mask.causal:
        weights = weights * (distances <= 0).unsqueeze(1)
    if mask.key_padding is not None:
        weights = weights * mask.key_padding[:, None, None]
    return weights @ value / weights.sum(-1, keepdim=True).clamp(min=1e-300)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("length", [1, 2, 13, 400])  # the last in two parts
def test_equals_the_equation_and_its_gradients(length: int, name: str, causal: bool, padded: bool) -> None:
    attention, bias = build(causal).double(), BIASES[name]
    tensors = [tensor.double().requires_grad_() for tensor in inputs(length, length)]
    positions = torch.arange(length)[None]
    padding = torch.arange(length) >= torch.tensor([[0], [length // 2 + 1]]) if padded else None
    mask = Mask(positions, positions, causal, padding)
    mixed, expected = attention(*tensors, mask=mask, bias=bias), oracle(attention, *tensors, mask, bias)
    assert_close(mixed, expected)
    leaves = [*tensors, *attention.parameters()]
    towards = torch.randn_like(mixed)
    found, wanted = (torch.autograd.grad((out * towards).sum(), leaves) for out in (mixed, expected))
    for ours, theirs in zip(found, wanted, strict=True):
        assert_close(ours, theirs)


def test_cross_attention() -> None:
    attention, tensors = build(), inputs(3, 11)
    mask = Mask(torch.arange(3)[None], torch.arange(11)[None])
    assert_close(attention(*tensors, mask=mask), oracle(attention, *tensors, mask, None), atol=1e-5, rtol=1e-5)


def test_gradcheck() -> None:
    attention = build(causal=True).double()
    tensors = [tensor.double().requires_grad_() for tensor in inputs(4, 4, batch=1)]
    positions = torch.arange(4)[None]
    mask = Mask(positions, positions, True)
    assert torch.autograd.gradcheck(lambda *qkv: attention(*qkv, mask=mask), tensors, fast_mode=True)


@pytest.mark.parametrize("name", BIASES)
def test_steps_equal_forward(name: str) -> None:
    attention, bias, tensors = build(causal=True), BIASES[name], inputs(9, 9)
    positions = torch.arange(9)[None]
    padding = torch.arange(9) >= torch.tensor([[0], [2]])
    expected = attention(*tensors, mask=Mask(positions, positions, True, padding), bias=bias)
    state, found = attention.init_state(9), []
    for part in (slice(0, 4), *(slice(i, i + 1) for i in range(4, 9))):
        places = positions[:, part]
        new = (tensor[:, :, part] for tensor in tensors)
        found.append(attention.step(*new, state, mask=Mask(places, places, True, padding[:, part]), bias=bias))
    assert_close(torch.cat(found, dim=2), expected, atol=1e-5, rtol=1e-5)


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.numel = max(self.numel, leaf.numel())
        return out


def test_the_hidden_layer_of_all_pairs_never_exists() -> None:
    length, hidden = 1024, 16
    attention, tensors = build(hidden=hidden), [x.requires_grad_() for x in inputs(length, length, batch=1)]
    mask = Mask.consecutive(0, length, causal=False)
    with LargestTensor() as recorder:
        attention(*tensors, mask=mask).sum().backward()
    assert recorder.numel <= max(HIDDEN_NUMBERS, HEADS * length**2) < HEADS * length**2 * hidden / 8


def test_scores_start_with_variance_about_1() -> None:
    torch.manual_seed(0)
    attention = Additive(AttentionContext(8, 64, 32, 32, False), hidden=64)
    query, key = torch.randn(2, 1, 8, 50, 64)
    with torch.no_grad():
        scores = attention.scores(query @ attention.from_query, key @ attention.from_key)
    assert 0.2 < float(scores.var()) < 1.2
