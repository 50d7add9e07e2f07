"""Local attention: its statement is the paper's, and its kernels and its decoding read what it states."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.attention.block_sparse_oracle import Table, decoded, evaluated, own_mask, qkv, times_read
from xformer.attention.base import AttentionContext
from xformer.attention.full import Full
from xformer.attention.local import Local
from xformer.core.mask import Mask


def build(window: int, causal: bool, max_length: int = 64) -> Local:
    return Local(AttentionContext(3, 4, max_length, max_length, causal), window=window)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(0, 70), st.booleans())
def test_the_mask_mod_is_the_paper_s_window(length: int, window: int, causal: bool) -> None:
    allowed = evaluated(build(window, causal), length, causal)
    for i in range(length):
        expected = list(range(max(0, i - window), min(length - 1, i if causal else i + window) + 1))
        assert allowed[:, i].nonzero()[:, 1].tolist() == expected * 3


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 1100), st.integers(0, 200), st.booleans())
def test_every_pair_of_the_mask_mod_is_read_once(length: int, window: int, causal: bool) -> None:
    attention = build(window, causal, length)
    allowed = evaluated(attention, length, causal).float()
    assert_close(times_read(attention, length, causal), allowed, atol=1e-4, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200), st.integers(0, 250))
def test_a_step_reads_the_keys_of_the_mask_mod(length: int, window: int) -> None:
    attention = build(window, True, length)
    assert torch.equal(decoded(attention, length), evaluated(attention, length, True).long())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length", "window"), [(1, 0), (13, 12), (13, 500), (64, 64), (67, 66)])
def test_a_window_over_everything_is_full_attention(length: int, window: int, causal: bool) -> None:
    inputs, mask = qkv(2, length), own_mask(length, causal)
    expected = Full(AttentionContext(3, 4, 64, 64, causal))(*inputs, mask=mask)
    assert_close(build(window, causal)(*inputs, mask=mask), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [15, 16, 17, 63, 64, 65])
@pytest.mark.parametrize("length", [63, 64, 65, 131])
def test_windows_around_the_size_of_a_block(window: int, length: int, causal: bool) -> None:
    inputs, bias = qkv(1, length), Table(reach=length)
    mask = own_mask(length, causal)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    outside = (distance > window) | (distance < (0 if causal else -window))
    scores = inputs[0] @ inputs[1].mT / 2 + bias.table(-distance)
    expected = scores.masked_fill(outside, -torch.inf).softmax(-1) @ inputs[2]
    assert_close(build(window, causal)(*inputs, mask=mask, bias=bias), expected, atol=1e-5, rtol=1e-5)


def test_the_state_is_a_ring_that_does_not_grow() -> None:
    attention = build(5, causal=True)
    state, inputs = attention.init_state(10_000), qkv(2, 50)
    sizes = set()
    for at in range(50):
        one = slice(at, at + 1)
        attention.step(*(x[:, :, one] for x in inputs), state, mask=own_mask(1, True, start=at))
        sizes.add(state.bytes)
    entry = 2 * 3 * 4 * 4 + 8  # keys and values of three heads of four floats, and a position
    assert sizes == {2 * (5 + 1 + 1) * entry}


@pytest.mark.parametrize("causal", [False, True])
def test_blocks_at_the_ends_and_between_equal_the_dense_formula_with_gradients(causal: bool) -> None:
    inputs, attention, length = qkv(1, 200), build(20, causal), 200  # ten blocks, of which the outer ones are padded
    real = torch.arange(length)[None] != 77
    distance = torch.arange(length)[:, None] - torch.arange(length)
    outside = (distance > 20) | (distance < (0 if causal else -20)) | ~real
    expected = (inputs[0] @ inputs[1].mT / 2).masked_fill(outside, -torch.inf).softmax(-1) @ inputs[2]
    expected = expected.where(real[0, :, None], 0.0)
    positions = torch.arange(length)[None]
    mixed = attention(*inputs, mask=Mask(positions, positions, causal, real))
    assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(mixed)
    found, wanted = (torch.autograd.grad((x * weights).sum(), inputs) for x in (mixed, expected))
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-5)
