"""Sparse Transformer's own promises; the rest is in test_block_sparse.py."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tests.attention.block_sparse_oracle import own_mask, qkv
from xformer.attention.base import AttentionContext
from xformer.attention.full import Full
from xformer.attention.sparse import Sparse
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
        ({"stride": 0}, "attention.stride=0 .* 1 or more"),
        ({"pattern": "fixed", "summary": 5}, "attention.summary=5 .* 1 to 4"),
        ({"pattern": "fixed", "summary": 0}, "attention.summary=0 .* 1 to 4"),
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
