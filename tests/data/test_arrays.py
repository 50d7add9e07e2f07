import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer.data.arrays import Flat, read_rows, write_rows


def test_a_flat_file_is_mapped_and_travels_as_its_path(tmp_path):
    numbers = np.arange(10_000, dtype=np.uint16)
    numbers.tofile(tmp_path / "flat.bin")
    flat = Flat(tmp_path / "flat.bin", np.uint16)
    assert isinstance(flat.array, np.memmap)
    assert len(flat) == 10_000
    pickled = pickle.dumps(flat)
    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled).array, numbers)


def test_an_empty_flat_file_is_an_empty_array(tmp_path):
    (tmp_path / "flat.bin").touch()
    assert len(Flat(tmp_path / "flat.bin", np.uint16).array) == 0


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.lists(st.integers(0, 255), max_size=5), min_size=1, max_size=20))
def test_ragged_rows_read_back(rows, tmp_path_factory):
    files = [tmp_path_factory.mktemp("ragged") / name for name in ("values", "offsets")]
    write_rows(*files, (np.array(row, dtype=np.int64) for row in rows), np.uint8)
    ragged = read_rows(*files, np.uint8)
    assert [ragged[i].tolist() for i in range(len(ragged))] == rows
    assert ragged.lengths.tolist() == [len(row) for row in rows]
