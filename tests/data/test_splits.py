"""Padded batches: labelled sequences and pairs, against an example by hand and against rows read one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.data.arrays import Flat, Ragged
from xformer.data.batch import IGNORED
from xformer.data.splits import LabelledSequences, pad_pairs

PADDING, BEGIN, END = 10, 11, 12
rows = st.lists(st.integers(0, 9), max_size=6)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=6), min_size=1, max_size=8),
    longest=st.one_of(st.none(), st.integers(1, 7)),
    data=st.data(),
)
def test_a_batch_is_its_rows_cut_and_padded(
    rows: list[list[int]], longest: int | None, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path: Path = tmp_path_factory.mktemp("labelled") / "tokens"
    np.concatenate(rows).astype(np.uint8).tofile(path)
    offsets, labels = np.cumsum([0, *map(len, rows)]), np.arange(len(rows)) % 3
    split = LabelledSequences(Ragged(Flat(path, np.uint8), offsets), labels, PADDING, longest)
    assert split.lengths.tolist() == [len(row[:longest]) for row in rows]
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=5))
    tokens, real, found = split.__getitems__(chosen)
    cut = [rows[index][:longest] for index in chosen]
    width = max(map(len, cut))
    expected = torch.tensor([row + [PADDING] * (width - len(row)) for row in cut])
    torch.testing.assert_close(tokens, expected)
    torch.testing.assert_close(real, expected != PADDING)
    assert found.tolist() == [index % 3 for index in chosen]


def test_two_pairs_by_hand():
    batch = pad_pairs(
        [np.array([1, 2, 3]), np.array([4])], [np.array([5]), np.array([6, 7])], padding=0, begin=8, end=9
    )
    assert batch.source_tokens.tolist() == [[1, 2, 3, 9], [4, 9, 0, 0]]
    assert batch.source_padding_mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.target_tokens.tolist() == [[8, 5, 0], [8, 6, 7]]
    assert batch.target_padding_mask.tolist() == [[True, True, False], [True] * 3]
    assert batch.labels.tolist() == [[5, 9, IGNORED], [6, 7, 9]]
    assert batch.references is None


@settings(deadline=None)
@given(pairs=st.lists(st.tuples(rows, rows), min_size=1, max_size=5))
def test_every_row_is_framed_and_nothing_else_is_real(pairs):
    sides = ([np.array(side, dtype=np.uint16) for side in column] for column in zip(*pairs, strict=True))
    batch = pad_pairs(*sides, padding=PADDING, begin=BEGIN, end=END)
    longest = [max(map(len, column)) + 1 for column in zip(*pairs, strict=True)]
    assert [batch.source_tokens.shape[1], batch.target_tokens.shape[1]] == longest
    assert batch.source_tokens.dtype == batch.target_tokens.dtype == batch.labels.dtype == torch.int64
    for (source, target), tokens, real, written, written_real, labels in zip(pairs, *batch[:5], strict=True):
        assert tokens[real].tolist() == [*source, END]
        assert written[written_real].tolist() == [BEGIN, *target]
        assert labels[written_real].tolist() == [*target, END]
        assert set(tokens[~real].tolist()) | set(written[~written_real].tolist()) <= {PADDING}
        assert set(labels[~written_real].tolist()) <= {IGNORED}
        assert (real.int().diff() <= 0).all()  # padding is on the right
        assert (written_real.int().diff() <= 0).all()
