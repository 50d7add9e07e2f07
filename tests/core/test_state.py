"""The keys and values of a decoding state: allocated once, and no mask where nothing is padded."""

import pytest
import torch
from torch.testing import assert_close

from xformer.attention.base import AttentionContext
from xformer.attention.full import Full
from xformer.core.mask import Mask
from xformer.core.state import KeyValueState

BATCH, HEADS, HEAD_DIM, LENGTH = 2, 3, 4, 6


def tokens() -> list[torch.Tensor]:
    return [torch.randn(BATCH, HEADS, LENGTH, HEAD_DIM) for _ in range(3)]


def test_steps_write_no_mask_and_allocate_nothing_for_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    full, state = Full(AttentionContext(HEADS, HEAD_DIM, LENGTH, LENGTH, True)), KeyValueState(LENGTH)
    query, key, value = tokens()
    expected = full(query, key, value, mask=Mask.consecutive(0, LENGTH, causal=True))

    def never(mask: Mask) -> None:
        assert not mask.causal
        assert mask.key_padding is None

    monkeypatch.setattr(Mask, "dense", never)
    steps, places = [], set()
    for start, stop in ((0, 3), (3, 4), (4, 5), (5, 6)):
        part = slice(start, stop)
        mask = Mask.consecutive(start, stop - start, causal=True)
        steps.append(full.step(query[:, :, part], key[:, :, part], value[:, :, part], state, mask=mask))
        places.add((state.keys.data_ptr(), state.values.data_ptr(), state.positions.data_ptr()))
    assert_close(torch.cat(steps, dim=2), expected)
    assert len(places) == 1
    assert state.padding is None
    assert state.positions.tolist() == [[*range(LENGTH)]]


@pytest.mark.parametrize("start", [None, 5])
def test_rows_are_told_apart_from_the_first_tokens_that_need_it(start: int | None) -> None:
    state, (_, key, value) = KeyValueState(LENGTH), tokens()
    first, second = torch.arange(2)[None], torch.tensor([[5, 6], [2, 3]])
    state.append(key[:, :, :2], value[:, :, :2], first, None, start=0)
    real = torch.tensor([[True, True], [False, True]])
    state.append(key[:, :, 2:4], value[:, :, 2:4], second, real, start=start)
    state.append(key[:, :, 4:], value[:, :, 4:], second + 2, None)
    assert state.positions.tolist() == [[0, 1, 5, 6, 7, 8], [0, 1, 2, 3, 4, 5]]
    assert state.padding is not None
    assert state.padding.tolist() == [[True] * 6, [True, True, False, True, True, True]]
    state.reorder(torch.tensor([1, 1, 0]))
    assert state.positions[:, 2].tolist() == [2, 2, 5]
    assert state.padding[:, 2].tolist() == [False, False, True]
    assert_close(state.keys, key[[1, 1, 0]])


def test_too_many_tokens_are_refused() -> None:
    state, (_, key, value) = KeyValueState(LENGTH - 1), tokens()
    with pytest.raises(ValueError, match="6 tokens exceed its maximum length of 5"):
        state.append(key, value, torch.arange(LENGTH)[None], None, start=0)
