"""Sparse Transformer: its statement is the paper's two sets, and its kernels and its decoding read what it states."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.attention.block_sparse_oracle import (
    Nothing,
    Variant,
    decoded,
    evaluated,
    matrix,
    own_mask,
    qkv,
    sparse,
    times_read,
)
from xformer.attention.base import AttentionContext
from xformer.attention.full import Full
from xformer.attention.sparse import Sparse
from xformer.errors import ConfigError


def build(causal: bool = False, max_length: int = 64, context_heads: int = 3, **keywords: Any) -> Sparse:
    defaults = {"pattern": "strided", "stride": 4, "summary": 1, "heads": "merged"}
    return Sparse(AttentionContext(context_heads, 4, max_length, max_length, causal), **{**defaults, **keywords})


@st.composite
def patterns(draw: st.DrawFn, longest: int) -> dict[str, Any]:
    stride = draw(st.integers(1, longest))
    return {
        "pattern": draw(st.sampled_from(["strided", "fixed"])),
        "stride": stride,
        "summary": draw(st.integers(1, min(stride, 5))),
        "heads": draw(st.sampled_from(["merged", "split"])),
    }


@settings(max_examples=60, deadline=None)
@given(patterns(60), st.integers(1, 50), st.booleans())
def test_the_mask_mod_is_the_paper_s_two_sets(keywords: dict[str, Any], length: int, causal: bool) -> None:
    attention = build(causal, **keywords)
    expected = matrix(Variant(Sparse, keywords, sparse), attention, length, causal)
    assert torch.equal(evaluated(attention, length, causal), expected)


@settings(max_examples=60, deadline=None)
@given(patterns(100), st.integers(1, 1100), st.booleans(), st.booleans())
def test_every_pair_of_the_mask_mod_is_read_once(
    keywords: dict[str, Any], length: int, causal: bool, content: bool
) -> None:
    """By the strided kernel, and gathered, as where heads are split or a bias depends on the query."""
    attention = build(causal, length, 2, **keywords)
    allowed = evaluated(attention, length, causal).float()
    assert_close(times_read(attention, length, causal, Nothing() if content else None), allowed, atol=1e-4, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_rows_too_long_for_their_square_are_gathered_and_read_once(pattern: str, causal: bool) -> None:
    attention = build(causal, 1300, 2, pattern=pattern, stride=600, summary=4)
    allowed = evaluated(attention, 1300, causal).float()
    assert_close(times_read(attention, 1300, causal), allowed, atol=1e-4, rtol=0)


@settings(max_examples=60, deadline=None)
@given(patterns(250), st.integers(1, 200))
def test_a_step_reads_the_keys_of_the_mask_mod(keywords: dict[str, Any], length: int) -> None:
    attention = build(True, length, **keywords)
    assert torch.equal(decoded(attention, length), evaluated(attention, length, True).long())


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
    attention = build(True, 7, 2, pattern="fixed", stride=3, summary=1, heads="split")
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
    with pytest.raises(ConfigError, match=message):
        build(**keywords)
