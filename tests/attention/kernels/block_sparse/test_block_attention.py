"""The block-sparse kernel at sizes that users have, against a dense evaluation of the mask_mod that it is given."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from tests.attention.block_sparse_oracle import Table, dense
from xformer.attention.kernels.block_sparse.block_attention import (
    SCORES_AT_A_TIME,
    AttentionInput,
    BlockLayout,
    Layout,
    MaskMod,
    WindowLayout,
    _steps,
    bias_on_heads,
    block_attention,
    causal_mask_mod,
    even_block_size,
    full_mask_mod,
    mask_mod_difference,
    merge,
    with_causality,
)
from xformer.core.bias import RelativeBias, TableBias

both_directions = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])


def tokens(
    length: int, heads: int = 2, head_dim: int = 16, batch: int = 1, valid: Tensor | None = None
) -> AttentionInput:
    generator = torch.Generator().manual_seed(length)
    shape = (batch, heads, length, head_dim)
    query, key, value = (torch.randn(shape, generator=generator, requires_grad=True) for _ in range(3))
    return AttentionInput(query, key, value, index := torch.arange(length), index, valid, length)


def evaluated(mask_mod: MaskMod, of: AttentionInput) -> Tensor:
    heads = torch.arange(of.query.shape[1])[:, None, None]
    allowed = mask_mod(heads, of.query_positions[:, None], of.key_positions)
    allowed = allowed.expand(len(heads), -1, -1)
    return allowed if of.valid is None else allowed & of.valid[:, None, None]


def window(of: AttentionInput, back: int, causal: bool) -> tuple[Layout, MaskMod]:
    """The keys of a window but for one distance, as a mask_mod may have holes."""
    mask_mod = with_causality(lambda head, i, j: ((i - j).abs() <= back) & ((i - j).abs() != 1), causal=causal)
    return WindowLayout(of, mask_mod, back, 0 if causal else back), mask_mod


def drawn(of: AttentionInput, block: int, width: int, whole: int, causal: bool) -> tuple[Layout, MaskMod]:
    """Blocks at random, others for each head, some of them none; in them every third distance does not count."""
    heads, count = of.query.shape[1], -(-len(of.key_positions) // block)
    order = torch.rand(heads, count, count + 2, generator=torch.Generator().manual_seed(0)).argsort(-1)[..., :width] - 1
    table = torch.zeros(heads, count, count + 2, dtype=torch.bool).scatter(2, order + 1, True)[..., 1:-1]
    table[:, :whole] = True
    pattern = with_causality(lambda head, i, j: table[head, i // block, j // block] & ((i - j) % 3 != 1), causal=causal)

    def reads(blocks: range, device: torch.device) -> Tensor:
        return order[:, blocks.start : blocks.stop]

    inside = with_causality(lambda head, i, j: (i - j) % 3 != 1, causal=causal)
    layout = BlockLayout(of, inside, query_block=block, key_block=block, width=width, reads=reads, whole=whole)
    return layout, pattern


LAYOUTS: dict[str, Any] = {
    "window": lambda of, causal: window(of, 64, causal),
    "blocks": lambda of, causal: drawn(of, 64, 4, 1, causal),
    "small blocks": lambda of, causal: drawn(of, 16, 5, 0, causal),
}
every_layout = pytest.mark.parametrize("name", LAYOUTS)


def differentiate(mixed: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    upstream = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(1))
    return list(torch.autograd.grad(mixed, inputs, upstream.to(mixed.dtype)))


@every_layout
@both_directions
@pytest.mark.parametrize("trained", [False, True], ids=["no bias", "table"])
@pytest.mark.parametrize("length", [1024, 1337])
def test_equals_the_dense_evaluation_with_its_gradients(name: str, causal: bool, trained: bool, length: int) -> None:
    valid = torch.arange(length) % 100 != torch.tensor([[1000], [7]])
    of, bias = tokens(length, batch=2, valid=valid), Table(2, length) if trained else None
    layout, mask_mod = LAYOUTS[name](of, causal)
    inputs = [of.query, of.key, of.value, *([] if bias is None else bias.parameters())]
    mixed, expected = block_attention(of, layout, bias).values, dense(*inputs[:3], evaluated(mask_mod, of), bias)
    assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    for found, wanted in zip(differentiate(mixed, inputs), differentiate(expected, inputs), strict=True):
        assert_close(found, wanted, atol=2e-4, rtol=2e-4)


@every_layout
@both_directions
def test_the_lse_is_that_of_the_pairs_that_count_and_has_a_gradient(name: str, causal: bool) -> None:
    of = tokens(1024)
    layout, mask_mod = LAYOUTS[name](of, causal)
    lse, allowed = block_attention(of, layout, None).lse, evaluated(mask_mod, of)
    expected = (of.query @ of.key.mT / 4).masked_fill(~allowed, -torch.inf).logsumexp(-1)
    assert_close(lse, expected, atol=1e-5, rtol=1e-5)
    some = allowed.any(-1)
    found, wanted = (torch.autograd.grad(x[:, some].sum(), [of.query, of.key]) for x in (lse, expected))
    for ours, exact in zip(found, wanted, strict=True):
        assert_close(ours, exact, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["window", "small blocks"])
@both_directions
def test_weights_are_kept_where_they_are_few_and_made_again_where_not(name: str, causal: bool) -> None:
    """Of 64 features a query may keep 256 weights, of 16 it may not keep so many as either layout looks at."""
    length = 1024
    for head_dim in (16, 64):
        of, sizes = tokens(length, head_dim=head_dim), list[int]()
        layout, mask_mod = LAYOUTS[name](of, causal)
        inputs = [of.query, of.key, of.value]

        def count(x: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            mixed = block_attention(of, layout, None).values
        expected = dense(*inputs, evaluated(mask_mod, of))
        for found, wanted in zip(differentiate(mixed, inputs), differentiate(expected, inputs), strict=True):
            assert_close(found, wanted, atol=1e-4, rtol=1e-4)
        weights = sum(sizes) - 4 * mixed.numel()  # of queries, keys, values and what is mixed
        few = 2 * mixed.numel() // head_dim  # numbers of each query: lse, and its sum
        assert weights >= evaluated(mask_mod, of).sum() if head_dim == 64 else weights <= few


@both_directions
def test_a_long_sequence_is_computed_in_many_steps_of_a_constant_number_of_scores(causal: bool) -> None:
    of = tokens(4096, heads=8, head_dim=8)
    for layout, mask_mod in (window(of, 64, causal), drawn(of, 64, 7, 1, causal)):
        query = of.query.unflatten(2, (-1, layout.query_block))
        steps = list(_steps(query, layout))
        assert len({step.group.blocks.start for step in steps}) > 1
        assert len({step.heads.start for step in steps}) > 1
        for step in steps:
            assert step.select(query)[..., 0].numel() * step.group.allowed.shape[-1] <= SCORES_AT_A_TIME
        found = block_attention(of, layout, None)
        heads = slice(5, 6)  # the whole, of one head
        expected = dense(*(x[:, heads] for x in (of.query, of.key, of.value)), evaluated_of(mask_mod, of, 5))
        assert_close(found.values[:, heads], expected, atol=1e-5, rtol=1e-5)


def evaluated_of(mask_mod: MaskMod, of: AttentionInput, head: int) -> Tensor:
    return mask_mod(torch.tensor([[[head]]]), of.query_positions[:, None], of.key_positions)


def times(of: AttentionInput, layout: Layout) -> Tensor:
    """How often each pair counts, by equal scores and values that tell the keys apart."""
    length = len(of.key_positions)
    still = torch.zeros(1, of.query.shape[1], len(of.query_positions), length)
    value = torch.eye(length).expand(1, of.query.shape[1], -1, -1)
    of = AttentionInput(still, torch.zeros_like(value), value, of.query_positions, of.key_positions, of.valid, of.span)
    mixed = block_attention(of, layout, None)
    return mixed.values[0] * mixed.lse[0].exp()[..., None]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 700), st.integers(0, 300), st.booleans())
def test_a_window_looks_at_every_pair_once(length: int, back: int, causal: bool) -> None:
    of = tokens(length, heads=1)
    layout, mask_mod = window(of, back, causal)
    assert_close(times(of, layout), evaluated(mask_mod, of).float(), atol=1e-4, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 700), st.sampled_from([1, 5, 16, 64]), st.integers(1, 6), st.integers(0, 2), st.booleans())
def test_blocks_look_at_every_pair_once(length: int, block: int, width: int, whole: int, causal: bool) -> None:
    of = tokens(length)
    layout, mask_mod = drawn(of, block, width, whole, causal)
    assert_close(times(of, layout), evaluated(mask_mod, of).float(), atol=1e-4, rtol=0)


def test_tokens_may_be_in_any_order() -> None:
    """A mask_mod is of positions, and not of where tokens are."""
    of, shuffled = tokens(1024), torch.randperm(1024, generator=torch.Generator().manual_seed(2))
    moved = AttentionInput(*(x[:, :, shuffled] for x in (of.query, of.key, of.value)), shuffled, shuffled, None, 1024)

    def everywhere(blocks: range, device: torch.device) -> Tensor:
        return torch.arange(16).expand(1, len(blocks), 16)

    layout = BlockLayout(moved, causal_mask_mod, query_block=64, key_block=64, width=16, reads=everywhere)
    expected = dense(of.query, of.key, of.value, torch.ones(1024, 1024).tril() > 0)
    assert_close(block_attention(moved, layout, None).values, expected[:, :, shuffled], atol=1e-5, rtol=1e-5)


@both_directions
def test_disjoint_parts_merge_into_one_softmax(causal: bool) -> None:
    """Some queries have keys in either part, some in one, some in none."""
    of = tokens(1024)
    first, second = window(of, 64, causal)[1], lambda head, i, j: (j % 50 == 49) & (i > 300) & (j <= i)
    lone = lambda mask_mod: lambda head, i, j: mask_mod(head, i, j) & (i % 7 != 0)  # noqa: E731
    first, second = lone(first), lone(second)

    def everywhere(blocks: range, device: torch.device) -> Tensor:
        return torch.arange(16).expand(1, len(blocks), 16)

    parts = [
        block_attention(of, BlockLayout(of, mask_mod, query_block=64, key_block=64, width=16, reads=everywhere), None)
        for mask_mod in (first, mask_mod_difference(second, first))
    ]
    both = evaluated(first, of) | evaluated(second, of)
    assert not both.any(-1).all()
    inputs = [of.query, of.key, of.value]
    mixed, expected = merge(*parts), dense(*inputs, both)
    assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    for found, wanted in zip(differentiate(mixed, inputs), differentiate(expected, inputs), strict=True):
        assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_mask_mods_combine_as_sets() -> None:
    head, i, j = torch.zeros(1, dtype=torch.long), torch.arange(6)[:, None], torch.arange(6)
    even_keys: MaskMod = lambda head, query, key: (key % 2 == 0) & (query == query)  # noqa: E731
    all_pairs = torch.ones(6, 6, dtype=torch.bool)
    assert torch.equal(full_mask_mod(head, i, j).expand(6, 6), all_pairs)
    assert torch.equal(with_causality(full_mask_mod, causal=True)(head, i, j), all_pairs.tril())
    assert torch.equal(causal_mask_mod(head, i, j), all_pairs.tril())
    assert with_causality(even_keys, causal=False) is even_keys
    assert with_causality(even_keys, causal=True) is with_causality(
        even_keys, causal=True
    )  # so that layers share their blocks
    assert torch.equal(mask_mod_difference(causal_mask_mod, even_keys)(head, i, j), all_pairs.tril() & (j % 2 == 1))


@given(st.integers(1, 5000), st.integers(1, 64))
def test_blocks_of_even_size_are_as_few_as_cover(length: int, most: int) -> None:
    size = even_block_size(length, most)
    assert size <= most
    assert -(-length // size) == -(-length // most)


class PerHead(RelativeBias):
    """Another number for each head, whatever the distance; and it adds the weights' sum to the values."""

    def scores(self, query: Tensor, distances: Tensor) -> Tensor:
        heads = torch.arange(query.shape[1]).view(-1, *[1] * (query.dim() - 2)).float()
        return heads + query[..., :1] + distances.unsqueeze(1)

    def values(self, weights: Tensor, distances: Tensor) -> Tensor:
        heads = torch.arange(weights.shape[1]).view(-1, *[1] * (weights.dim() - 2)).float()
        return heads * weights.sum(-1, keepdim=True).expand(*weights.shape[:-1], 3)


def test_a_bias_of_some_heads_is_theirs() -> None:
    query, distances, half = torch.randn(2, 4, 5, 3), torch.arange(7).expand(1, 5, 7), slice(1, 3)
    bias, table = PerHead(), Table(4, 10)
    some = bias_on_heads(bias, half, 4)
    assert some.adds_values
    assert_close(some.scores(query[:, half], distances), bias.scores(query, distances)[:, half])
    weights = torch.rand(2, 4, 5, 7)
    assert_close(some.values(weights[:, half], distances), bias.values(weights, distances)[:, half])
    of_table = bias_on_heads(table, half, 4)
    assert isinstance(of_table, TableBias)
    assert_close(of_table.table(distances), table.table(distances)[half])
