"""A flat array on disk, mapped into memory by whoever reads it first and pickled as its path."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Flat:
    """A one-dimensional file of unsigned integers.

    Args:
        path: The file, raw and without a header.
        dtype: Type of its numbers.
    """

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self._array: NDArray[Any] | None = None

    @property
    def array(self) -> NDArray[Any]:
        """The numbers, read from disk only where they are touched."""
        if self._array is None:
            empty = self.path.stat().st_size == 0
            self._array = np.empty(0, self.dtype) if empty else np.memmap(self.path, self.dtype, mode="r")
        return self._array

    def __len__(self) -> int:
        return self.path.stat().st_size // self.dtype.itemsize

    def __getstate__(self) -> dict[str, Any]:
        # A mapped array would travel to a worker as a copy of all its numbers.
        return {"path": self.path, "dtype": self.dtype, "_array": None}
