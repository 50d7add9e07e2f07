"""Marked-token retrieval: predict the value of the one marked token.

Every token but the marked one says nothing about the label. So a model that answers from the state of one position
(`task.pooling=class`) has to move the value there, across any distance that its attention can cover; a mean over all
positions would find it with no attention at all.
"""

from functools import partial
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Int64

from xformer.data.batch import ClassificationBatch
from xformer.data.configs import DataContext, FreshGenerationConfig, LoaderConfig
from xformer.data.datasets.generated import Generated, Items
from xformer.data.spec import DataSpec
from xformer.errors import ConfigError

Tokens = Int64[np.ndarray, " length"]


def marked(
    _: int, generator: np.random.Generator, *, values: int, length: int, min_distance: int
) -> tuple[Tokens, int]:
    """Create a sequence and its marked value: token v is value v, and token values + v the same value, marked."""
    tokens = generator.integers(0, values, length)
    place = generator.integers(min_distance, length)
    label = int(tokens[place])
    tokens[place] += values
    return tokens, label


def stacked(rows: list[tuple[Tokens, int]]) -> ClassificationBatch:
    """Stack sequences into a batch."""
    tokens, labels = zip(*rows, strict=True)
    return ClassificationBatch(torch.from_numpy(np.stack(tokens)), None, torch.tensor(labels))


class Retrieval(Generated):
    """Marked-token retrieval: random values, one of them marked; the label is that value.

    Args:
        context: seed of the order of the training batches; the cache is not used.
        values: number of values, which are the classes.
        length: tokens of a sequence.
        min_distance: the fewest tokens before the marked one. Beyond layers x window a stack with nothing but a local
            window is at chance.
        generation: how many sequences there are, and of what seed.
        loader: size of the batches, and who fetches them.

    Raises:
        ConfigError: fewer than two values, or no place for the marked one.
    """

    stable_name: ClassVar[str] = "Retrieval"
    yields: ClassVar[type] = ClassificationBatch
    pads: ClassVar[bool] = False

    def __init__(
        self,
        context: DataContext,
        *,
        values: Annotated[int, Ge(2)],
        length: Annotated[int, Ge(1)],
        min_distance: Annotated[int, Ge(0)],
        generation: FreshGenerationConfig,
        loader: LoaderConfig,
    ) -> None:
        super().__init__(context, generation=generation, loader=loader)
        if length <= min_distance:
            raise ConfigError(
                f"data.length={length} has no place for a marked token after data.min_distance={min_distance} others: "
                f"use at least {min_distance + 1}."
            )
        self.values, self.length, self.min_distance = values, length, min_distance

    def items(self, size: int, key: tuple[int, ...]) -> Items[tuple[Tokens, int]]:
        """Create the sequences of one split."""
        make = partial(marked, values=self.values, length=self.length, min_distance=self.min_distance)
        return Items(size, key, make, stacked)

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
