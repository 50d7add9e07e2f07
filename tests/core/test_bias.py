"""A relative bias: all pairs from the few distances there are, and the same where rows have positions of their own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from xformer.core.bias import RelativeBias, TableBias, all_distances, dense_scores
from xformer.core.mask import Mask

HEADS, HEAD_DIM = 2, 4


class Cube(TableBias):
    """A number per head and distance, other for each."""

    def table(self, distances: Tensor) -> Tensor:
        return torch.stack([distances.double() ** 3, -0.5 * distances.double()])


class Content(RelativeBias):
    """The query times a vector of the distance."""

    def scores(self, query: Tensor, distances: Tensor) -> Tensor:
        keys = torch.stack([(distances.double() + i).sin() for i in range(HEAD_DIM)], dim=-1)
        return torch.einsum("bhqd,bqkd->bhqk", query, keys.expand(len(query), *keys.shape[1:]))


class Adding(Content):
    def values(self, weights: Tensor, distances: Tensor) -> Tensor:
        return weights


def pair_by_pair(bias: RelativeBias, query: Tensor, mask: Mask) -> Tensor:
    """By a loop over pairs, each with its own distance alone."""
    queries, keys = mask.query_positions.shape[1], mask.key_positions.shape[1]
    found = torch.zeros(len(query), HEADS, queries, keys, dtype=query.dtype)
    for row in range(len(query)):
        at, of = (places[row % len(places)] for places in (mask.query_positions, mask.key_positions))
        for i in range(queries):
            for j in range(keys):
                alone = bias.scores(query[row : row + 1, :, i : i + 1], (of[j] - at[i]).view(1, 1, 1))
                found[row, :, i, j] = alone[0, :, 0, 0]
    return found


@pytest.mark.parametrize("bias", [Cube(), Content()], ids=lambda bias: type(bias).__name__)
@given(queries=st.integers(1, 4), keys=st.integers(1, 5), start=st.integers(0, 7), own=st.booleans())
def test_all_pairs_are_each_pair(bias: RelativeBias, queries: int, keys: int, start: int, own: bool) -> None:
    rows = torch.tensor([[0], [3]]) if own else torch.zeros(1, 1, dtype=torch.long)
    mask = Mask(torch.arange(start, start + queries) + rows, torch.arange(keys) + 2 * rows)
    query = torch.randn(2, HEADS, queries, HEAD_DIM, dtype=torch.float64)
    scores = dense_scores(bias, query, mask)
    assert_close(scores.expand(2, -1, -1, -1), pair_by_pair(bias, query, mask))


def test_where_positions_count_up_each_distance_is_asked_for_once() -> None:
    asked: list[Tensor] = []

    class Watched(Cube):
        def table(self, distances: Tensor) -> Tensor:
            asked.append(distances)
            return super().table(distances)

    mask = Mask(torch.arange(5, 9)[None], torch.arange(2, 8)[None])
    dense_scores(Watched(), torch.randn(1, HEADS, 4, HEAD_DIM, dtype=torch.float64), mask)
    assert [distances.tolist() for distances in asked] == [[*range(2 - 8, 7 - 5 + 1)]]
    assert all_distances(mask).tolist() == asked[0].tolist()
    with pytest.raises(ValueError, match="must be consecutive"):
        all_distances(Mask(torch.tensor([[0, 2]]), torch.tensor([[0, 1]])))


def test_a_bias_in_16_bits_is_computed_in_32() -> None:
    mask = Mask(torch.arange(300)[None], torch.arange(300)[None])
    assert dense_scores(Cube(), torch.randn(1, HEADS, 300, HEAD_DIM, dtype=torch.bfloat16), mask).dtype == torch.float64

    class Narrow(Content):
        def scores(self, query: Tensor, distances: Tensor) -> Tensor:
            assert query.dtype == torch.float32
            return super().scores(query.double(), distances).float()

    assert dense_scores(Narrow(), torch.ones(1, HEADS, 300, HEAD_DIM, dtype=torch.float16), mask).dtype == torch.float32


def test_a_term_in_the_values_is_known_from_the_class() -> None:
    assert Adding().adds_values
    assert not Content().adds_values
    assert Content().values(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)) is None
