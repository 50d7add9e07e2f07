"""BigBird: its statement is the paper's sets, and its kernels and its decoding read what it states."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from tests.attention.block_sparse_oracle import Variant, bigbird, decoded, evaluated, matrix, own_mask, qkv, times_read
from xformer.attention.base import AttentionContext
from xformer.attention.bigbird import BigBird
from xformer.attention.full import Full
from xformer.errors import ConfigError
from xformer.layers.initialise import initialise


def build(causal: bool = False, max_length: int = 64, heads: int = 3, **keywords: int) -> BigBird:
    defaults = {"block": 4, "global_blocks": 1, "window_blocks": 3, "random_blocks": 2}
    return BigBird(AttentionContext(heads, 4, max_length, max_length, causal), **{**defaults, **keywords})


def read_by(attention: BigBird, length: int, causal: bool) -> Tensor:
    """True where a query reads a key, seen from outside: equal scores, and values that tell the keys apart."""
    still, heads = torch.zeros(1, attention.context.heads, length, length), attention.context.heads
    value = torch.eye(length)[None, None].expand(1, heads, -1, -1)
    weights: Tensor = attention(still, still, value, mask=own_mask(length, causal))[0]
    counts = (weights > 0).sum(-1, keepdim=True)
    assert_close(weights, (weights > 0) / counts)  # no key counts twice
    return weights > 0


settings_of_blocks = st.fixed_dictionaries(
    {
        "block": st.sampled_from([1, 3, 4, 16, 64]),
        "global_blocks": st.integers(0, 3),
        "window_blocks": st.sampled_from([1, 3, 5]),
        "random_blocks": st.integers(0, 4),
    }
)


@settings(max_examples=30, deadline=None)
@given(settings_of_blocks, st.integers(1, 50), st.integers(1, 60), st.booleans())
def test_the_mask_mod_is_the_paper_s_set_of_blocks(
    keywords: dict[str, int], length: int, max_length: int, causal: bool
) -> None:
    """At lengths beyond the longest that the model was built for, too."""
    attention = build(causal, max_length, heads=2, **keywords)
    expected = matrix(Variant(BigBird, keywords, bigbird), attention, length, causal)
    assert torch.equal(evaluated(attention, length, causal), expected)


@settings(max_examples=25, deadline=None)
@given(settings_of_blocks, st.integers(1, 1100), st.booleans())
def test_every_pair_of_the_mask_mod_is_read_once(keywords: dict[str, int], length: int, causal: bool) -> None:
    attention = build(causal, length, heads=2, **keywords)
    allowed = evaluated(attention, length, causal).float()
    assert_close(times_read(attention, length, causal), allowed, atol=1e-4, rtol=0)


@settings(max_examples=25, deadline=None)
@given(settings_of_blocks, st.integers(1, 200), st.integers(1, 200))
def test_a_step_reads_the_keys_of_the_mask_mod(keywords: dict[str, int], length: int, max_length: int) -> None:
    attention = build(True, max_length, heads=2, **keywords)
    assert torch.equal(decoded(attention, length), evaluated(attention, length, True).long())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 4, 29, 64])
@pytest.mark.parametrize(
    "keywords",
    [
        {"window_blocks": 33},
        {"random_blocks": 16},
        {"global_blocks": 16},
        {"global_blocks": 40, "random_blocks": 40, "window_blocks": 41},
        {"block": 64},
        {"block": 100, "global_blocks": 0},
    ],
    ids=str,
)
def test_every_block_is_full_attention(keywords: dict[str, int], length: int, causal: bool) -> None:
    inputs, mask = qkv(2, length), own_mask(length, causal)
    expected = Full(AttentionContext(3, 4, 64, 64, causal))(*inputs, mask=mask)
    assert_close(build(causal, **keywords)(*inputs, mask=mask), expected, atol=1e-5, rtol=1e-5)


def test_blocks_that_each_query_reads() -> None:
    tokens = read_by(build(), 64, causal=False)
    reads = tokens[:, ::4, ::4]
    assert torch.equal(reads.repeat_interleave(4, 1).repeat_interleave(4, 2), tokens)  # whole blocks
    assert reads[:, 0].all()
    assert reads[:, :, 0].all()
    index = torch.arange(16)
    window = (index[:, None] - index).abs() <= 1
    assert reads[:, window].all()
    # Inside: one global, three of the window, two at random. The second block's window has the global one in it.
    assert (reads[:, 2:15].sum(-1) == 6).all()
    assert (reads[:, 1].sum(-1) == 5).all()
    assert not torch.equal(reads[0], reads[1])


def test_the_causal_form_has_as_many_random_blocks_as_there_are() -> None:
    reads = read_by(build(causal=True), 64, causal=True)[:, 3::4, ::4]
    assert (reads.sum(-1) == torch.tensor([1, 2, 3, 4, 5, *[5] * 11])).all()


@pytest.mark.parametrize("causal", [False, True])
def test_the_layout_does_not_depend_on_the_length(causal: bool) -> None:
    attention = build(causal)
    whole = read_by(attention, 64, causal)
    for length in (1, 5, 30, 63):
        assert torch.equal(read_by(attention, length, causal), whole[:, :length, :length])
    longer = read_by(attention, 100, causal)
    assert torch.equal(longer[:, 4:64, :64], whole[:, 4:])
    blocks = longer[:, 64::4, ::4].sum(-1) if not causal else longer[:, 67::4, ::4].sum(-1)
    assert (blocks >= 5 - int(not causal)).all()


def test_the_layout_is_saved_and_comes_from_the_seed() -> None:
    attention, again, other = build(), build(), build()
    initialise(attention, 1)
    initialise(again, 1)
    initialise(other, 2)
    assert torch.equal(attention.draws, again.draws)
    assert not torch.equal(attention.draws, other.draws)
    other.load_state_dict(attention.state_dict())
    inputs, mask = qkv(1, 50), own_mask(50, False)
    assert torch.equal(other(*inputs, mask=mask), attention(*inputs, mask=mask))
    assert attention.bfloat16().draws.dtype == torch.long


def test_random_blocks_are_drawn_evenly() -> None:
    torch.manual_seed(0)
    attention = build(heads=2000, max_length=48)
    drawn = attention._random_blocks(torch.tensor([6]), causal=False)[:, 0]
    counts = drawn.flatten().bincount(minlength=12)
    allowed = [1, 2, 3, 4, 8, 9, 10, 11]
    assert counts[[0, 5, 6, 7]].sum() == 0
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert ((counts[allowed] - 500).abs() < 100).all()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"window_blocks": 2}, "attention.window_blocks=2 .* odd"),
    ],
    ids=str,
)
def test_impossible_values_are_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**keywords)
