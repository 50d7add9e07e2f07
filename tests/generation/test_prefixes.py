"""Sequences that are being written: rows that are reordered, and rows of unequal length below each other."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.contracts.variants import attention_factory
from tests.generation.tiny import (
    PROMPTS,
    continuing,
    decoder,
    encoder_decoder,
    forgetful,
    next_logits,
    prefixes,
)
from xformer.generation.prefixes import pad_left, pad_right


@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("build", [decoder, encoder_decoder], ids=["decoder", "encoder_decoder"])
def test_reordered_rows_go_on_as_the_others_would(build, state: bool) -> None:
    factory = attention_factory("full")
    name = "attention" if build is decoder else "decoder_attention"
    model = build(**{name: factory if state else forgetful(factory)})
    written = torch.randint(3, 11, (3, 6))
    order = torch.tensor([2, 0, 0, 1, 2])
    rows = prefixes(model, PROMPTS, 6)
    with torch.no_grad():
        for step in range(3):
            rows.logits()
            rows.append(written[:, step])
        rows.logits()
        rows.reorder(order)
        rows.append(torch.tensor([3, 4, 5, 6, 7]))
        logits = rows.logits()
    for row, parent in enumerate(order.tolist()):
        history = torch.cat((written[parent, :3], torch.tensor([3 + row])))
        assert torch.equal(rows.written[row], history)
        assert_close(logits[row], next_logits(model, PROMPTS[parent], history), atol=1e-8, rtol=1e-8)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=4))
def test_padded_rows_are_the_rows_and_their_mask_says_where(rows: list[list[int]]) -> None:
    longest = max(map(len, rows))
    for pad, sides in ((pad_left, lambda row, empty: [*empty, *row]), (pad_right, lambda row, empty: [*row, *empty])):
        padded, valid = pad([torch.tensor(row) for row in rows])
        gaps = [[0] * (longest - len(row)) for row in rows]
        assert padded.tolist() == [sides(row, gap) for row, gap in zip(rows, gaps, strict=True)]
        if valid is None:
            assert not any(gaps)
        else:
            assert any(gaps)
            assert valid.tolist() == [
                sides([True] * len(row), [False] * len(gap)) for row, gap in zip(rows, gaps, strict=True)
            ]


def test_what_is_appended_is_written_and_real() -> None:
    rows = continuing(decoder(), [torch.tensor([3, 4]), torch.tensor([5])], 3)
    for token in (6, 7):
        rows.append(torch.tensor([token, token + 1]))
    assert rows.tokens.tolist() == [[3, 4, 6, 7], [0, 5, 7, 8]]
    assert rows.written.tolist() == [[6, 7], [7, 8]]
    assert rows.valid is not None
    assert rows.valid.tolist() == [[True] * 4, [False, True, True, True]]
