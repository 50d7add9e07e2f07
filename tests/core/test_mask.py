"""A mask is structure: what it says of each pair, and what of it is known without asking a device."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from xformer.core.mask import Mask, finite

LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=3)


@given(LENGTHS, st.booleans(), st.booleans(), st.integers(0, 4))
def test_a_query_may_attend_to_what_is_real_and_not_after_it(
    lengths: list[int], causal: bool, padded: bool, start: int
) -> None:
    padding = torch.arange(5) < torch.tensor(lengths)[:, None] if padded else None
    mask = Mask(torch.arange(start, start + 3)[None], torch.arange(5)[None], causal, padding)
    dense = mask.dense()
    if dense is None:
        assert not causal
        assert not padded
        return
    whole = dense.expand(len(lengths), 1, 3, 5)
    for row, length in enumerate(lengths):
        for query in range(3):
            for key in range(5):
                may = (not padded or key < length) and (not causal or key <= start + query)
                assert whole[row, 0, query, key] == may
    distances = mask.distances()
    assert all(distances[0, query, key] == key - start - query for query in range(3) for key in range(5))


@pytest.mark.parametrize(
    ("queries", "keys", "starts"),
    [
        ([[3, 4]], [[0, 1, 2]], (3, 0)),
        ([[7]], [[2, 3]], (7, 2)),
        ([[0, 2]], [[0, 1]], None),
        ([[0, 1]], [[1, 0]], None),
        ([[0, 1], [1, 2]], [[0, 1]], None),
    ],
)
def test_where_positions_begin_is_known_if_they_count_up_in_all_rows(
    queries: list[list[int]], keys: list[list[int]], starts: tuple[int, int] | None
) -> None:
    assert Mask(torch.tensor(queries), torch.tensor(keys)).starts == starts


def test_counted_positions_are_known_without_reading_them() -> None:
    mask = Mask.consecutive(4, 3, causal=True, device=torch.device("meta"))  # a device that has no values to tell
    assert mask.starts == (4, 4)
    assert mask.aligned
    assert Mask(*torch.empty(2, 1, 3, dtype=torch.long, device="meta")).starts is None
    assert Mask.consecutive(4, 3, causal=True).query_positions.tolist() == [[4, 5, 6]]


@pytest.mark.parametrize("aligned", [False, True])
def test_padding_is_blank_whatever_it_holds_and_has_no_gradient(aligned: bool) -> None:
    real = torch.tensor([[True, True, False]])
    keys = torch.arange(3)[None]
    mask = Mask(keys if aligned else keys.clone(), keys, key_padding=real)
    assert mask.aligned == aligned

    def holding(value: float) -> Tensor:
        x = torch.ones(1, 2, 3, 4)
        x[:, :, 2] = value
        return x.requires_grad_()

    query, key, value = holding(float("nan")), holding(float("inf")), holding(float("nan"))
    blank = mask.blank(query, key, value)
    for x in blank[1:]:
        assert (x[:, :, :2] == 1).all()
        assert (x[:, :, 2] == 0).all()
    assert blank[0][:, :, 2].isnan().all() == (not aligned)  # queries of another sequence have padding of their own
    sum(x.nansum() for x in blank).backward()  # type: ignore[union-attr]
    assert all((x.grad[:, :, 2] == 0).all() for x in (key, value))  # type: ignore[index]


def test_of_padded_queries_what_is_finite_stays() -> None:
    x = torch.tensor([[1.0, float("inf")], [2.0, float("nan")], [float("-inf"), 3.0]])
    padding = torch.tensor([[True], [True], [False]])
    assert finite(x, padding).tolist() == [[1.0, 0.0], [2.0, 0.0], [float("-inf"), 3.0]]
