"""The strided kernel at sizes that users have, against a dense evaluation of the mask_mods that it is given."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from xformer.attention.kernels.block_sparse.block_attention import AttentionInput, mask_mod_difference, with_causality
from xformer.attention.kernels.strided.tiles import KEPT_PER_NUMBER, Strided, _Scores, strided_attention
from xformer.core.bias import TableBias

both_directions = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
both_layouts = pytest.mark.parametrize("name", ["columns", "ends"])


def columns(row: int, block: int, causal: bool) -> Strided:
    """Neighbours nearer than a row, but for two holes, and the own column of all rows."""
    own = with_causality(lambda head, i, j: i % row == j % row, causal=causal)
    near = with_causality(lambda head, i, j: ((i - j).abs() < row) & ((i - j).abs() != 2), causal=causal)
    return Strided(row, block, row, 0 if causal else row, row, row, mask_mod_difference(near, own), own, causal)


def ends(row: int, block: int, causal: bool, samples: int = 3) -> Strided:
    """The own row, and the ends of all other rows but for one position in each."""
    own = with_causality(lambda head, i, j: i // row == j // row, causal=causal)
    end = with_causality(lambda head, i, j: (j % row >= row - samples) & (j % row != row - 2), causal=causal)
    return Strided(row, block, 0, 0, 1, min(samples, row), own, mask_mod_difference(end, own), causal)


def layout(name: str, row: int, causal: bool) -> Strided:
    whole = row * max(1, 16 // row)
    if name == "ends":
        return ends(row, whole, causal)
    block = max(size for size in range(1, 33) if row % size == 0) if row > 32 else whole
    return columns(row, block, causal)


def evaluated(of: Strided, length: int, valid: Tensor | None = None) -> Tensor:
    i, j = torch.arange(length)[:, None], torch.arange(length)
    head = torch.zeros(1, dtype=torch.long)
    local, sampled = of.local_mod(head, i, j), of.sampled_mod(head, i, j)
    assert not (local & sampled).any()
    allowed = (local | sampled)[None, None]
    return allowed if valid is None else allowed & valid[:, None, None]


def dense(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, bias: Any = None) -> Tensor:
    length = query.shape[2]
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if bias is not None:
        scores = scores + bias.table(torch.arange(length) - torch.arange(length)[:, None])
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ value


class Transposed(TableBias):
    """A table that lies in memory by distance, as one that an embedding makes does."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def table(self, distances: Tensor) -> Tensor:
        return self.weight[distances + len(self.weight) // 2].movedim(-1, 0)


def tokens(
    length: int,
    heads: int,
    head_dim: int,
    batch: int = 1,
    valid: Tensor | None = None,
    dtype: torch.dtype = torch.double,
) -> AttentionInput:
    generator = torch.Generator().manual_seed(length)
    shape = (batch, heads, length, head_dim)
    parts = [torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for _ in range(3)]
    return AttentionInput(*parts, index := torch.arange(length), index, valid, length)


def differentiate(mixed: Tensor, inputs: list[Tensor], shown: Tensor) -> list[Tensor]:
    upstream = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(1), dtype=mixed.dtype)
    return list(torch.autograd.grad(mixed, inputs, upstream * shown))


@both_layouts
@both_directions
@pytest.mark.parametrize(("length", "row"), [(1024, 6), (1501, 48), (1150, 37), (1024, 64), (700, 350)])
@pytest.mark.parametrize("trained", [False, True], ids=["no bias", "table"])
def test_equals_the_dense_evaluation_with_its_gradients(
    name: str, length: int, row: int, causal: bool, trained: bool
) -> None:
    """With padding at the end of one sequence, and rows that do not divide the length."""
    valid = torch.arange(length) < torch.tensor([[length], [length - 121]])
    of, heads, made = tokens(length, 3, 4, 2, valid), 3, layout(name, row, causal)
    weight = torch.randn(2 * length - 1, heads, dtype=torch.double, requires_grad=True)
    bias, inputs = Transposed(weight) if trained else None, [of.query, of.key, of.value, *([weight] if trained else [])]
    shown = valid[:, None, :, None]
    mixed = strided_attention(of, made, bias)
    expected = dense(*inputs[:3], evaluated(made, length, valid) | ~shown, bias)
    assert_close(mixed * shown, expected * shown)
    found, wanted = (differentiate(x, inputs, shown) for x in (mixed, expected))
    for ours, exact in zip(found, wanted, strict=True):
        assert_close(ours, exact)


@both_layouts
def test_a_long_sequence_is_computed_by_some_rows_of_some_heads(name: str) -> None:
    """That many groups and ranges are what the other tests compare."""
    query = torch.zeros(6, 1536, 4)
    heads, rows = _Scores(layout(name, 6, False), 3, query, None, None).portions(6)
    assert len(rows) > 1
    heads, rows = _Scores(layout(name, 48, False), 3, query, None, None).portions(6)
    assert heads < 6


@both_layouts
@both_directions
def test_some_weights_are_kept_and_the_others_made_again(name: str, causal: bool) -> None:
    """No more than as many numbers as Q, K, V and O have: of 64 features all, of 24 those of the first heads."""
    length, heads, kept = 2048, 6, dict[int, int]()
    made = layout(name, 64, causal)
    allowed, shown = evaluated(made, length), torch.ones(())
    for head_dim in (24, 64):
        of, sizes = tokens(length, heads, head_dim, dtype=torch.float), list[int]()
        inputs = [of.query, of.key, of.value]

        def count(x: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            mixed = strided_attention(of, made, None)
        kept[head_dim] = sum(sizes) - 4 * mixed.numel() - 2 * heads * length  # Q, K, V, O; m and s
        assert kept[head_dim] <= KEPT_PER_NUMBER * mixed.numel()
        expected = dense(*inputs, allowed)
        for found, wanted in zip(*(differentiate(x, inputs, shown) for x in (mixed, expected)), strict=True):
            assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert 0 < kept[24] < kept[64]
    assert kept[64] >= heads * allowed.sum()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["columns", "ends"]), st.integers(1, 700), st.integers(1, 90), st.booleans())
def test_every_pair_is_looked_at_once(name: str, length: int, row: int, causal: bool) -> None:
    """Equal scores, and values that tell the keys apart."""
    made = layout(name, min(row, length), causal)
    still, value = torch.zeros(1, 1, length, length), torch.eye(length)[None, None]
    of = AttentionInput(still, still, value, index := torch.arange(length), index, None, length)
    allowed = evaluated(made, length)
    assert_close(strided_attention(of, made, None) * allowed.sum(-1, keepdim=True), allowed.float(), atol=1e-4, rtol=0)
