"""What a decoder reads of the encoder: rows are selected in everything that has rows, and bytes are counted."""

import pytest
import torch
from torch.testing import assert_close

from xformer.core.memory import CrossState, KeysValues, Memory
from xformer.core.state import KeyValueState

ROWS, TOKENS, HEADS, HEAD_DIM = 3, 5, 2, 4
ORDER = torch.tensor([2, 0, 0, 1])


def parts(layer_positions: bool, padded: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    positions = torch.arange(TOKENS)[None]
    if layer_positions:
        positions = positions + torch.arange(ROWS)[:, None]
    return positions, torch.arange(TOKENS) < torch.tensor([[5], [2], [4]]) if padded else None


@pytest.mark.parametrize("layer_positions", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_rows_are_selected_in_all_that_has_rows(layer_positions: bool, padded: bool) -> None:
    positions, mask = parts(layer_positions, padded)
    memory = Memory(torch.randn(ROWS, TOKENS, 8), positions, mask)
    keys, values = torch.randn(2, ROWS, HEADS, TOKENS, HEAD_DIM)
    for whole in (memory, KeysValues(keys, values, positions, mask)):
        for before, after in zip(whole, whole.select(ORDER), strict=True):
            if before is None:
                assert after is None
            elif len(before) == 1:  # shared by all rows
                assert after is before
            else:
                assert_close(after, torch.stack([before[row] for row in ORDER.tolist()]))


def test_a_state_of_both_follows_the_beams_and_counts_both() -> None:
    own = KeyValueState(4)
    keys, values = torch.randn(2, ROWS, HEADS, 1, HEAD_DIM)
    own.append(keys, values, torch.zeros(1, 1, dtype=torch.long), None, start=0)
    positions, mask = parts(False, True)
    remembered = KeysValues(*torch.randn(2, ROWS, HEADS, TOKENS, HEAD_DIM), positions, mask)
    state = CrossState(own, remembered)
    assert state.length == 1
    numbers, places, flags = 2 * ROWS * HEADS * TOKENS * HEAD_DIM, TOKENS, ROWS * TOKENS
    assert state.bytes == own.bytes + 4 * numbers + 8 * places + flags
    state.reorder(torch.tensor([1, 1, 0]))
    assert_close(state.memory.keys, remembered.keys[[1, 1, 0]])
    assert_close(own.keys, keys[[1, 1, 0]])
