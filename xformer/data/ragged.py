"""Rows of different lengths in a flat file, one after the other, with a second file that says where each begins."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import DTypeLike, NDArray

from xformer.data.flat import Flat


class Ragged:
    """Rows that `write` wrote, mapped into memory.

    Args:
        stem: the files' path without extension.
        dtype: of the numbers, unsigned.
    """

    def __init__(self, stem: Path, dtype: DTypeLike) -> None:
        self._values, self._offsets = Flat(_values(stem), dtype), Flat(_offsets(stem), np.uint64)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        first, last = self._offsets.array[row : row + 2]
        return np.asarray(self._values.array[first:last])

    @property
    def lengths(self) -> Int64[np.ndarray, " rows"]:
        """Numbers in each row."""
        lengths: Int64[np.ndarray, " rows"] = np.diff(self._offsets.array).astype(np.int64)
        return lengths


def write(stem: Path, rows: Iterable[NDArray[Any]], dtype: DTypeLike) -> None:
    """Write rows as they come; one row at a time is in memory.

    Args:
        stem: the files' path without extension.
        rows: one-dimensional, of numbers that `dtype` holds.
        dtype: unsigned.
    """
    written = 0
    with _values(stem).open("wb") as values, _offsets(stem).open("wb") as offsets:
        offsets.write(np.uint64(0).tobytes())
        for row in rows:
            values.write(row.astype(dtype).tobytes())
            written += len(row)
            offsets.write(np.uint64(written).tobytes())


def _values(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.bin")


def _offsets(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.offsets")
