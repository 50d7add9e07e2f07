"""Marked-token retrieval: predict the value of the one marked token.

Every token but the marked one says nothing about the label. So a model that answers from the state of one position
(`task.pooling=class`) has to move the value there, across any distance that its attention can cover; a mean over all
positions would find it with no attention at all.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge
from jaxtyping import Int, Int64
from torch import Tensor

from xformer.data.batch import ClassificationBatch
from xformer.data.datasets.generated import Generated, Items
from xformer.data.spec import DataSpec
from xformer.errors import ConfigError


def marked(
    generator: np.random.Generator, *, values: int, length: int, min_distance: int
) -> tuple[Int64[np.ndarray, " length"], np.int64]:
    """Create a sequence and its marked value: token v is value v, and token values + v the same value, marked."""
    tokens = generator.integers(0, values, length)
    place = generator.integers(min_distance, length)
    label = tokens[place]
    tokens[place] += values
    return tokens, label


def unpadded(tokens: Int[Tensor, "batch length"], labels: Int[Tensor, " batch"]) -> ClassificationBatch:
    """A batch of equally long sequences."""
    return ClassificationBatch(tokens, None, labels)


@dataclass(kw_only=True, eq=False, repr=False)
class Retrieval(Generated):
    """Marked-token retrieval: random values, one of them marked; the label is that value.

    Raises:
        ConfigError: no place for the marked one.
    """

    stable_name: ClassVar[str] = "Retrieval"
    yields: ClassVar[type] = ClassificationBatch

    values: Annotated[int, Ge(2)]  # number of values, which are the classes
    length: Annotated[int, Ge(1)]  # tokens of a sequence
    # the fewest tokens before the marked one. Beyond layers x window a stack with nothing but a local window is at
    # chance.
    min_distance: Annotated[int, Ge(0)]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length <= self.min_distance:
            raise ConfigError(
                f"data.length={self.length} has no place for a marked token after data.min_distance="
                f"{self.min_distance} others: use at least {self.min_distance + 1}."
            )

    def items(self, size: int, key: tuple[int, ...]) -> Items:
        """Create the sequences of one split."""
        make = partial(marked, values=self.values, length=self.length, min_distance=self.min_distance)
        return Items(size, key, make, unpadded)

    def load(self) -> None:
        """Create the splits."""
        super().load()
        self.spec = DataSpec(vocabulary=2 * self.values, length=self.length, classes=self.values)
        self.trivial_baselines = {"any value": 1 / self.values}

    def describe(self) -> str:
        """Describe the sizes and parameters."""
        return (
            f"Retrieval: {self.split_sizes()} of {self.length} tokens, one of {self.values} values marked at "
            f"{self.min_distance} or later"
        )
