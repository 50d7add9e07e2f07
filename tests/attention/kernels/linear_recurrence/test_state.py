"""The decoding state of a linear recurrence."""

import torch
from torch.testing import assert_close

from xformer.attention.kernels.linear_recurrence.state import RecurrentState


def test_counts_reorders_and_holds_no_more_than_it_says() -> None:
    state = RecurrentState()
    assert (state.length, state.bytes) == (0, 0)
    state.reorder(torch.tensor([0]))
    tokens, matrix = torch.randn(2, 100, 4), torch.randn(2, 3, 5, 6)
    state.keep(matrix, tokens[:, -3:], 100)
    assert (state.length, state.bytes) == (100, 4 * (2 * 3 * 5 * 6 + 2 * 3 * 4))
    assert state.past is not None
    assert state.matrix is not None
    assert state.past.untyped_storage().nbytes() == 4 * 2 * 3 * 4
    state.reorder(torch.tensor([1, 1]))
    assert_close(state.past[0], tokens[1, -3:])
    assert_close(state.matrix[0], matrix[1])
