"""The protocol of a split: a dataset that returns whole batches."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64


class Split(ABC):
    """A split: a dataset that returns a whole batch for a list of indices.

    Attributes:
        lengths: tokens of each item, by which batches of similar length are made; None where all are equally long or
            are not cut into items.
    """

    lengths: Int64[np.ndarray, " items"] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """The number of items."""

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> Any:
        """Return one typed batch."""
