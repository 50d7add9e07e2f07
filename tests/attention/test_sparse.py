"""Sparse Transformer's own promises; the rest is in test_block_sparse.py."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.attention.block_sparse_oracle import own_mask, qkv
from xformer.attention import sparse
from xformer.attention.base import AttentionContext
from xformer.attention.full import Full
from xformer.attention.kernels.strided import kernel as strided
from xformer.attention.sparse import Sparse
from xformer.core.bias import TableBias
from xformer.core.mask import Mask
from xformer.errors import ConfigError


def build(causal: bool = False, max_length: int = 64, heads: int = 3, **keywords: Any) -> Sparse:
    defaults = {"pattern": "strided", "stride": 4, "summary": 1, "heads": "merged"}
    return Sparse(AttentionContext(heads, 4, max_length, max_length, causal), **{**defaults, **keywords})


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 2, 29, 64])
@pytest.mark.parametrize(
    "keywords",
    [
        {"stride": 1},
        {"stride": 100},
        {"pattern": "fixed", "stride": 1},
        {"pattern": "fixed", "stride": 7, "summary": 7},
        {"pattern": "fixed", "stride": 100},
    ],
    ids=str,
)
def test_settings_that_are_full_attention(keywords: dict[str, Any], length: int, causal: bool) -> None:
    inputs, mask = qkv(2, length), own_mask(length, causal)
    expected = Full(AttentionContext(3, 4, 64, 64, causal))(*inputs, mask=mask)
    assert_close(build(causal, **keywords)(*inputs, mask=mask), expected, atol=1e-5, rtol=1e-5)


def test_two_steps_reach_everything_before() -> None:
    """The paper's criterion for a factorisation, section 4.2."""
    for keywords in ({}, {"pattern": "fixed"}):
        attention, length = build(True, **keywords), 23
        reached = torch.eye(length)
        for _ in range(2):
            value = reached[None, None].expand(1, 3, length, length)
            still = torch.zeros(1, 3, length, length)
            reached = attention(still, still, value, mask=own_mask(length, True))[0, 0]
        assert torch.equal(reached > 0, torch.ones(length, length).tril() > 0)


def test_split_heads_read_one_pattern_each() -> None:
    attention = build(True, heads=2, pattern="fixed", stride=3, summary=1)
    attention.heads = "split"
    value = torch.eye(7)[None, None].expand(1, 2, 7, 7)
    still = torch.zeros(1, 2, 7, 7)
    mixed = attention(still, still, value, mask=own_mask(7, True))[0]
    assert mixed[0, 4].nonzero().flatten().tolist() == [3, 4]
    assert mixed[1, 4].nonzero().flatten().tolist() == [2]
    assert mixed[1, 1].abs().max() == 0  # no column before it: zeros


@pytest.mark.parametrize(("max_length", "stride"), [(1, 1), (2, 2), (16, 4), (17, 5), (1024, 32)])
def test_the_default_stride_is_the_square_root_of_the_length(max_length: int, stride: int) -> None:
    assert build(max_length=max_length, stride=None).stride == stride


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"pattern": "fixed", "summary": 5}, "attention.summary=5 .* 1 to 4"),
        ({"heads": "split", "context_heads": 1}, "attention.heads=split .* choose heads=merged"),
    ],
    ids=str,
)
def test_impossible_values_are_refused(keywords: dict[str, Any], message: str) -> None:
    heads = keywords.pop("context_heads", 3)
    with pytest.raises(ConfigError, match=message):
        Sparse(
            AttentionContext(heads, 4, 64, 64, False),
            **{"pattern": "strided", "stride": 4, "summary": 1, "heads": "merged", **keywords},
        )


def by_hand(inputs: list[Tensor], real: Tensor, stride: int, causal: bool, pattern: str, bias: Tensor) -> Tensor:
    """The paper's two sets, as a dense mask."""
    i, j = torch.arange(real.shape[1])[:, None], torch.arange(real.shape[1])
    if pattern == "strided":
        reads = ((i - j).abs() < stride) | ((i - j) % stride == 0)
    else:
        reads = (i // stride == j // stride) | (j % stride == stride - 1)
    reads = reads & real[:, None, None] & ((j <= i) | (not causal))
    query, key, value = inputs
    scores = query @ key.mT / query.shape[-1] ** 0.5 + bias[:, j - i + real.shape[1] - 1]
    reads = reads | ~real[:, None, :, None]  # of a padded query, which reads nothing and mixes zeros
    weights = scores.masked_fill(~reads, -torch.inf).softmax(-1)
    return (weights @ value) * real[:, None, :, None]


class Transposed(TableBias):
    """A table that lies in memory by distance, as one that an embedding makes does."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def table(self, distances: Tensor) -> Tensor:
        return self.weight[distances + len(self.weight) // 2].movedim(-1, 0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pattern", ["strided", "fixed"])
@pytest.mark.parametrize(("length", "stride"), [(150, 6), (150, 48), (131, 37), (96, 32)])
@pytest.mark.parametrize("room", [1, 1 << 12, 1 << 19])
def test_padding_tables_and_ragged_rows(
    pattern: str, length: int, stride: int, causal: bool, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the sizes of the blocks, and however few heads and rows are taken at a time."""
    monkeypatch.setattr(strided, "SCORES_AT_A_TIME", room)
    inputs = [x.detach().double().requires_grad_() for x in qkv(2, length)]
    real = torch.arange(length)[None] < torch.tensor([[length], [length - 21]])
    weight = torch.randn(2 * length - 1, 3, dtype=torch.double, requires_grad=True)
    positions = torch.arange(length)[None]
    attention = build(causal, max_length=length, pattern=pattern, stride=stride)
    mixed = attention(*inputs, mask=Mask(positions, positions, causal, real), bias=Transposed(weight))
    expected = by_hand(inputs, real, stride, causal, pattern, weight.mT)
    assert_close(mixed, expected)
    up = torch.randn(2, 3, length, 4, dtype=torch.double)
    for found, wanted in zip(
        torch.autograd.grad(mixed, [*inputs, weight], up),
        torch.autograd.grad(expected, [*inputs, weight], up),
        strict=True,
    ):
        assert_close(found, wanted)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_some_weights_are_kept_and_the_others_made_again(
    pattern: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    take = strided._Kept.allocate

    def spy(self: Any, like: Tensor) -> Tensor:
        kept.append((found := take(self, like)) is not like)
        return found

    monkeypatch.setattr(strided._Kept, "allocate", spy)
    monkeypatch.setattr(strided, "SCORES_AT_A_TIME", 1)  # many groups
    inputs, bias = [x.detach().double().requires_grad_() for x in qkv(2, 150)], torch.zeros(1, 299).double()
    attention = build(causal, max_length=150, pattern=pattern, stride=6)
    mixed = attention(*inputs, mask=own_mask(150, causal))
    assert set(kept) == {True, False}
    expected = by_hand(inputs, torch.ones(2, 150).bool(), 6, causal, pattern, bias)
    up = torch.randn_like(mixed)
    for found, wanted in zip(*(torch.autograd.grad(x, inputs, up) for x in (mixed, expected)), strict=True):
        assert_close(found, wanted)
    kept.clear()
    with torch.no_grad():
        attention(*inputs, mask=own_mask(150, causal))
    assert set(kept) == {False}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_rows_too_long_for_their_square_are_gathered(
    pattern: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, mask = qkv(2, 29), own_mask(29, causal)
    attention = build(causal, pattern=pattern)
    expected = attention(*inputs, mask=mask)
    monkeypatch.setattr(sparse, "LONGEST_ROW", 3)
    assert_close(attention(*inputs, mask=mask), expected, atol=1e-5, rtol=1e-5)
