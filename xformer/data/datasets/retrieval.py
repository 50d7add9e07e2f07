"""Marked-token retrieval: one token among many is marked, and its value is the label.

Every token but the marked one says nothing about the label. So a model that answers from the state of one position
(`task.pooling=class`) has to move the value there, across any distance that its attention can cover; a mean over all
positions would find it with no attention at all.
"""

from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Interval
from jaxtyping import Int64

from xformer.data.batch import ClassificationBatch
from xformer.data.datasets.generated import Generated, Items
from xformer.data.facts import Facts
from xformer.errors import ConfigError


class Marked(Items[tuple[Int64[np.ndarray, " length"], int]]):
    """Sequences of values, of which one is marked, and that one.

    Args:
        size: sequences in an epoch.
        key: of the generators.
        values: number of values; token v is value v, and token values + v the same value, marked.
        length: tokens of a sequence.
        min_distance: the fewest tokens before the marked one.
    """

    def __init__(self, size: int, key: tuple[int, ...], *, values: int, length: int, min_distance: int) -> None:
        super().__init__(size, key)
        self.values, self.length, self.min_distance = values, length, min_distance

    def row(self, shape: int, generator: np.random.Generator) -> tuple[Int64[np.ndarray, " length"], int]:
        """A sequence and the value that is marked in it."""
        tokens = generator.integers(0, self.values, self.length)
        place = generator.integers(self.min_distance, self.length)
        label = int(tokens[place])
        tokens[place] += self.values
        return tokens, label

    def batch(self, rows: list[tuple[Int64[np.ndarray, " length"], int]]) -> ClassificationBatch:
        """Sequences one below the other."""
        tokens, labels = zip(*rows, strict=True)
        return ClassificationBatch(torch.from_numpy(np.stack(tokens)), None, torch.tensor(labels))


class Retrieval(Generated):
    """Random values, of which one is marked; the label is that value.

    Args:
        seed: order of the training batches.
        cache: unused: sequences are made when they are asked for.
        values: number of values, which are the classes.
        length: tokens of a sequence.
        min_distance: the fewest tokens before the marked one. Beyond layers x window a stack with nothing but a local
            window is at chance.
        train_size: training sequences in an epoch.
        val_size: number of validation sequences.
        test_size: number of test sequences.
        fresh: whether every epoch has new training sequences.
        generation_seed: decides the sequences.
        batch_size: sequences per step over all devices.
        num_workers: processes that fetch ahead.

    Raises:
        ConfigError: fewer than two values, or no place for the marked one.
    """

    stable_name: ClassVar[str] = "Retrieval"
    yields: ClassVar[type] = ClassificationBatch
    pads: ClassVar[bool] = False

    def __init__(
        self,
        seed: int,
        cache: Path,
        *,
        values: Annotated[int, Ge(2)],
        length: Annotated[int, Ge(1)],
        min_distance: Annotated[int, Ge(0)],
        train_size: Annotated[int, Ge(1)],
        val_size: Annotated[int, Ge(1)],
        test_size: Annotated[int, Ge(1)],
        fresh: bool,
        generation_seed: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        num_workers: Annotated[int, Interval(ge=0, le=1024)],
    ) -> None:
        super().__init__(
            seed,
            cache,
            train_size=train_size,
            val_size=val_size,
            test_size=test_size,
            fresh=fresh,
            generation_seed=generation_seed,
            batch_size=batch_size,
            num_workers=num_workers,
        )
        if length <= min_distance:
            raise ConfigError(
                f"data.length={length} has no place for a marked token after data.min_distance={min_distance} others: "
                f"use at least {min_distance + 1}."
            )
        self.values, self.length, self.min_distance = values, length, min_distance

    def items(self, size: int, key: tuple[int, ...]) -> Marked:
        """The sequences of one split."""
        return Marked(size, key, values=self.values, length=self.length, min_distance=self.min_distance)

    def load(self) -> None:
        """Make the splits."""
        super().load()
        self.facts = Facts(vocabulary=2 * self.values, length=self.length, classes=self.values)
        self.floors = {"any value": 1 / self.values}

    def describe(self) -> str:
        """Sizes and parameters."""
        return (
            f"Retrieval: {self.split_sizes()} of {self.length} tokens, one of {self.values} values marked at "
            f"{self.min_distance} or later"
        )
