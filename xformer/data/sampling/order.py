"""The order of the items in an epoch, drawn with a generator that the sampler seeds."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

Items = Int64[np.ndarray, " items"]
_DRAWS = 2**31


@runtime_checkable
class Order(Protocol):
    """Protocol of an order: `len` is the number of items in an epoch, a call draws them."""

    def __len__(self) -> int: ...

    def __call__(self, generator: np.random.Generator) -> Items:
        """Draw one epoch's items, in order."""


@dataclass(frozen=True)
class Permutation:
    """Every item once, shuffled."""

    size: int

    def __len__(self) -> int:
        return self.size

    def __call__(self, generator: np.random.Generator) -> Items:
        """Draw the items."""
        return generator.permutation(self.size).astype(np.int64)


@dataclass(frozen=True)
class Fresh(Permutation):
    """New items in every epoch: all shapes once, shuffled, each with a new random draw."""

    def __call__(self, generator: np.random.Generator) -> Items:
        """Draw item numbers, all beyond those of the fixed items: a multiple of the size, plus the shape."""
        shapes = super().__call__(generator)
        return np.asarray(generator.integers(1, _DRAWS, self.size) * self.size + shapes)


@dataclass(frozen=True)
class RandomDraws:
    """`count` items drawn from `size` with replacement: random offsets into a text."""

    size: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __call__(self, generator: np.random.Generator) -> Items:
        """Draw the items."""
        return generator.integers(0, self.size, self.count, dtype=np.int64)


class Balanced:
    """Each class equally often; an epoch is about as long as without balancing.

    A class with fewer items than its share repeats all of them before any comes once more; of a class with more, each
    epoch draws another part.

    Args:
        labels: the class of every item.
    """

    def __init__(self, labels: Items) -> None:
        self.groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.share = max(1, len(labels) // len(self.groups))

    def __len__(self) -> int:
        return self.share * len(self.groups)

    def __call__(self, generator: np.random.Generator) -> Items:
        """Draw `share` items of every class, shuffled."""
        drawn = []
        for group in self.groups:
            rounds = -(-self.share // len(group))
            drawn.append(np.concatenate([generator.permutation(group) for _ in range(rounds)])[: self.share])
        return generator.permutation(np.concatenate(drawn)).astype(np.int64)
