"""Memory-mapped arrays on disk: flat ones, and rows of different lengths.

Raw files, and not the Arrow cache of `datasets`: a window at any offset is read from its table in twice the time, rows
in no less, and a hash of the files is one of the numbers, whatever library wrote them.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import DTypeLike, NDArray


class Flat:
    """A one-dimensional memory-mapped file of unsigned integers, pickled as its path.

    Args:
        path: the file, raw and without a header.
        dtype: type of its numbers.
    """

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self._array: NDArray[Any] | None = None

    @property
    def array(self) -> NDArray[Any]:
        """The memory-mapped array, read from disk only where it is accessed."""
        if self._array is None:
            empty = self.path.stat().st_size == 0
            self._array = np.empty(0, self.dtype) if empty else np.memmap(self.path, self.dtype, mode="r")
        return self._array

    def __len__(self) -> int:
        return self.path.stat().st_size // self.dtype.itemsize

    def __getstate__(self) -> dict[str, Any]:
        # A mapped array would travel to a worker as a copy of all its numbers.
        return {"path": self.path, "dtype": self.dtype, "_array": None}


class Ragged:
    """Rows of different lengths, one after the other in a flat file.

    Args:
        values: the numbers.
        offsets: where each row begins, and where the last one ends.
    """

    def __init__(self, values: Flat, offsets: Int64[np.ndarray, " rows_and_one"]) -> None:
        self.values, self.offsets = values, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        first, last = self.offsets[row : row + 2]
        return np.asarray(self.values.array[first:last])

    @property
    def lengths(self) -> Int64[np.ndarray, " rows"]:
        """The length of each row."""
        return np.diff(self.offsets)


def write_rows(values: Path, offsets: Path, rows: Iterable[NDArray[Any]], dtype: DTypeLike) -> None:
    """Write rows to disk one at a time.

    Args:
        values: the file of the numbers.
        offsets: the file that says where each row begins, and where the last one ends.
        rows: one-dimensional, of numbers that `dtype` holds.
        dtype: unsigned.
    """
    lengths = []
    with values.open("wb") as file:
        for row in rows:
            file.write(row.astype(dtype).tobytes())
            lengths.append(len(row))
    np.cumsum([0, *lengths], dtype=np.int64).tofile(offsets)


def read_rows(values: Path, offsets: Path, dtype: DTypeLike) -> Ragged:
    """The rows that `write_rows` wrote."""
    return Ragged(Flat(values, dtype), np.fromfile(offsets, np.int64))
