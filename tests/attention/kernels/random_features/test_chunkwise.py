"""The passes by hand against the plain statement, `prefix_sums.py`, and against the equation."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.attention.kernels.random_features.equation import DIM, FEATURES, equation, inputs, self_mask
from xformer.attention.kernels.random_features import chunkwise
from xformer.attention.kernels.random_features.chunkwise import (
    CAUSAL_CHUNK,
    CHUNK,
    bidirectional_attention,
    causal_attention,
)
from xformer.attention.kernels.random_features.features import RandomFeatures
from xformer.attention.kernels.random_features.prefix_sums import prefix_sum_attention
from xformer.core.mask import Mask
from xformer.position.alibi import LinearBias

SLOPES = torch.tensor([0.5, 0.01])
kernels = pytest.mark.parametrize("kernel", ["exp", "relu"])
cases = pytest.mark.parametrize(("is_causal", "decays"), [(False, False), (True, False), (True, True)])


def phi(kernel: Any = "exp", features: int = FEATURES) -> RandomFeatures:
    torch.manual_seed(0)
    return RandomFeatures(features, DIM, kernel)


def target_overrides(features: RandomFeatures, tensors: list[Tensor], mask: Mask, slopes: Tensor | None) -> Tensor:
    if mask.causal:
        return causal_attention(features, *tensors, mask.key_positions, mask.key_padding, slopes)
    return bidirectional_attention(features, *tensors, mask.key_padding)


def plainly(features: RandomFeatures, tensors: list[Tensor], mask: Mask, slopes: Tensor | None) -> Tensor:
    bias = None if slopes is None else LinearBias(slopes)
    return prefix_sum_attention(features, *tensors, mask=mask, bias=bias)


def check(features: RandomFeatures, tensors: list[Tensor], mask: Mask, slopes: Tensor | None) -> None:
    """Results and all gradients are the plain statement's, in float64, where there is no padding."""
    features, tensors = features.double(), [tensor.double() for tensor in mask.blank(*tensors)]
    trained = [] if slopes is None else [slopes.double().requires_grad_()]
    leaves = [*(tensor.requires_grad_() for tensor in tensors), *trained]
    mixed = [mix(features, tensors, mask, *(trained or [None])) for mix in (target_overrides, plainly)]
    if mask.key_padding is not None:
        mixed = [x.masked_fill(~mask.key_padding[:, None, :, None], 0.0) for x in mixed]
    assert_close(*mixed)
    grad = torch.randn(mixed[0].shape, generator=torch.Generator().manual_seed(4)).double()
    for ours, theirs in zip(*(torch.autograd.grad((x * grad).sum(), leaves) for x in mixed), strict=True):
        assert_close(ours, theirs)


@kernels
@cases
@pytest.mark.parametrize("length", [1, CAUSAL_CHUNK - 1, CAUSAL_CHUNK, CHUNK, CHUNK + 1, 1000, 4096])
def test_equals_the_plain_statement(length: int, is_causal: bool, decays: bool, kernel: str) -> None:
    check(phi(kernel), inputs(length, batch=1), self_mask(length, is_causal), SLOPES if decays else None)


@kernels
@cases
def test_equals_the_plain_statement_with_padding(is_causal: bool, decays: bool, kernel: str) -> None:
    """Chunks of nothing but padding at either end, and a row without any token."""
    length = 1024
    begin, end = torch.tensor([[2 * CHUNK + 1], [0], [5], [0]]), torch.tensor([[length], [CHUNK], [5], [length]])
    slots = torch.arange(length)
    valid = (slots >= begin) & (slots < end)
    mask = self_mask(length, is_causal, valid, (slots - begin).clamp(min=0))
    check(phi(kernel), inputs(length, batch=4), mask, SLOPES if decays else None)


@cases
def test_heads_go_some_at_a_time(is_causal: bool, decays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 256 features eight of them fit, and twelve take two turns, the second of four."""
    sizes: list[int] = []
    function = chunkwise._Causal if is_causal else chunkwise._Bidirectional
    apply = function.apply

    def counted(query: Tensor, *rest: Any) -> Tensor:
        sizes.append(len(query))
        return apply(query, *rest)

    monkeypatch.setattr(function, "apply", counted)
    slopes = torch.tensor([0.5, 0.1, 0.01, 0.0]) if decays else None
    check(phi(features=256), inputs(1024, batch=3, heads=4), self_mask(1024, is_causal), slopes)
    assert sizes == [8, 4]


@kernels
@cases
def test_equals_the_equation(is_causal: bool, decays: bool, kernel: str) -> None:
    features, tensors, mask = phi(kernel), inputs(1100), self_mask(1100, is_causal)
    slopes = SLOPES if decays else None
    expected = equation(features, *tensors, mask, None if slopes is None else LinearBias(slopes))
    assert_close(target_overrides(features, tensors, mask, slopes).double(), expected, atol=1e-5, rtol=1e-5)


@kernels
@cases
def test_gradcheck(is_causal: bool, decays: bool, kernel: str) -> None:
    """Three chunks."""
    length, features = 2 * (CAUSAL_CHUNK if is_causal else CHUNK) + 3, phi(kernel).double()
    tensors = [tensor[:, :1].double().requires_grad_() for tensor in inputs(length, batch=1)]
    slopes = [torch.tensor([0.3], dtype=torch.float64, requires_grad=True)] if decays else []

    def mixed(query: Tensor, key: Tensor, value: Tensor, slopes: Tensor | None = None) -> Tensor:
        return target_overrides(features, [query, key, value], self_mask(length, is_causal), slopes)

    assert torch.autograd.gradcheck(mixed, (*tensors, *slopes), fast_mode=True)


def test_a_decay_loses_no_digits_far_from_the_beginning() -> None:
    features, tensors, positions = phi(), inputs(1000), torch.arange(1000)[None]
    near, far = (causal_attention(features, *tensors, positions + start, None, SLOPES) for start in (0, 1_000_000))
    assert_close(far, near, atol=0.0, rtol=0.0)


def test_without_a_gradient_one_state_is_kept_and_the_result_is_the_same() -> None:
    features, tensors, positions = phi(), inputs(1000), torch.arange(1000)[None]
    with torch.no_grad():
        alone = causal_attention(features, *tensors, positions, None, SLOPES)
    tensors = [tensor.requires_grad_() for tensor in tensors]
    assert torch.equal(alone, causal_attention(features, *tensors, positions, None, SLOPES))


def test_queries_and_keys_of_different_length() -> None:
    features, tensors = phi(), inputs(300, 1024)
    mask = Mask(torch.arange(300)[None], torch.arange(1024)[None])
    found = bidirectional_attention(features, *tensors, None)
    assert_close(found.double(), equation(features, *tensors, mask, None), atol=1e-5, rtol=1e-5)


def test_large_norms_lose_nothing_bidirectionally() -> None:
    features, (query, key, value) = phi(), inputs(1000, scale=8.0)
    key = key * 0.1 - query
    expected = equation(features, query, key, value, self_mask(1000, False), None)
    assert_close(bidirectional_attention(features, query, key, value, None).double(), expected, atol=1e-3, rtol=1e-3)
