"""Class-balanced sampling: rare classes are drawn as often as frequent ones."""

import numpy as np
from jaxtyping import Int64


class Balanced:
    """An order that draws each class equally often; an epoch is about as long as without balancing.

    A class with fewer items than its share repeats all of them before any comes once more; of a class with more, each
    epoch draws another part.

    Args:
        labels: the class of every item.
    """

    def __init__(self, labels: Int64[np.ndarray, " items"]) -> None:
        self.groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.share = max(1, len(labels) // len(self.groups))

    def __len__(self) -> int:
        return self.share * len(self.groups)

    def __call__(self, generator: np.random.Generator) -> Int64[np.ndarray, " items"]:
        """Draw `share` items of every class, shuffled."""
        drawn = [self._draw(group, generator) for group in self.groups]
        return generator.permutation(np.concatenate(drawn)).astype(np.int64)

    def _draw(self, group: Int64[np.ndarray, " items"], generator: np.random.Generator) -> Int64[np.ndarray, " share"]:
        rounds = -(-self.share // len(group))
        return np.concatenate([generator.permutation(group) for _ in range(rounds)])[: self.share]
