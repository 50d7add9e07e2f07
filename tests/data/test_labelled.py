from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.data.arrays import Flat
from xformer.data.labelled import LabelledSequences

PADDING = 9


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
    split = LabelledSequences(Flat(path, np.uint8), offsets, labels, PADDING, longest)
    assert split.lengths.tolist() == [len(row[:longest]) for row in rows]
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=5))
    tokens, real, found = split.__getitems__(chosen)
    cut = [rows[index][:longest] for index in chosen]
    width = max(map(len, cut))
    expected = torch.tensor([row + [PADDING] * (width - len(row)) for row in cut])
    torch.testing.assert_close(tokens, expected)
    torch.testing.assert_close(real, expected != PADDING)
    assert found.tolist() == [index % 3 for index in chosen]
